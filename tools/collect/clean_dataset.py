#!/usr/bin/env python3
"""Clean a dataset of source code by a published recipe, in one command: copies, filters, train and valid, the card.

The recipe is what the preset's authors did: exact copies out, filters, near copies out where they did that. Files are
divided by repository. OUTPUT gets train/, valid/, data_card.md and its funnel; stages/ in it may go afterwards."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import deepy

deepy.enter()

import argparse
from collections.abc import Mapping, Sequence

from megatron.neox.corpus.filters.by_language import language_lines
from megatron.neox.corpus.filters.presets import PRESETS
from megatron.neox.corpus.filters.tokens import add_tokenizer_options, load_encoder, told_tokenizer
from megatron.neox.corpus.importing.import_dataset import HUB
from megatron.neox.corpus.importing.import_dataset import PRESETS as COLUMNS
from megatron.neox.corpus.protection.opt_out import read_opt_out
from megatron.neox.corpus.release.card import commit_of
from megatron.neox.corpus.release.census import Census
from megatron.neox.corpus.release.clean import CARD, CleanSettings, plan, published_files, sides, write_card
from megatron.neox.corpus.release.publish import push_dataset, require_destination
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.options import add_stage_options, run_as_told
from megatron.neox.corpus.stages.outputs import refuse_replacing
from megatron.neox.corpus.stages.stage import Stage
from megatron.neox.errors import OutputError, UserError, run_door

_EXAMPLES = """examples:
  tools/collect/clean_dataset.py --input runs/shards --preset codeparrot --output clean
  tools/collect/clean_dataset.py --input hf://datasets/codeparrot/codeparrot-clean --columns codeparrot \\
    --preset codeparrot-2022 --tokenizer codeparrot/codeparrot --output clean --push me/codeparrot-clean
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, metavar="PATH",
        help="a folder of shards, .parquet or .jsonl files, or hf://datasets/USER/NAME[/FOLDER]")  # fmt: skip
    add(
        "--columns",
        choices=sorted(COLUMNS),
        help="of data that are no shards: the columns of a well-known dataset",
    )
    add("--language", metavar="NAME", help="of data that are no shards: of all rows, where no column says it")
    add("--preset", required=True, choices=list(PRESETS), help="the recipe")
    add_tokenizer_options(parser, "counts the tokens for the card, and those that codeparrot-2022 asks for")
    add(
        "--protect",
        action="store_true",
        help="redact secrets and personal data, and leave HumanEval's tasks out",
    )
    add(
        "--opt-out",
        type=Path,
        metavar="FILE",
        help="repositories to leave out: ORGANIZATION/PROJECT, ORGANIZATION/* or address a line",
    )
    add(
        "--valid-share",
        type=float,
        default=0.005,
        metavar="X",
        help="of the bytes, about (default %(default)s)",
    )
    add("--seed", type=int, default=1, help="of the choice of repositories for valid (default %(default)s)")
    add(
        "--push",
        metavar="USER/NAME",
        help="upload train, valid and the card to the hub as a dataset (HF_TOKEN)",
    )
    add_stage_options(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Run the stages, write the card, and push."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.valid_share < 1:
        parser.error("--valid-share must be at least 0 and less than 1")
    if options.executor == "slurm":
        raise UserError(
            "the stages follow each other, which jobs cannot; run tools/collect/*.py one by one with slurm"
        )
    if options.push:
        require_destination(options.push)
    tokenizer = told_tokenizer(options)
    if tokenizer:
        load_encoder(**tokenizer)  # so that a mistake is told before any work
    settings = CleanSettings(
        input=options.input,
        output=options.output,
        preset=options.preset,
        columns=options.columns,
        language=options.language,
        tokenizer=tokenizer,
        protect=options.protect,
        opted_out=read_opt_out(options.opt_out) if options.opt_out else frozenset(),
        valid_share=options.valid_share,
        seed=options.seed,
    )
    _prepare(options)
    folders = _run(settings, options)
    _say(options.output, write_card(settings, folders, commit=commit_of(Path(__file__).parent)))
    if options.push:
        _push(options.output, options.push)


def _prepare(options: argparse.Namespace) -> None:
    """Take over the output; each stage goes on, or begins anew, in its own folder."""
    if (
        options.output.is_dir()
        and any(options.output.iterdir())
        and not (options.resume or options.overwrite)
    ):
        raise OutputError(f"{options.output} is there; --resume goes on with it, --overwrite begins anew")
    if not options.input.startswith(HUB):
        refuse_replacing(options.output, [Path(options.input)])
    options.resume = not options.overwrite


def _run(settings: CleanSettings, options: argparse.Namespace) -> list[Path]:
    """Run all stages; their folders in order."""
    folders = []
    source = Path(settings.input)
    for folder, stage in plan(settings):
        _run_one(stage(source), options)
        folders.append(folder)
        source = folder
    for stage in sides(settings, source).values():
        _run_one(stage, options)
    return folders


def _run_one(stage: Stage, options: argparse.Namespace) -> None:
    summary = run_as_told(stage, argparse.Namespace(**{**vars(options), "output": stage.output}))
    if summary is not None and stage.name == "filter":
        print(language_lines(summary), end="")
    if summary is not None and stage.name == "protect":
        print(Counts.from_json(summary).number_lines(), end="")


def _say(output: Path, parts: Mapping[str, Census]) -> None:
    for name, census in parts.items():
        total = census.total
        print(f"{output / name}: {total.num_files:,} files, {total.num_bytes / 1e6:,.2f} MB, "
              f"{census.num_repositories:,} repositories")  # fmt: skip
    print(output / CARD)


def _push(output: Path, repository: str) -> None:
    files = published_files(output)
    size = sum(path.stat().st_size for path in files.values())
    print(f"pushing {len(files)} files, {size / 1e6:,.2f} MB, to the dataset {repository}", flush=True)
    print(push_dataset(files, repository))


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
