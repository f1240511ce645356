#!/usr/bin/env python3
"""Tokenize source code, JSON lines, parquet or text into PREFIX_text_document.bin and .idx."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import deepy

deepy.enter()

from megatron.neox.config import TokenizerConfig
from megatron.neox.corpus.stages.options import add_executor_options, told_executor, told_resources
from megatron.neox.data.tokenize import Progress, TokenizeSettings, submit_tokenize, tokenize
from megatron.neox.errors import run_long_door

_EXAMPLES = """examples:
  tools/preprocess_data.py --input Code --tokenizer-type GPT2BPETokenizer --vocab-file code-vocab.json \\
      --merge-file code-merges.txt --output-prefix Preprocessed/code --workers 16
  tools/preprocess_data.py --input docs.jsonl.zst --tokenizer-type HFTokenizer --vocab-file tokenizer.json \\
      --output-prefix data/docs --append-eod
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_input(parser.add_argument_group("input"))
    _add_tokenizer(parser.add_argument_group("tokenizer"))
    _add_output(parser.add_argument_group("output and running"))
    add_executor_options(parser)
    return parser


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--input",
        required=True,
        help="a folder (every file below it is a document, or every row of its shards), or .jsonl[.gz|.zst], "
        ".parquet and text files; several, divided by commas",
    )
    group.add_argument(
        "--jsonl-keys",
        nargs="+",
        default=["text"],
        metavar="KEY",
        help="keys of JSON records, a dataset each (default: text)",
    )
    group.add_argument(
        "--text-column", metavar="NAME", help="column of parquet files (default: text, else content)"
    )
    group.add_argument(
        "--num-docs", type=int, metavar="N", help="number of documents, if known, for the time left"
    )
    group.add_argument(
        "--extensions", default="", metavar=".A,.B", help="take these files of a folder only (default: all)"
    )
    group.add_argument(
        "--filters", default="", metavar="A,B", help="plugins of kind filter, each may leave documents out"
    )
    group.add_argument(
        "--keep-bom",
        action="store_true",
        help="keep a byte order mark that begins a file, as PolyCoder's data did",
    )
    group.add_argument("--ftfy", action="store_true", help="mend broken Unicode with the package ftfy")
    group.add_argument(
        "--seed", type=int, default=1234, help="of the order of a folder's files (default: %(default)s)"
    )


def _add_tokenizer(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tokenizer-type",
        required=True,
        metavar="TYPE",
        help="GPT2BPETokenizer, HFTokenizer, ...: ./deepy.py plugins tokenizer",
    )
    group.add_argument("--vocab-file", metavar="FILE", help="vocab.json, or tokenizer.json for HFTokenizer")
    group.add_argument("--merge-file", metavar="FILE", help="merges.txt")
    group.add_argument(
        "--merges-header",
        choices=["drop_first_line", "auto"],
        default="drop_first_line",
        help="GPT-NeoX drops the first line of merges.txt whatever it is (default); auto drops a #version line only",
    )
    group.add_argument(
        "--missing-bytes",
        choices=["eod", "extend"],
        default="eod",
        help="bytes that the vocabulary lacks: GPT-NeoX's id 0 (eod, the default), or ids of their own behind it",
    )
    group.add_argument(
        "--append-eod",
        action=argparse.BooleanOptionalAction,
        help="end each document with the end-of-document token; on for folders, off for others unless given",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output-prefix",
        required=True,
        metavar="PREFIX",
        help="writes PREFIX_text_document.bin, .idx and .json",
    )
    group.add_argument(
        "--dataset-impl", choices=["lazy", "cached", "mmap"], default="mmap", help="mmap is what is written"
    )
    group.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    group.add_argument("--overwrite", action="store_true", help="replace a dataset of that prefix")
    group.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that read and encode (default: %(default)s)",
    )
    group.add_argument(
        "--engine", choices=["auto", "gigatoken", "tokenizer"], default="auto",
        help="what encodes: gigatoken where it gives the tokenizer's ids (auto, the default), or the tokenizer itself",
    )  # fmt: skip
    group.add_argument(
        "--log-interval",
        type=int,
        default=100,
        metavar="N",
        help="documents between progress lines (default: %(default)s)",
    )


def _split_inputs(argument: str) -> list[Path]:
    """The inputs of a comma list; a name that exists as it stands may hold commas."""
    if os.path.lexists(argument):
        return [Path(argument)]
    return [Path(part) for part in argument.split(",") if part]


class _Reporter:
    """Progress on stderr: one line rewritten on a terminal, a line at most each second elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < 1:
            return
        self._last = now
        # Back to the start of the line, and clear what a longer one left behind.
        line = f"\r{progress.line()}\x1b[K" if self._is_terminal else f"{progress.line()}\n"
        print(line, end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line on a terminal."""
        if self._is_terminal and self._last:
            print(file=sys.stderr)


def main(arguments: Sequence[str]) -> None:
    """Read the arguments and tokenize."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in ("workers", "log_interval", "num_docs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    inputs = _split_inputs(options.input)
    if not inputs:
        parser.error("--input names nothing")
    if len(set(options.jsonl_keys)) < len(options.jsonl_keys):
        parser.error("--jsonl-keys names a key twice")
    if options.dataset_impl != "mmap":
        print(
            f"--dataset-impl {options.dataset_impl} is read as mmap, which every reader takes",
            file=sys.stderr,
        )
    settings = TokenizeSettings(
        inputs=inputs,
        output_prefix=options.output_prefix,
        tokenizer=TokenizerConfig(
            tokenizer_type=options.tokenizer_type,
            vocab_file=options.vocab_file,
            merge_file=options.merge_file,
            merges_header=options.merges_header,
            missing_bytes=options.missing_bytes,
        ),
        append_eod=options.append_eod,
        keys=options.jsonl_keys,
        text_column=options.text_column,
        extensions=[
            part if part.startswith(".") else f".{part}" for part in options.extensions.split(",") if part
        ],
        filters=[part for part in options.filters.split(",") if part],
        keep_byte_order_mark=options.keep_bom,
        fix_text=options.ftfy,
        workers=options.workers,
        seed=options.seed,
        num_documents=options.num_docs,
        log_interval=options.log_interval,
        engine=options.engine,
        resume=options.resume,
        overwrite=options.overwrite,
        run_tasks=told_executor(options),
    )
    if options.executor == "slurm":
        for prefix, job in submit_tokenize(settings, told_resources(options)).items():
            if job is not None:
                print(f"{prefix}: job {job} finishes it; --resume --executor local then tells the counts")
        return
    with closing(_Reporter()) as reporter:
        tokenize(settings, report=reporter)


if __name__ == "__main__":
    sys.exit(run_long_door(main, sys.argv[1:]))
