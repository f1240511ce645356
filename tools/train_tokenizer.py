#!/usr/bin/env python3
"""Learn a byte-level BPE vocabulary from source files: vocab.json, merges.txt and tokenizer.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import deepy

deepy.enter()

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.readers import inputs_of
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.errors import log_to_stderr, run_door
from megatron.neox.plugins import readers
from megatron.neox.tokenizers.train import is_sampled, refuse_existing, train_vocabulary, write_vocabulary

_EXAMPLES = """examples:
  tools/train_tokenizer.py --input Code --output vocabulary --vocab-size 50257 --sample 0.05
  tools/train_tokenizer.py --input a.jsonl.zst b.jsonl.zst --output vocabulary --max-megabytes 500
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        required=True,
        help="folders of source files or of shards, .jsonl[.gz|.zst], .parquet or text files",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="where the three files go"
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=32768,
        metavar="N",
        help="pieces, specials included (default: %(default)s)",
    )
    parser.add_argument(
        "--min-frequency",
        type=int,
        default=2,
        metavar="N",
        help="times that a pair must occur (default: %(default)s)",
    )
    parser.add_argument(
        "--max-megabytes",
        type=_above_0,
        metavar="MB",
        help="read this much at most, in the seeded order (default: all)",
    )
    parser.add_argument(
        "--sample", type=_share, default=1.0, metavar="SHARE",
        help="learn from a random share of the documents, chosen by their names: 0.05 as for PolyCoder's vocabulary "
        "(default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--seed",
        type=int,
        default=1234,
        help="of --sample, and of the order of a folder's files (default: %(default)s)",
    )
    parser.add_argument(
        "--jsonl-key", default="text", metavar="KEY", help="key of JSON records (default: %(default)s)"
    )
    parser.add_argument(
        "--text-column", metavar="NAME", help="column of parquet files (default: text, else content)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"is a share above 0 and up to 1, not {text}")
    return share


def _above_0(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"is a number above 0, not {text}")
    return number


def _sampled(documents: Iterator[Document], options: argparse.Namespace, tally: Tally) -> Iterator[Document]:
    """The documents of the sample; a record is named by its file and number, wherever that file lies."""
    for document in documents:
        name = document.name if document.is_file else document.name.rpartition("/")[2]
        if options.sample == 1 or is_sampled(name, share=options.sample, seed=options.seed):
            yield document
        else:
            tally.skip("not_sampled")


def _texts(options: argparse.Namespace, tally: Tally) -> Iterator[str]:
    limit = options.max_megabytes * 1e6 if options.max_megabytes else float("inf")
    for name, path in [place for given in options.input for place in inputs_of(given)]:
        documents = readers.build(
            name,
            path,
            tally,
            seed=options.seed,
            key=options.jsonl_key,
            column=options.text_column,
        )
        for text in usable_texts(_sampled(documents, options, tally), tally):
            yield text
            if tally.num_bytes >= limit:
                return


def main(arguments: Sequence[str]) -> None:
    """Read the arguments, learn the vocabulary, write it."""
    options = _parser().parse_args(arguments)
    refuse_existing(options.output, overwrite=options.overwrite)
    tally = Tally()
    engine = train_vocabulary(
        _texts(options, tally), vocab_size=options.vocab_size, min_frequency=options.min_frequency
    )
    write_vocabulary(engine, options.output, overwrite=options.overwrite)
    num_pieces = engine.get_vocab_size()
    if num_pieces < options.vocab_size:
        print(
            f"NOTE: {num_pieces} pieces, not the {options.vocab_size} asked for: no other pair occurs "
            f"{options.min_frequency} times in this much text",
            file=sys.stderr,
        )
    print(
        f"{options.output}: {num_pieces} pieces from {tally.num_documents} documents, "
        f"{tally.num_bytes / 1e6:.1f} MB (left out: {tally.reasons()})"
    )


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(run_door(main, sys.argv[1:]))
