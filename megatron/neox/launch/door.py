"""A rank's side of a launch: the config comes in as an argument, the outcome goes back to the launcher."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from megatron.neox.config import Config
from megatron.neox.config.batch import resolve
from megatron.neox.engine.distributed import die_with_launcher
from megatron.neox.errors import NeoXError, run_door
from megatron.neox.launch.ranks import launch_folder, own_rank, tell_end, tell_start
from megatron.neox.plugins import load_plugins

CONFIG_ARGUMENT = "--megatron_config"


def encode(keys: dict[str, Any]) -> str:
    """Keys as one command line argument, in the manner of GPT-NeoX."""
    return base64.urlsafe_b64encode(json.dumps(keys).encode()).decode()


def decode(text: str) -> dict[str, Any]:
    """What `encode` was given."""
    return json.loads(base64.urlsafe_b64decode(text))


def config_argument(arguments: Sequence[str]) -> str | None:
    """The encoded config among a rank's arguments, or None where this is no rank."""
    if CONFIG_ARGUMENT in arguments[:-1]:
        return arguments[list(arguments).index(CONFIG_ARGUMENT) + 1]
    return None


def run_rank(
    run: Callable[[Config], int | None], load: Callable[[], Config], *, fill_batches: bool = True
) -> int:
    """Be a rank: load the config, import its plugins, call `run`, and tell the launcher how it ended.

    Args:
        fill_batches: fill in the batch keys for the number of ranks; a reader of checkpoints has no use for them.
    """
    die_with_launcher()
    _take_rank_from_scheduler()
    folder = launch_folder()
    if folder is not None:
        tell_start(folder)
    code, told = 1, ""

    def body(_: Sequence[str]) -> int | None:
        nonlocal told
        try:
            config = _with_batches(load()) if fill_batches else load()
            load_plugins(config.training.plugins)
            return run(config)
        except NeoXError as error:
            if folder is None:
                raise
            # The launcher prints it, once for all ranks that met it.
            told = f"{type(error).__name__}\n{error}"
            return error.exit_code
        except KeyboardInterrupt:
            return 130

    try:
        code = run_door(body, ())
    except SystemExit as exit_request:
        code = exit_request.code if isinstance(exit_request.code, int) else int(exit_request.code is not None)
        raise
    finally:
        sys.stdout.flush()
        if folder is not None:
            tell_end(folder, code, told)
        elif told and own_rank():
            print(f"rank {own_rank()}: {told}", file=sys.stderr)
    return code


def _with_batches(config: Config) -> Config:
    """The config with its batch keys filled in for the ranks at hand, where it gives any."""
    training, world_size = config.training, int(os.environ.get("WORLD_SIZE", "1"))
    if training.train_batch_size is None and training.train_micro_batch_size_per_gpu is None:
        return config
    data_size, rest = divmod(world_size, config.parallelism.num_model_ranks)
    return config if rest else resolve(config, data_size=data_size)


# Where schedulers say what torchrun says in RANK, WORLD_SIZE and LOCAL_RANK.
_SCHEDULERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)


def _take_rank_from_scheduler() -> None:
    if "RANK" in os.environ:
        return
    for names in _SCHEDULERS:
        if all(name in os.environ for name in names):
            for target, name in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), names):
                os.environ[target] = os.environ[name]
            return


def is_started_as_rank() -> bool:
    """Whether torchrun or a scheduler's step started this process as one of several ranks."""
    return "RANK" in os.environ or {"SLURM_STEP_ID", "SLURM_PROCID"} <= os.environ.keys()
