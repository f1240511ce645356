#!/usr/bin/env python3
"""Generate text with a trained model: `./deepy.py generate.py CONFIG`, or `./generate.py CONFIG`."""

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
    from megatron.neox.generation.run import run

    return run(config)


if __name__ == "__main__":
    sys.exit(door("generate.py", run))
