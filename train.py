#!/usr/bin/env python3
"""Train a model: `./deepy.py train.py configs/quickstart.yml`, or `./train.py configs/quickstart.yml`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import deepy

deepy.enter()

from megatron.neox.config import Config
from megatron.neox.launch import door


def run(config: Config) -> int:
    """Import the engine only in a rank: `--help` and a launch need none of it."""
    from megatron.neox.evaluation.in_training import prepare
    from megatron.neox.training.run import run

    return run(config, prepare)


if __name__ == "__main__":
    sys.exit(door("train.py", run))
