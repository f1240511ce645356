"""How the model and the work are laid over processes, and where those processes start."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from megatron.neox.config.section import Section


class ParallelismConfig(Section):
    """Sizes of the process grid."""

    pipe_parallel_size: NonNegativeInt = 0
    """Pipeline stages; 0 and 1 both mean no pipeline."""
    model_parallel_size: PositiveInt = 1
    """Tensor-parallel ranks, over which each layer is split."""
    sequence_parallel: bool = False
    """Split norms and dropouts along the sequence over the tensor-parallel ranks."""
    global_num_gpus: PositiveInt | None = None
    """Processes in all; none means num_gpus times num_nodes, or as many as the grid needs."""

    @property
    def num_pipe_stages(self) -> int:
        """Pipeline stages, at least 1."""
        return max(1, self.pipe_parallel_size)

    @property
    def num_model_ranks(self) -> int:
        """Processes that hold one copy of the model."""
        return self.num_pipe_stages * self.model_parallel_size


class LaunchConfig(Section):
    """Which processes start, where, and by which launcher."""

    launcher: Literal["pdsh", "openmpi", "mvapich", "mpich", "impi", "slurm", "torchrun"] = "pdsh"
    """What starts processes on several nodes; one node needs none."""
    hostfile: str | None = None
    """File of `host slots=N` lines; DLTS_HOSTFILE serves when it is absent."""
    include: str | None = None
    """Hosts and devices to use, in DeepSpeed's syntax (`host:0,1@other`)."""
    exclude: str | None = None
    """Hosts and devices to leave out."""
    num_nodes: PositiveInt | None = None
    """Nodes to use of the hostfile; none means all."""
    num_gpus: PositiveInt | None = None
    """Processes on each node; none means every GPU, or on a CPU as many as the grid needs."""
    master_addr: str | None = None
    """Address of the rank-0 node."""
    master_port: int = Field(default=29500, ge=1, le=65535)
    """Port of the rank-0 process; on a single node a busy one is replaced, and none given means any free one."""
    no_ssh_check: bool = False
    """Leave out the test that the hosts can be reached."""
    force_multi: bool = False
    """Use the multi-node launcher for one node too."""
    detect_nvlink_pairs: bool = False
    """Accepted for old configs, without effect."""
    comment: str | None = None
    """Comment for Slurm's accounting."""
    account: str | None = None
    """Account that Slurm charges."""
