#!/usr/bin/env python3
"""Extract the source files of cloned repositories to parquet shards, or to PolyCoder's flat tree.

Of each repository the files in its language are taken: that of CLONES/LANGUAGE/ORGANIZATION/PROJECT, or the one of most
bytes where a single folder is given. What is left out is counted by reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

from megatron.neox.corpus.extraction.extract import extraction
from megatron.neox.corpus.extraction.source_files import LINKS_OUT, ExtractSettings
from megatron.neox.corpus.extraction.source_text import ENCODINGS
from megatron.neox.corpus.stages.options import add_stage_options, run_as_told
from megatron.neox.errors import ResourceError, run_door

_EXAMPLES = """examples:
  tools/collect/extract_code.py --input Clones --manifest TopLists/manifest.jsonl --output Shards
  tools/collect/extract_code.py --input ~/src/redis --repository redis/redis --output redis-shards
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FOLDER",
        help="LANGUAGE/ORGANIZATION/PROJECT, as clone_repo.py leaves them")  # fmt: skip
    add("--repository", metavar="ORG/PROJECT", help="the input is the folder of this one repository")
    add("--manifest", type=Path, action="append", default=[], metavar="FILE",
        help="of a crawl, for stars and licences; repeatable; INPUT/clones.jsonl is read anyway")  # fmt: skip
    add("--all-languages", action="store_true", help="take every file in a language of the table")
    add("--format", choices=("parquet", "tree"), default="parquet",
        help="tree: LANGUAGE/org__project__path__file, and index.txt (default parquet)")  # fmt: skip
    add("--encoding", choices=ENCODINGS, default="skip",
        help="of files not in UTF-8: leave out (default), replace bad bytes, guess")  # fmt: skip
    add("--max-bytes", type=int, default=1 << 20, metavar="N", help="largest file (default 1 MiB)")
    add("--min-tokens", type=int, default=100, metavar="N",
        help="fewest tokens by Pygments (default 100); 0 does not count them")  # fmt: skip
    add("--repositories-per-task", type=int, default=0, metavar="N",
        help="in a shard (default: what gives 16 shards, and 64 at most)")  # fmt: skip
    add(
        "--max-errors",
        type=int,
        metavar="N",
        help="exit with 1 where more files cannot be read (default: no limit)",
    )
    add_stage_options(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read the arguments, extract, and say what was kept and left out."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in ("max_bytes", "min_tokens", "repositories_per_task", "max_errors"):
        if (getattr(options, name) or 0) < 0:
            parser.error(f"--{name.replace('_', '-')} must be 0 or more")
    if options.repository is not None:
        from megatron.neox.corpus.repositories import check_name

        check_name(options.repository, "--repository")
    keys = ("input", "output", "repository", "all_languages", "format", "encoding", "max_bytes", "min_tokens",
            "repositories_per_task")  # fmt: skip
    settings = ExtractSettings(
        **{key: getattr(options, key) for key in keys}, manifests=tuple(options.manifest)
    )
    summary = run_as_told(extraction(settings), options)
    if summary is None:  # Slurm has it now
        return
    per_language = ", ".join(f"{count:,} {name}" for name, count in summary["repositories"].items())
    print(f"repositories: {per_language or 'none'}; taken: {summary['settings']['rule']}")
    if num_links := summary["numbers"].get(LINKS_OUT):
        print(f"links that lead out of their repository, not followed: {num_links:,}", file=sys.stderr)
    num_errors = sum(amount["num_files"] for amount in summary["left_out"].get("unreadable", {}).values())
    if options.max_errors is not None and num_errors > options.max_errors:
        raise ResourceError(
            f"{num_errors} files or folders could not be read, and --max-errors allows {options.max_errors}; "
            f"what was read is in {options.output}"
        )


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
