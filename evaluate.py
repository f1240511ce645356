#!/usr/bin/env python3
"""Measure a trained model: `./deepy.py evaluate.py CONFIG`, or `./evaluate.py CONFIG`."""

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
    from megatron.neox.evaluation.run import run

    return run(config)


if __name__ == "__main__":
    sys.exit(door("evaluate.py", run))
