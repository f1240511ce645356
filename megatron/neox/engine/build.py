"""The training engine: one facade over DeepSpeed's pipeline engine and its plain one.

With pipe_parallel_size > 1 the layers become a PipelineModule, otherwise one module under the plain engine,
which also knows ZeRO 2 and 3. Both get the same weights, batches, losses and checkpoints.

A step's loss and gradient are the mean over micro-batches and data-parallel ranks of each one's mean, as in
GPT-NeoX: equal to one large batch as long as every micro-batch counts as many tokens (with eod_mask_loss they
count a few tokens more or less, and each micro-batch still weighs the same).
"""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn

from megatron.neox.config import batch
from megatron.neox.config.config import Config
from megatron.neox.config.deepspeed import deepspeed_config
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.optimizers import build_optimizer
from megatron.neox.engine.pipeline import build_pipeline, local_layers
from megatron.neox.engine.plain import LossModel
from megatron.neox.engine.schedules import build_schedule
from megatron.neox.engine.seeds import seed_layer, seed_step
from megatron.neox.models.plan import LayerPlan, plain_model
from megatron.neox.nn.core import lean_imports
from megatron.neox.nn.loss import cross_entropy
from megatron.neox.nn.parallel import shard_layout
from megatron.neox.plugins import models

Batch = tuple[Tensor, Tensor]
"""Token ids [b, s] and labels [b, s]."""


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did."""

    loss: float
    """Mean over the step's micro-batches and data-parallel ranks, in nats per token."""
    grad_norm: float
    """Norm of the whole gradient before clipping; inf where the step was skipped."""
    learning_rate: float
    skipped: bool
    """Whether the gradient was not finite, so that nothing was changed."""
    loss_scale: float
    """What fp16's loss was multiplied by; 1 otherwise."""


def build_training_engine(config: Config, grid: ProcessGrid, *, padded_vocab_size: int) -> TrainingEngine:
    """The model, its optimizer and its schedule, laid over the grid.

    That sizes fit each other and the grid, `config/checks.py` has made sure of.

    Raises:
        ConfigError: the device cannot do the precision.
        UnknownPartError: the config names a part that nothing registered.
    """
    grid.require_dtype(config.precision.dtype)
    assert grid.pipe_size == 1 or config.optimizer.zero_optimization.stage <= 1
    kind = PipelineTraining if grid.pipe_size > 1 else PlainTraining
    return kind(config, grid, padded_vocab_size=padded_vocab_size)


class TrainingEngine(ABC):
    """A model in training on this rank; every method is called by all ranks together.

    Attributes:
        step: optimizer steps taken since the run began, skipped ones included.
        deepspeed: DeepSpeed's engine.
    """

    def __init__(self, config: Config, grid: ProcessGrid, *, padded_vocab_size: int) -> None:
        self.config = config = batch.resolve(config, data_size=grid.data_size)
        self.grid = grid
        self.padded_vocab_size = padded_vocab_size
        self.step = 0
        self.num_micro_batches: int = config.training.gradient_accumulation_steps or 1
        parallel = grid.tensor_parallel(config.precision.dtype)
        self.plans: list[LayerPlan] = models.get(config.model.model)(
            config.model, padded_vocab_size=padded_vocab_size, parallel=parallel
        )
        self._learning_rate = build_schedule(
            config.schedule,
            peak=config.optimizer.learning_rate,
            train_iters=config.training.train_iters or 1,
        )
        training = config.training
        self.module = self.build_module(
            loss=partial(cross_entropy, parallel=parallel),
            recompute_interval=training.checkpoint_num_layers if training.checkpoint_activations else 0,
        )
        _add_partial_gradients(self.module, grid)
        self.deepspeed = self._start_deepspeed()

    @abstractmethod
    def build_module(self, *, loss: Callable[[Tensor, Tensor], Tensor], recompute_interval: int) -> nn.Module:
        """The module that DeepSpeed trains."""

    @abstractmethod
    def local_layers(self) -> list[tuple[LayerPlan, nn.Module]]:
        """This rank's layers with their plans; of tied layers each copy."""

    @abstractmethod
    def run_batch(self, batches: Sequence[Batch]) -> float:
        """Forward, backward and optimizer step; returns the mean loss over all data ranks."""

    @abstractmethod
    def run_evaluation(self, batches: Sequence[Batch]) -> float:
        """Mean loss over the batches of all data ranks, without gradient."""

    def train_step(self, batches: Iterator[Batch]) -> StepResult:
        """Take gradient_accumulation_steps micro-batches of this data rank and make one optimizer step.

        Every rank takes its micro-batches, those of inner pipeline stages too, so that iterators stay in
        step.
        """
        micro_batches = self._take(batches, self.num_micro_batches)
        learning_rate = self._learning_rate(self.step)
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        seed_step(
            self.config.training.seed,
            self.step,
            data_rank=self.grid.data_rank,
            pipe_rank=self.grid.pipe_rank,
        )
        loss_scale = float(getattr(self.deepspeed.optimizer, "loss_scale", 1.0))
        loss = self.run_batch(micro_batches)
        skipped = bool(getattr(self.deepspeed.optimizer, "overflow", False))
        norm = self.deepspeed.get_global_grad_norm()
        self.step += 1
        return StepResult(
            loss, float("inf") if norm is None else float(norm), learning_rate, skipped, loss_scale
        )

    def evaluate(self, batches: Iterator[Batch], num_batches: int) -> float:
        """Mean loss over `num_batches` micro-batches of every data rank, in nats per token."""
        return self.run_evaluation(self._take(batches, num_batches))

    @property
    def owned_layers(self) -> list[tuple[LayerPlan, nn.Module]]:
        """This rank's layers that own their weights: of tied ones, the first in the model."""
        first_of: dict[str, LayerPlan] = {}
        for plan in self.plans:
            first_of.setdefault(plan.tied_key or str(plan.number), plan)
        return [pair for pair in self.local_layers() if pair[0] in first_of.values()]

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model, the vocabulary's padding included, tied ones once."""
        count = torch.tensor(
            sum(
                getattr(p, "ds_numel", p.numel())
                * (self.grid.tensor_size if shard_layout(p).dim is not None else 1)
                for _, layer in self.owned_layers
                for p in layer.parameters()
            ),
            device=self.grid.device,
        )
        distributed.all_reduce(count, group=self.grid.groups["pipe"])
        return int(count)

    def _take(self, batches: Iterator[Batch], count: int) -> list[Batch]:
        device = self.grid.device
        return [
            (token_ids.to(device, non_blocking=True), labels.to(device, non_blocking=True))
            for token_ids, labels in (next(batches) for _ in range(count))
        ]

    def _start_deepspeed(self) -> Any:
        optimizer = build_optimizer(self.config.optimizer, self.module.parameters())
        topology = self.grid.deepspeed_topology()
        with lean_imports():  # of Muon, which ZeRO looks at whatever the optimizer
            import deepspeed.runtime.zero.muon.muon_optimizer
            from deepspeed.runtime.pipe.topology import PipelineParallelGrid

        # A PipelineModule brings its own grid; the plain engine learns of the tensor axis from this one.
        mpu = None
        if self.grid.pipe_size == 1:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints its ranks
                mpu = PipelineParallelGrid(topology=topology)
        with contextlib.redirect_stdout(io.StringIO()):  # and some optimizers the machine's memory
            engine, *_ = deepspeed.initialize(
                model=self.module,
                optimizer=optimizer,  # an object of ours: one named in the JSON would be compiled at the start
                config=deepspeed_config(self.config, data_size=self.grid.data_size),
                mpu=mpu,
            )
        # The right gradient norm under tensor and pipeline parallelism comes from these classes alone:
        # without ZeRO, DeepSpeed leaves later stages' norms and biases out of it and says nothing.
        assert engine.zero_optimization_stage() >= 1
        return engine


class PipelineTraining(TrainingEngine):
    """Several pipeline stages, ZeRO 1."""

    def build_module(self, *, loss: Callable[[Tensor, Tensor], Tensor], recompute_interval: int) -> nn.Module:
        """A PipelineModule with this rank's stage."""
        return build_pipeline(
            self.plans,
            self.grid,
            loss=loss,
            seed=self.config.training.seed,
            recompute_interval=recompute_interval,
        )

    def local_layers(self) -> list[tuple[LayerPlan, nn.Module]]:
        """This stage's layers."""
        return local_layers(self.module, self.plans)

    def run_batch(self, batches: Sequence[Batch]) -> float:
        """One pass of DeepSpeed's 1F1B schedule."""
        return float(self.deepspeed.train_batch(data_iter=iter(batches)))

    def run_evaluation(self, batches: Sequence[Batch]) -> float:
        """One pass of DeepSpeed's inference schedule."""
        # The receiving stage keeps the old shape of activations, and says nothing when another arrives.
        self.deepspeed.reset_activation_shape()
        self.deepspeed.total_loss = None  # eval_batch would add to it
        loss = self.deepspeed.eval_batch(iter(batches), num_micro_batches=len(batches))
        self.deepspeed.reset_activation_shape()
        self.deepspeed.module.train()
        return float(loss)


class PlainTraining(TrainingEngine):
    """One pipeline stage, ZeRO 1 to 3."""

    def build_module(self, *, loss: Callable[[Tensor, Tensor], Tensor], recompute_interval: int) -> nn.Module:
        """The whole model as one module."""
        seed = self.config.training.seed
        model = plain_model(self.plans, before_build=lambda index: seed_layer(seed, self.plans[index].number))
        module = LossModel(model, loss=loss, recompute_interval=recompute_interval)
        return module.to(self.grid.device)

    def local_layers(self) -> list[tuple[LayerPlan, nn.Module]]:
        """All layers."""
        layers = cast(LossModel, self.module).model.numbered_layers()
        return [(plan, layers[plan.number]) for plan in self.plans if plan.number in layers]

    def run_batch(self, batches: Sequence[Batch]) -> float:
        """Micro-batches one after the other; DeepSpeed steps after the last."""
        self.deepspeed.train()
        total = torch.zeros((), device=self.grid.device)
        for token_ids, labels in batches:
            loss = self.deepspeed(token_ids, labels)
            self.deepspeed.backward(loss)
            self.deepspeed.step()
            total += loss.detach()
        return self._mean_over_data_ranks(total / len(batches))

    @torch.no_grad()
    def run_evaluation(self, batches: Sequence[Batch]) -> float:
        """Forward passes only."""
        self.deepspeed.eval()
        total = torch.zeros((), device=self.grid.device)
        for token_ids, labels in batches:
            total += self.deepspeed(token_ids, labels)
        self.deepspeed.train()
        return self._mean_over_data_ranks(total / len(batches))

    def _mean_over_data_ranks(self, loss: Tensor) -> float:
        distributed.all_reduce(loss, group=self.grid.groups["data"])
        return float(loss) / self.grid.data_size


def _add_partial_gradients(module: nn.Module, grid: ProcessGrid) -> None:
    """Add up over the tensor ranks what sequence parallelism leaves as partial sums; DeepSpeed does not."""
    if not grid.sequence_parallel:
        return

    def summed(gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient, group=grid.groups["tensor"])
        return gradient

    for parameter in module.parameters():
        if getattr(parameter, "sequence_parallel", False):
            parameter.register_hook(summed)
