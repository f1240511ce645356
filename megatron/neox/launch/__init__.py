"""deepy.py's room: the command line, the plan of the ranks, their start, and a rank's own beginning.

`deepy(arguments)` is `./deepy.py`, `console()` the command `neox`, and `door(script, run)` the last line of train.py,
generate.py and evaluate.py. Nothing here imports torch or an engine: a mistake is told before any process starts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from megatron.neox.config import Config
from megatron.neox.errors import run_door
from megatron.neox.launch.door import config_argument, decode, is_started_as_rank, run_rank
from megatron.neox.launch.verbs import INFERENCE, dispatch, load_for, parse_start

__all__ = ["console", "deepy", "door"]


def deepy(arguments: list[str]) -> int:
    """`./deepy.py VERB ...` and `./deepy.py SCRIPT CONF...`; returns the exit code."""
    return run_door(lambda given: dispatch(list(given), program="./deepy.py"), arguments)


def console() -> int:
    """`neox VERB ...`: deepy's verbs, and `train`, `generate`, `evaluate` for the scripts."""
    return run_door(lambda given: dispatch(list(given), program="neox"), sys.argv[1:])


def door(user_script: str, run: Callable[[Config], int | None]) -> int:
    """What a door script does: be a rank if it was started as one, else start the ranks.

    Args:
        user_script: the script's name, "train.py".
        run: the work of one rank.
    """
    arguments = sys.argv[1:]
    encoded = config_argument(arguments)
    fill = user_script not in INFERENCE
    if encoded is not None:
        return run_rank(run, lambda: Config.from_flat(decode(encoded)), fill_batches=fill)
    if is_started_as_rank():
        return run_rank(
            run,
            lambda: load_for(user_script, parse_start([user_script, *arguments])).config,
            fill_batches=fill,
        )
    return run_door(lambda given: dispatch([user_script, *given], program=f"./{user_script}"), arguments)
