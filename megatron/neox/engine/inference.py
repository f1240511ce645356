"""A trained model for generation and evaluation: the plain layers, without DeepSpeed.

The weights come from the layer files by logical tensor, whatever grid they were saved on; pipeline stages are folded
into one (`ProcessGrid.build(..., fold_pipeline=True)`), tensor ranks stay.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from megatron.neox.config.config import Config
from megatron.neox.config.model import ModelConfig
from megatron.neox.engine.agreement import on_main_rank
from megatron.neox.engine.completeness import all_differences, refuse_other_layers
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.vocabulary import check_fingerprint, refuse_larger, stored_rows
from megatron.neox.engine.weights import read_weights
from megatron.neox.errors import CheckpointError, ConfigError
from megatron.neox.layouts.architecture import check_architecture, describe_architecture
from megatron.neox.layouts.checkpoint_folder import find_checkpoint
from megatron.neox.layouts.manifest import Manifest
from megatron.neox.layouts.upstream import is_upstream
from megatron.neox.models.plan import PlainModel, plain_model
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.log_likelihood import target_log_probabilities
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import models
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

# Numbers of a hidden layer that are worked on together, whatever the batch: memory of less than 32 MB is used
# again by the C library, and more is given back and made ready anew each time.
_HIDDEN_AT_ONCE = 2**22


class InferenceModel:
    """Next-token logits over the whole vocabulary, the same on every tensor rank.

    Attributes:
        config: the architecture.
        vocab_size: ids that mean something; the logits of those behind it are -inf.
        padded_vocab_size: V, length of a row of logits.
        max_positions: longest sequence, in tokens.
        checkpoint: the folder that the weights came from.
    """

    def __init__(
        self,
        model: PlainModel,
        config: ModelConfig,
        parallel: TensorParallel,
        *,
        vocab_size: int,
        padded_vocab_size: int,
        checkpoint: Path,
    ) -> None:
        self.model = model.eval()
        self.config = config
        self.parallel = parallel
        self.vocab_size = vocab_size
        self.padded_vocab_size = padded_vocab_size
        self.max_positions = config.max_position_embeddings
        self.device = parallel.device
        self.checkpoint = checkpoint

    @torch.inference_mode()
    def logits(
        self, token_ids: Tensor, cache: KeyValueCache | None = None, *, at: Sequence[int] | None = None
    ) -> Tensor:
        """Ids [b, s] to logits [b, s, V] in the model's number format; with a cache the ids follow its tokens.

        Args:
            at: a place in each row, whose logits alone are computed, [b, 1, V].
        """
        shard = self.model(token_ids.to(self.device), cache=cache, at=at)  # [s, b, V / t]
        whole = self.parallel.gather(shard).transpose(0, 1)  # [b, s, V]
        whole[..., self.vocab_size :] = float("-inf")  # rows of padding, which training never taught anything
        return whole

    @property
    def computes_log_probabilities(self) -> bool:
        """Whether `log_probabilities` works: in fp32, on a CPU that has the whole output head."""
        weight = self.model.head_weight()
        return (
            weight is not None
            and self.parallel.size == 1
            and weight.dtype == torch.float32
            and weight.device.type == "cpu"
        )

    @torch.inference_mode()
    def log_probabilities(
        self, token_ids: Tensor, targets: Tensor, *, vocab_size: int | None = None, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What `logits` of ids [b, s] would give as log p of the targets [b, s], without that memory.

        Args:
            targets: -1 where nothing is asked; the answers there are 0 and True.
            vocab_size: ids from here on have no share in the probability.
            greedy: also tell whether each target is the first of the likeliest; else that is False.
        """
        weight = self.model.head_weight()
        assert weight is not None
        weight = weight[: min(self.vocab_size, vocab_size or self.vocab_size)]
        log_p, is_best = torch.zeros(targets.shape), torch.ones(targets.shape, dtype=torch.bool)
        rows = max(1, _HIDDEN_AT_ONCE // (token_ids.shape[1] * self.config.mlp_size))
        for start in range(0, len(token_ids), rows):
            piece = slice(start, start + rows)
            wanted = targets[piece] >= 0
            hidden = self.model(token_ids[piece], up_to_head=True).transpose(0, 1)[wanted]  # [n, h]
            found = target_log_probabilities(hidden, weight, targets[piece][wanted], greedy=greedy)
            log_p[piece][wanted], is_best[piece][wanted] = found
        return log_p, is_best

    def new_cache(self, batch: int, max_length: int) -> KeyValueCache:
        """Room for `max_length` tokens in each of `batch` rows."""
        return KeyValueCache(batch, max_length, self.config, self.parallel)


def load_model(config: Config, grid: ProcessGrid, *, tokenizer: Tokenizer) -> InferenceModel:
    """The model of the `load` folder, on this rank's share of the grid; every rank calls this.

    Raises:
        CheckpointError: there is no intact checkpoint, or it is of another architecture.
        VocabularyError: the tokenizer is not the one that the model was trained with.
        ConfigError: no `load` folder is given, or the device cannot do the precision.
    """
    checkpoint = _find(config, grid)
    padded_vocab_size = stored_rows(checkpoint, config)
    refuse_larger(tokenizer, padded_vocab_size, checkpoint)
    allowed = config.checkpoint.allow_tokenizer_mismatch
    check_fingerprint(checkpoint, tokenizer.fingerprint(), allow_mismatch=allowed)
    if not is_upstream(checkpoint):
        manifest = Manifest.read(checkpoint)
        wanted = describe_architecture(config.model, padded_vocab_size)
        check_architecture(manifest.architecture, wanted, checkpoint)
        if manifest.tensor_size != grid.tensor_size:
            log.info("resharding: from tp %d to tp %d", manifest.tensor_size, grid.tensor_size)
    parallel = replace(grid.tensor_parallel(inference_dtype(config, grid)), sequence_parallel=False)
    plans = models.get(config.model.model)(
        config.model, padded_vocab_size=padded_vocab_size, parallel=parallel
    )
    refuse_other_layers(checkpoint, config.model, plans, size=parallel.size)

    def weights(number: int, layer: nn.Module) -> dict[str, Tensor]:
        try:
            return read_weights(checkpoint, number, layer, rank=parallel.rank, size=parallel.size)
        except CheckpointError as first:
            raise all_differences(checkpoint, plans, size=parallel.size) or first from None

    model = plain_model(plans, weights=weights)
    log.info("loaded %s", checkpoint)
    return InferenceModel(
        model.to(grid.device),
        config.model,
        parallel,
        vocab_size=tokenizer.vocab_size,
        padded_vocab_size=padded_vocab_size,
        checkpoint=checkpoint,
    )


def _find(config: Config, grid: ProcessGrid) -> Path:
    folder = config.checkpoint.load
    if folder is None:
        raise ConfigError(["load is missing: the folder that holds the checkpoints"])
    if config.parallelism.num_pipe_stages > 1 and grid.pipe_size == 1:
        log.info("the %d pipeline stages are folded into one", config.parallelism.num_pipe_stages)
    section = config.checkpoint
    checkpoint = on_main_rank(  # it reads whole files
        lambda: find_checkpoint(
            Path(folder),
            iteration=section.iteration,
            strict=True,
            fallback=section.load_fallback,
            weights_only=True,
        )
    )
    assert checkpoint is not None
    return checkpoint


def inference_dtype(config: Config, grid: ProcessGrid) -> str:
    """The config's number format; fp16 becomes fp32 on a CPU, which loses nothing.

    Raises:
        ConfigError: the device cannot do it.
    """
    dtype = config.precision.dtype
    if dtype == "fp16" and grid.device.type == "cpu":
        log.warning(
            "fp16 is computed in fp32 on a CPU; --set precision=bf16 is faster and takes half the memory"
        )
        return "fp32"
    grid.require_dtype(dtype)
    return dtype
