#!/usr/bin/env python3
"""Fetch the files that PolyCoder's perplexities were measured with, unseen_test_sets.tar.gz, and unpack them;
or index.zip, the names and SHA-256 sums of the 24 million files that it was trained on, which stays a zip.

A download that broke off goes on where it stopped, and is compared with the checksum that its archive records."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.downloads.evaluation_sets import download_index, download_test_sets, num_files
from megatron.neox.downloads.options import add_fetch_options, fetcher_of
from megatron.neox.errors import run_long_door

OUTPUTS = {"test-sets": Path("evaldata/Code-sampled100"), "index": Path("evaldata/index.zip")}

EXAMPLES = """examples:
  tools/download_eval_data.py
  tools/download_eval_data.py --output evaldata/Code-sampled100 --keep-archive
  tools/download_eval_data.py index --output evaldata/index.zip
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="?", choices=tuple(OUTPUTS), default="test-sets", metavar="WHAT",
        help="test-sets (the default) or index",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="PATH",
        help="of the test sets: folder LANGUAGE/USER/REPOSITORY/FILE to make (default: "
        f"{OUTPUTS['test-sets']}); of the index: the file (default: {OUTPUTS['index']})",
    )  # fmt: skip
    add_fetch_options(parser, origins="zenodo.org", archive="tar.gz")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Fetch the test sets or the index, and say what there is."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.keep_archive and options.what == "index":
        parser.error("the index is never unpacked: --keep-archive goes with the test sets")
    output = options.output or OUTPUTS[options.what]
    with fetcher_of(parser, options) as fetcher:
        if options.what == "index":
            is_new = download_index(output, fetcher, mirror=options.mirror, is_checked=options.checksum)
        else:
            is_new = download_test_sets(
                output, fetcher, mirror=options.mirror, is_checked=options.checksum,
                keep_archive=options.keep_archive,
            )  # fmt: skip
    told = "holds" if is_new else "was there already; it holds"
    if options.what == "index":
        print(f"{output} {told}: {output.stat().st_size / 1e9:.2f} GB")
        print(f"next: tools/collect/in_training_set.py {output} PATH")
        return
    counts = ", ".join(f"{name} {count}" for name, count in num_files(output).items())
    print(f"{output} {told}: {counts}")
    print("next: ./deepy.py evaluate.py -d checkpoints-2-7B/configs 2-7B.yml code_ppl.yml")


if __name__ == "__main__":
    sys.exit(run_long_door(main, sys.argv[1:]))
