#!/usr/bin/env python3
"""Show what a checkpoint, a Hugging Face folder or a file of weights holds, and what of it is damaged."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import json
from collections.abc import Sequence

from megatron.neox.errors import run_door

EXAMPLES = """exit status: 0 nothing wrong was found, 2 something is damaged or nothing was found

examples:
  tools/inspect_checkpoint.py runs/160M --iteration 1000 --verify
  tools/inspect_checkpoint.py polycoder-2-7B.gguf --tensors
"""


def main(arguments: Sequence[str]) -> int:
    """Print the findings."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "path", type=Path, metavar="PATH",
        help="a folder of checkpoints or one step of it, of this toolkit or of GPT-NeoX; a Hugging Face folder; "
        "a .gguf, .safetensors, .bin or .pt file",
    )  # fmt: skip
    parser.add_argument(
        "--iteration", type=int, metavar="N", help="step to show; default: what latest names, or the newest"
    )
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--verify", action="store_true", help="read every byte: checksums, and values that are not finite"
    )
    options = parser.parse_args(arguments)

    from megatron.neox.layouts.inspection import inspect_model  # imports torch, which --help does not need

    found = inspect_model(options.path, iteration=options.iteration, verify=options.verify)
    if options.json:
        print(json.dumps(found.as_dict(tensors=options.tensors), indent=1, default=str))
    else:
        print("\n".join(found.lines(tensors=options.tensors)))
    return 2 if found.damage else 0


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
