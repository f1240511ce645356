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
from collections.abc import Sequence

from megatron.neox.corpus.filters.presets import PRESETS
from megatron.neox.corpus.importing.import_dataset import HUB
from megatron.neox.corpus.importing.import_dataset import PRESETS as COLUMNS
from megatron.neox.corpus.release.card import DataCard, commit_of, read_summaries
from megatron.neox.corpus.release.census import take_census
from megatron.neox.corpus.release.clean import CleanSettings, plan, sides
from megatron.neox.corpus.release.publish import push_dataset, require_token
from megatron.neox.corpus.stages.options import add_stage_options, run_as_told
from megatron.neox.corpus.stages.shards import find_shards
from megatron.neox.corpus.stages.stage import Stage, refuse_replacing
from megatron.neox.errors import OutputError, UserError, run_door
from megatron.neox.reports.funnel import draw_funnel, steps_of

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
    add("--tokenizer", metavar="FOLDER_OR_NAME", help="for codeparrot-2022: one with a tokenizer.json")
    add("--vocab-file", metavar="FILE", help="for codeparrot-2022: vocab.json, instead of --tokenizer")
    add("--merge-file", metavar="FILE", help="and merges.txt")
    add(
        "--protect",
        action="store_true",
        help="redact secrets and personal data, and leave HumanEval's tasks out",
    )
    add(
        "--valid-share",
        type=float,
        default=0.005,
        metavar="X",
        help="of the bytes, about (default %(default)s)",
    )
    add("--seed", type=int, default=1, help="of the choice of repositories for valid")
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
        require_token(options.push)
    tokenizer = {name: getattr(options, name) for name in ("tokenizer", "vocab_file", "merge_file")}
    settings = CleanSettings(
        input=options.input,
        output=options.output,
        preset=options.preset,
        columns=options.columns,
        language=options.language,
        tokenizer={name: value for name, value in tokenizer.items() if value is not None},
        protect=options.protect,
        valid_share=options.valid_share,
        seed=options.seed,
    )
    _prepare(options)
    _write_card(settings, _run(settings, options))
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
    run_as_told(stage, argparse.Namespace(**{**vars(options), "output": stage.output}))


def _write_card(settings: CleanSettings, folders: Sequence[Path]) -> None:
    output, summaries = settings.output, read_summaries(folders)
    draw_funnel(steps_of(summaries), output / "funnel.png")
    parts = {name: take_census(find_shards(output / name)) for name in ("train", "valid")}
    card = DataCard(
        title=f"Source code, cleaned as {settings.preset}",
        parts=parts,
        stages=[*summaries, *read_summaries([output / name for name in parts])],
        commit=commit_of(Path(__file__).parent),
        funnel="funnel.png",
        data_files={"train": "train/*.parquet", "validation": "valid/*.parquet"},
    )
    card.write(output / "data_card.md")
    for name, census in parts.items():
        amounts = census.languages.values()
        size = sum(amount.num_bytes for amount in amounts) / 1e6
        print(f"{output / name}: {sum(amount.num_files for amount in amounts):,} files, {size:,.2f} MB, "
              f"{census.num_repositories:,} repositories")  # fmt: skip
    print(output / "data_card.md")


def _push(output: Path, repository: str) -> None:
    files = {"README.md": output / "data_card.md", "funnel.png": output / "funnel.png"}
    for name in ("train", "valid"):
        files |= {f"{name}/{shard.name}": shard for shard in find_shards(output / name)}
    size = sum(path.stat().st_size for path in files.values())
    print(f"pushing {len(files)} files, {size / 1e6:,.2f} MB, to the dataset {repository}", flush=True)
    print(push_dataset(files, repository))


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
