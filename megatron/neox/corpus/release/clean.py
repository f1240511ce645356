"""From data of any kind to cleaned train and validation shards: the stages one after the other, and their folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.corpus.deduplication.exact import ExactDuplicates
from megatron.neox.corpus.deduplication.near import PRESETS as NEAR_PRESETS
from megatron.neox.corpus.deduplication.near import NearDuplicates
from megatron.neox.corpus.filters.presets import DEDUPLICATION, preset
from megatron.neox.corpus.filters.stage import build_filters, filter_stage
from megatron.neox.corpus.filters.tokens import load_encoder
from megatron.neox.corpus.importing.import_dataset import ImportSettings, columns_of, importing
from megatron.neox.corpus.protection.protect import Protection, protect_stage
from megatron.neox.corpus.protection.redaction import DEFAULT_KINDS
from megatron.neox.corpus.release.card import DataCard, read_summaries
from megatron.neox.corpus.release.census import Census, take_census
from megatron.neox.corpus.release.split import Side, split_stage
from megatron.neox.corpus.stages.shards import find_shards, schema
from megatron.neox.corpus.stages.stage import SUMMARY, Stage
from megatron.neox.errors import UserError
from megatron.neox.reports.funnel import draw_funnel, steps_of


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """What to clean, and how.

    Attributes:
        input: a folder of shards; or files, a folder or a dataset of the hub, as `ImportSettings` takes them.
        columns: a preset of their columns.
        tokenizer: of the filter char_token_ratio, where the preset has it, and of the card's tokens.
        protect: redact personal data and secrets, and leave HumanEval's tasks out.
        opted_out: repositories that are left out, as `read_opt_out` gives them.
    """

    input: str
    output: Path
    preset: str
    columns: str | None = None
    language: str | None = None
    tokenizer: Mapping[str, str]
    protect: bool = False
    opted_out: frozenset[str] = frozenset()
    valid_share: float = 0.005
    seed: int = 1


CARD, FUNNEL = "data_card.md", "funnel.png"
SIDES: tuple[Side, ...] = ("train", "valid")

Step = tuple[Path, Callable[[Path], Stage]]
"""The folder that a stage writes, and the stage when the folder before it is given and whole."""


def plan(settings: CleanSettings) -> list[Step]:
    """The stages in order; the last two, train and valid, both read the folder before them.

    Raises:
        UserError: the preset needs a tokenizer, or the input's columns are known.
    """
    copies, folder = DEDUPLICATION[settings.preset], settings.output / "stages"
    filters: dict[str, dict[str, Any]] = preset(settings.preset)
    if "char_token_ratio" in filters:
        filters["char_token_ratio"].update(settings.tokenizer)
    build_filters(filters)  # so that a mistake is told before any work
    steps: list[Step] = []
    if not is_shards(Path(settings.input)):
        imported = folder / "imported"
        chosen = columns_of(settings.columns, {"fixed_language": settings.language})
        told = ImportSettings(inputs=(settings.input,), output=imported, columns=chosen)
        steps.append((imported, lambda _: importing(told)))
    elif settings.columns or settings.language:
        raise UserError(
            f"{settings.input} holds shards, whose columns are known; leave out --columns and --language"
        )
    unique, filtered = folder / "unique", folder / "filtered"
    steps.append((unique, lambda source: ExactDuplicates(source, unique, copies.key).stage()))
    steps.append((filtered, lambda source: filter_stage(source, filtered, filters)))
    if copies.near is not None:
        distinct, near = folder / "distinct", NEAR_PRESETS[copies.near]
        steps.append((distinct, lambda source: NearDuplicates(source, distinct, near).stage()))
    if settings.protect or settings.opted_out:
        kinds = DEFAULT_KINDS if settings.protect else ()
        protection = Protection(kinds=kinds, humaneval=settings.protect, opted_out=settings.opted_out)
        protected = folder / "protected"
        steps.append((protected, lambda source: protect_stage(source, protected, protection)))
    return steps


def sides(settings: CleanSettings, source: Path) -> dict[str, Stage]:
    """The stages that divide what is clean, by the names of their folders."""
    told = {"share": settings.valid_share, "seed": settings.seed}
    return {side: split_stage(source, settings.output / side, side, **told) for side in SIDES}


def write_card(settings: CleanSettings, folders: Sequence[Path], *, commit: str) -> dict[str, Census]:
    """Write data_card.md and its picture, and return what each side holds.

    Args:
        folders: what the stages of `plan` wrote, in order.
        commit: of this software.
    """
    output, given = settings.output, Path(settings.input)
    if is_shards(given) and (given / SUMMARY).is_file():
        folders = [given, *folders]  # what made the shards belongs to the story
    summaries = read_summaries(folders)
    draw_funnel(steps_of(summaries), output / FUNNEL)
    encoder = load_encoder(**settings.tokenizer) if settings.tokenizer else None
    parts = {name: take_census(find_shards(output / name), encoder) for name in SIDES}
    card = DataCard(
        title=f"Source code, cleaned as {settings.preset}",
        parts=parts,
        stages=[*summaries, *read_summaries([output / name for name in parts])],
        commit=commit,
        tokenizer=Path(next(iter(settings.tokenizer.values()))).name if encoder else "",
        funnel=FUNNEL,
        data_files={"train": "train/*.parquet", "validation": "valid/*.parquet"},
    )
    card.write(output / CARD)
    return parts


def published_files(output: Path) -> dict[str, Path]:
    """What belongs to the dataset on a hub, by its name there."""
    shards = {f"{name}/{shard.name}": shard for name in SIDES for shard in find_shards(output / name)}
    return {"README.md": output / CARD, FUNNEL: output / FUNNEL, **shards}


def is_shards(folder: Path) -> bool:
    """Whether a folder holds shards of ours, rather than others' parquet files."""
    from pyarrow import ArrowException, parquet

    first = min(folder.glob("*.parquet"), default=None) if folder.is_dir() else None
    try:
        return first is not None and set(parquet.read_schema(first).names) >= set(schema().names)
    except (ArrowException, OSError):
        return False
