#!/usr/bin/env python3
"""Write the card of a corpus: languages, repositories, files, bytes, tokens, licences, what was left out, settings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

import argparse
from collections.abc import Sequence

from megatron.neox.corpus.filters.tokens import add_tokenizer_options, load_encoder, told_tokenizer
from megatron.neox.corpus.release.card import DataCard, commit_of, read_summaries
from megatron.neox.corpus.release.census import take_census
from megatron.neox.corpus.stages.shards import find_shards
from megatron.neox.errors import OutputError, UserError, run_door
from megatron.neox.reports.funnel import draw_funnel, steps_of

_EXAMPLES = """examples:
  tools/collect/data_card.py --input runs/filtered --stages runs/shards runs/filtered --output data_card.md
  tools/collect/data_card.py --input clean/train clean/valid --tokenizer my/tokenizer --output card.md
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", nargs="+", default=[], metavar="PATH",
        help="folders of shards, and prefixes of tokenized datasets (PREFIX.bin, PREFIX.idx)")  # fmt: skip
    add(
        "--stages", nargs="+", type=Path, default=[], metavar="FOLDER", help="outputs of the stages, in order"
    )
    add(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the card; FILE with .png is the funnel's picture",
    )
    add("--overwrite", action="store_true", help="replace the card, which somebody may have added to")
    add("--title", default="Source code", metavar="TEXT")
    add_tokenizer_options(parser, "counts tokens by language")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read the shards and the summaries, and write the card and the funnel."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not (options.input or options.stages):
        parser.error("nothing to describe: give --input, --stages or both")
    if options.output.suffix.lower() == ".png":
        parser.error(
            f"--output {options.output}: the card is Markdown, such as {options.output.with_suffix('.md')}"
        )
    if options.output.exists() and not options.overwrite:
        raise OutputError(
            f"{options.output} exists already; --overwrite replaces it, or give another --output"
        )
    told = told_tokenizer(options)
    encoder = load_encoder(**told) if told else None
    folders = [Path(path) for path in options.input if Path(path).is_dir()]
    if len({folder.name for folder in folders}) < len(folders):
        raise UserError("two folders of --input have one name; the card could not tell them apart")
    summaries = read_summaries(options.stages)
    funnel = options.output.with_suffix(".png")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    if summaries:
        draw_funnel(steps_of(summaries), funnel)
    card = DataCard(
        title=options.title,
        parts={folder.name: take_census(find_shards(folder), encoder) for folder in folders},
        stages=summaries,
        datasets={path: _dataset(path) for path in options.input if not Path(path).is_dir()},
        commit=commit_of(Path(__file__).parent),
        tokenizer=Path(options.tokenizer or options.vocab_file).name if encoder else "",
        funnel=funnel.name if summaries else None,
    )
    card.write(options.output)
    print(options.output)


def _dataset(path: str) -> tuple[int, int]:
    from megatron.neox.data.indexed import IndexedDataset

    dataset = IndexedDataset(path.removesuffix(".bin").removesuffix(".idx"))
    return dataset.num_tokens, len(dataset)


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
