#!/usr/bin/env python3
"""Convert a model between checkpoints of this toolkit or GPT-NeoX, Hugging Face folders, GGUF and CTranslate2.

What the input is, is found out and said. A Hugging Face folder is compared with the original in transformers before
it gets its name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import logging
from collections.abc import Sequence

from megatron.neox.errors import run_door

EXAMPLES = """examples:
  tools/convert_checkpoint.py --input runs/quickstart/checkpoints --output my-model --to hf
  tools/convert_checkpoint.py --input NinedayWang/PolyCoder-160M --output checkpoints-160M --to neox
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "configs",
        nargs="*",
        type=Path,
        metavar="CONF",
        help="configs of a GPT-NeoX checkpoint that has none beside it",
    )
    parser.add_argument(
        "--input",
        required=True,
        metavar="PATH",
        help="folder of checkpoints, Hugging Face folder, GGUF file, or a name on the hub (owner/model)",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="what to write; must not exist"
    )
    parser.add_argument("--to", required=True, choices=("hf", "neox", "gguf", "ctranslate2"), help="format")
    parser.add_argument(
        "--iteration", type=int, metavar="N", help="step of the checkpoint (default: the newest)"
    )
    parser.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16"),
        help="number format of the weights (default: as they are)",
    )
    parser.add_argument(
        "--quantization",
        metavar="Q",
        help="type of the weights in GGUF (q8_0, q4_0, ...) or CTranslate2 (int8, ...)",
    )
    parser.add_argument(
        "--gelu",
        choices=("erf", "tanh"),
        help="function that the output calls gelu (default: the input's); PolyCoder was trained with tanh and "
        "published as erf",
    )
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare logits with transformers' (hf; takes twice the memory of the model in fp32), or perplexities "
        "before and after --quantization (gguf, ctranslate2)",
    )
    parser.add_argument(
        "--push",
        metavar="REPO",
        help="upload to the Hugging Face hub (hf), with the token of HF_TOKEN or hf auth login",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Write OUTPUT."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from megatron.neox.conversion.convert import Conversion, convert

    convert(
        Conversion(
            source=options.input,
            output=options.output,
            target=options.to,
            configs=options.configs,
            iteration=options.iteration,
            dtype=options.dtype,
            quantization=options.quantization,
            gelu=options.gelu,
            check=options.check,
            push=options.push,
        ),
        say=lambda line: print(line, flush=True),
    )


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
