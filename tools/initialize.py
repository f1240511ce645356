#!/usr/bin/env python3
"""Write the untrained model of a config: the very weights that training with it starts from, and its tokenizer."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import logging
from collections.abc import Sequence

from megatron.neox.config.load import load_config
from megatron.neox.errors import run_door

EXAMPLES = """Training from it: ./deepy.py train.py CONF --set load=OUTPUT --set finetune=true

examples:
  tools/initialize.py configs/160M.yml configs/local_setup.yml --output untrained-160M --set seed=7
  tools/initialize.py configs/160M.yml configs/local_setup.yml --output my-model --to hf --push me/my-model
"""


def main(arguments: Sequence[str]) -> None:
    """Write OUTPUT."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "configs", nargs="+", metavar="CONF", help="config files, merged in order; .yml is implied"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("untrained"),
        metavar="DIR",
        help="must not exist; default: untrained",
    )
    parser.add_argument(
        "--to", choices=("neox", "hf"), default="neox",
        help="a folder of checkpoints (default), or a Hugging Face folder",
    )  # fmt: skip
    parser.add_argument("--push", metavar="REPO", help="upload to the Hugging Face hub, with --to hf")
    parser.add_argument(
        "-d", "--conf_dir", "--conf-dir", metavar="DIR", help="folder to look for config files in first"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="give or replace a key, seed among them",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    loaded = load_config(options.configs, conf_dir=options.conf_dir, overrides=options.set)
    from megatron.neox.conversion.initialize import initialize  # imports torch, which --help does not need

    initialize(
        loaded.config,
        options.output,
        target=options.to,
        push=options.push,
        say=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
