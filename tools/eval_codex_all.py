#!/usr/bin/env python3
"""Perplexity of code in twelve languages under a model behind an OpenAI-style completions endpoint.

Each file is sent once, after the document-start text, and the endpoint echoes the log-probabilities of its tokens. The
key is read from the environment variable OPENAI_API_KEY and shown nowhere; a server on this machine needs none."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import logging
import os
from collections.abc import Sequence

from megatron.neox.downloads.fetch import Patience
from megatron.neox.errors import run_door
from megatron.neox.evaluation.endpoint.client import KEY_VARIABLE, Endpoint
from megatron.neox.evaluation.endpoint.files import read_folders
from megatron.neox.evaluation.endpoint.job import Settings, confirm, estimate, score_files
from megatron.neox.evaluation.endpoint.results_file import ResultsFile
from megatron.neox.evaluation.endpoint.table import table
from megatron.neox.evaluation.lexing import PYGMENTS_VERSION

EXAMPLES = """examples:
  tools/eval_codex_all.py --dirs evaldata/Code-sampled100 --model davinci-002 --price-per-million 2
  tools/eval_codex_all.py --dirs evaldata/Code-sampled100 --base-url http://127.0.0.1:8000/v1 --model polycoder
"""


def main(arguments: Sequence[str]) -> None:
    """Score the files, and print a table for each folder."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    files = read_folders(options.dirs)
    patience = Patience(options.retries, options.retry_wait, options.timeout)
    key = os.environ.get(KEY_VARIABLE)
    endpoint = Endpoint(options.base_url, options.model, key=key, patience=patience)
    settings = Settings(options.start_text, options.context_tokens, options.workers)
    with ResultsFile(options.output) as results:
        missing = [file for file in files if settings.key(endpoint, file) not in results.rows]
        if held := len(files) - len(missing):
            print(f"{options.output} holds the scores of {held} files", file=sys.stderr)
        if missing:
            line = estimate(missing, options.price_per_million)
            print(line, file=sys.stderr)
            ask = input if sys.stdin.isatty() else None
            confirm(line, has_price=options.price_per_million is not None, is_agreed=options.yes, ask=ask)
        rows = score_files(files, endpoint, settings, results)
    for folder in dict.fromkeys(row["folder"] for row in rows):
        print(f"{folder}: {options.model} at {endpoint.base_url}, Pygments {PYGMENTS_VERSION}\n")
        print(table([row for row in rows if row["folder"] == folder]))
    texts = {row["sha256"]: row for row in rows}.values()  # files of one text are sent once
    cut, sent = sum(bool(row["windows"]) for row in rows), sum(row["tokens_sent"] for row in texts)
    print(f"{sent:,} tokens were sent; of {len(rows)} files, {cut} were cut into windows")
    if unaligned := sum(row["unaligned_windows"] for row in texts):
        print(f"{unaligned} windows do not begin where the one before ends, by a part of a token")
    print(f"every file: {options.output}")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, patience = parser.add_argument, Patience()
    add(
        "--dirs", type=Path, nargs="+", required=True, metavar="DIR",
        help="LANGUAGE/USER/REPOSITORY/FILE: folders, or tars of them",
    )  # fmt: skip
    add(
        "--model",
        default="davinci-codex",
        help="(default: %(default)s, which Code-LMs' script asked, and which OpenAI has withdrawn)",
    )
    add(
        "--base-url", default="https://api.openai.com/v1", metavar="URL",
        help="what stands before /completions (default: %(default)s)",
    )  # fmt: skip
    add(
        "--start-text", default="<|endoftext|>", metavar="TEXT",
        help='stands before each file (default: %(default)s); "" leaves its first token without a score',
    )  # fmt: skip
    add(
        "--context-tokens", type=_at_least_two, default=2048, metavar="N",
        help="longest prompt in tokens; longer files are cut into windows (default: %(default)s)",
    )  # fmt: skip
    add("--workers", type=_positive, default=4, metavar="N", help="files at a time (default: %(default)s)")
    add(
        "--price-per-million",
        type=_not_negative,
        metavar="DOLLARS",
        help="of tokens: tell the cost and ask first",
    )
    add("--yes", action="store_true", help="agree to the cost")
    add(
        "--output", type=Path, default=Path("eval_codex_all.jsonl"), metavar="FILE",
        help="a line for each file; the same command goes on where it stopped (default: %(default)s)",
    )  # fmt: skip
    add("--retries", type=_whole, default=patience.num_retries, metavar="N", help="(default: %(default)s)")
    add(
        "--retry-wait", type=_not_negative, default=patience.wait_seconds, metavar="SECONDS",
        help="before the first retry, twice as long before each further one, or what the server asks for, at most 60 "
        "(default: %(default)s)",
    )  # fmt: skip
    add(
        "--timeout", type=_seconds, default=patience.timeout_seconds, metavar="SECONDS",
        help="longest silence of the server (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _at_least(least: float, kind: type, text: str) -> float:
    try:
        number = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no number") from None
    if not least <= number < 1e9:
        raise argparse.ArgumentTypeError(f"must be {least} or more")
    return number


def _positive(text: str) -> float:
    return _at_least(1, int, text)


def _at_least_two(text: str) -> float:
    return _at_least(2, int, text)


def _whole(text: str) -> float:
    return _at_least(0, int, text)


def _not_negative(text: str) -> float:
    return _at_least(0, float, text)


def _seconds(text: str) -> float:
    return _at_least(0.001, float, text)


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
