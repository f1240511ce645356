"""The process grid: which rank holds which pipeline stage, tensor shard and data-parallel copy.

Ranks are numbered with the tensor axis fastest, then data, then pipe, as DeepSpeed's pipe-data-model topology
and megatron-core's order "tp-cp-ep-dp-pp" both do::

    2 stages x 2 copies x 2 shards     rank = (pipe * data_size + data) * tensor_size + tensor
      stage 0: copy 0 [0 1]  copy 1 [2 3]
      stage 1: copy 0 [4 5]  copy 1 [6 7]
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import distributed
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from megatron.neox.config.parallelism import ParallelismConfig
from megatron.neox.errors import ConfigError
from megatron.neox.nn.parallel import TensorParallel

if TYPE_CHECKING:
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What the names of PrecisionConfig.dtype mean to torch."""


@dataclass
class ProcessGrid:
    """This process's place among all; a context manager that takes the process groups down again."""

    rank: int
    world_size: int
    pipe_rank: int
    pipe_size: int
    data_rank: int
    data_size: int
    tensor_rank: int
    tensor_size: int
    sequence_parallel: bool
    device: torch.device
    groups: dict[str, Any]
    """Process groups by axis: "tensor", "pipe", "data"."""
    _undo: list[Callable[[], object]] = field(default_factory=list, repr=False)

    @classmethod
    def build(cls, parallelism: ParallelismConfig, *, fold_pipeline: bool = False) -> ProcessGrid:
        """Start torch.distributed and lay the grid over its ranks.

        Without RANK in the environment this is one process; one process opens no port.

        Args:
            parallelism: the grid's sizes; the data axis takes what they leave.
            fold_pipeline: put all stages into one, for inference.

        Raises:
            ConfigError: the processes do not divide into pipe_parallel_size * model_parallel_size.
        """
        pipe_size = 1 if fold_pipeline else parallelism.num_pipe_stages
        tensor_size = parallelism.model_parallel_size
        world_size = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
        _check_sizes(world_size, pipe_size, tensor_size)
        undo: list[Callable[[], object]] = []
        silence_warnings()
        device = _choose_device()
        set_thread_count(device)
        _start_distributed(device, world_size, undo)
        rank = distributed.get_rank()
        rest, tensor_rank = divmod(rank, tensor_size)
        data_size = world_size // (pipe_size * tensor_size)
        pipe_rank, data_rank = divmod(rest, data_size)
        groups = _start_megatron_core(tensor_size, pipe_size, (tensor_rank, data_rank, pipe_rank), undo)
        if parallelism.sequence_parallel and device.type == "cpu":
            _replace_current_device(undo)
        return cls(
            rank=rank,
            world_size=world_size,
            pipe_rank=pipe_rank,
            pipe_size=pipe_size,
            data_rank=data_rank,
            data_size=data_size,
            tensor_rank=tensor_rank,
            tensor_size=tensor_size,
            sequence_parallel=parallelism.sequence_parallel and tensor_size > 1,
            device=device,
            groups=groups,
            _undo=undo,
        )

    @property
    def is_main(self) -> bool:
        """Whether this rank speaks for all."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            distributed.barrier()

    def tensor_parallel(self, dtype: str) -> TensorParallel:
        """What the layers need to know of the grid; `dtype` names the weights' type, bf16 say."""
        return TensorParallel(
            group=self.groups["tensor"],
            rank=self.tensor_rank,
            size=self.tensor_size,
            sequence_parallel=self.sequence_parallel,
            dtype=DTYPES[dtype],
            device=self.device,
        )

    def require_dtype(self, dtype: str) -> None:
        """Check that the device can train in `dtype`.

        Raises:
            ConfigError: it cannot; names the override that helps.
        """
        on_cpu = self.device.type == "cpu"
        if dtype == "fp16" and on_cpu:
            raise ConfigError(
                ["precision: fp16 needs a GPU, and this machine offers only a CPU; give --set precision=bf16"]
            )
        if dtype == "bf16" and not on_cpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ConfigError(["precision: this GPU has no bf16; give --set precision=fp16 (or fp32)"])

    def deepspeed_topology(self) -> PipeModelDataParallelTopology:
        """The same grid in DeepSpeed's terms; starts its communication."""
        start_deepspeed(self.device, self._undo)
        from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

        topology = PipeModelDataParallelTopology(
            num_pp=self.pipe_size, num_mp=self.tensor_size, num_dp=self.data_size
        )
        here = topology.get_coord(self.rank)
        assert (here.pipe, here.data, here.model) == (self.pipe_rank, self.data_rank, self.tensor_rank)
        ranks = topology.get_axis_comm_lists("model")[self.pipe_rank * self.data_size + self.data_rank]
        assert ranks == distributed.get_process_group_ranks(self.groups["tensor"])
        return topology

    def close(self) -> None:
        """Take down the process groups and undo what was replaced for them."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> ProcessGrid:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def silence_warnings() -> None:
    """Ignore what megatron-core and DeepSpeed warn of and no user can change."""
    core = ("Transformer Engine", "Apex is not installed", "CUDA_DEVICE_MAX_CONNECTIONS", "tp_group is None")
    for message in core:
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    # torch 2.13 renamed these collectives; both libraries still use the old names.
    for message in (".*all_gather_into_tensor.*", ".*reduce_scatter_tensor.*"):
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)


def set_thread_count(device: torch.device) -> None:
    """Share this machine's cores among its ranks.

    DeepSpeed's launcher gives every rank all cores and torchrun gives it one, so neither is left to decide; a
    user's own OMP_NUM_THREADS is.
    """
    if device.type != "cpu":
        return
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and "TORCHELASTIC_RUN_ID" not in os.environ:
        torch.set_num_threads(int(wanted))
        return
    num_ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // num_ranks))


def start_deepspeed(device: torch.device, undo: list[Callable[[], object]]) -> None:
    """Import DeepSpeed and let it use the process group that runs already."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or every process warns that it found no GPU
    import deepspeed.comm.comm
    import deepspeed.ops

    _tame_logger()
    # Read once, for an op that only inference_all_reduce uses. Unset, DeepSpeed runs a C++ compiler to find
    # out which of its ops would build here, and then builds that one for a minute.
    cast(Any, deepspeed.ops).__compatible_ops__ = {}
    if deepspeed.comm.comm.cdb is None:
        deepspeed.comm.comm.init_distributed(dist_backend=_backend(device), verbose=False)
        undo.append(lambda: setattr(deepspeed.comm.comm, "cdb", None))


def _tame_logger() -> None:
    """Lead DeepSpeed's warnings into the log; its import gave its logger a handler of its own, on stdout."""
    logger = logging.getLogger("DeepSpeed")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a warning is worth a user's time; the tests train with every optimizer under ZeRO."""
    return "untested optimizer" not in record.getMessage()


def _check_sizes(world_size: int, pipe_size: int, tensor_size: int) -> None:
    needed = pipe_size * tensor_size
    if world_size % needed:
        sizes = f"pipe_parallel_size {pipe_size} * model_parallel_size {tensor_size}"
        raise ConfigError(
            [
                f"{world_size} process(es) do not divide into {sizes} = {needed}; "
                f"set num_gpus (or global_num_gpus) to a multiple of {needed}, or change the two sizes"
            ]
        )


def _choose_device() -> torch.device:
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _start_distributed(device: torch.device, world_size: int, undo: list[Callable[[], object]]) -> None:
    if world_size > 1:
        distributed.init_process_group(_backend(device), device_id=device if device.type == "cuda" else None)
    else:
        # A store in memory: one process needs no port, and none can be taken from it.
        distributed.init_process_group(_backend(device), store=HashStore(), rank=0, world_size=1)
    undo.append(distributed.destroy_process_group)
    if "LOCAL_RANK" not in os.environ:
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed refuses to start without it
        undo.append(lambda: os.environ.pop("LOCAL_RANK", None))


def _start_megatron_core(
    tensor_size: int, pipe_size: int, place: tuple[int, int, int], undo: list[Callable[[], object]]
) -> dict[str, Any]:
    from megatron.neox.nn.core import parallel_state

    parallel_state.initialize_model_parallel(
        tensor_size, pipe_size, order="tp-cp-ep-dp-pp", create_gloo_process_groups=False
    )
    undo.append(_stop_megatron_core)
    assert place == (
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_data_parallel_rank(),
        parallel_state.get_pipeline_model_parallel_rank(),
    )
    return {
        "tensor": parallel_state.get_tensor_model_parallel_group(),
        "data": parallel_state.get_data_parallel_group(),
        "pipe": parallel_state.get_pipeline_model_parallel_group(),
    }


def _stop_megatron_core() -> None:
    """Undo `initialize_model_parallel`, and the groups that its own undoing forgets.

    A child forked later that begins anew would drop those, and wait for threads that it does not have.
    """
    from megatron.neox.nn.core import parallel_state

    parallel_state.destroy_model_parallel()
    for name, value in list(vars(parallel_state).items()):
        if isinstance(value, distributed.ProcessGroup):
            setattr(parallel_state, name, None)


def _replace_current_device(undo: list[Callable[[], object]]) -> None:
    """Let megatron-core's sequence-parallel mappings allocate on the CPU; they ask CUDA where."""
    original = torch.cuda.current_device
    torch.cuda.current_device = lambda: "cpu"  # pyright: ignore[reportAttributeAccessIssue]
    undo.append(lambda: setattr(torch.cuda, "current_device", original))
