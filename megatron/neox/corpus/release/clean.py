"""From data of any kind to cleaned train and validation shards: the stages one after the other, and their folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.corpus.deduplication.exact import ExactDuplicates
from megatron.neox.corpus.deduplication.near import PRESETS as NEAR_PRESETS
from megatron.neox.corpus.deduplication.near import NearDuplicates
from megatron.neox.corpus.filters.presets import DEDUPLICATION, preset
from megatron.neox.corpus.filters.stage import build_filters, filter_stage
from megatron.neox.corpus.importing.import_dataset import ImportSettings, columns_of, importing
from megatron.neox.corpus.protection.protect import Protection, protect_stage
from megatron.neox.corpus.release.split import split_stage
from megatron.neox.corpus.stages.shards import schema
from megatron.neox.corpus.stages.stage import Stage
from megatron.neox.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """What to clean, and how.

    Attributes:
        input: a folder of shards; or files, a folder or a dataset of the hub, as `ImportSettings` takes them.
        columns: a preset of their columns.
        tokenizer: options of the filter char_token_ratio.
        protect: redact personal data and secrets, and leave HumanEval's tasks out.
    """

    input: str
    output: Path
    preset: str
    columns: str | None = None
    language: str | None = None
    tokenizer: Mapping[str, str]
    protect: bool = False
    valid_share: float = 0.005
    seed: int = 1


Step = tuple[Path, Callable[[Path], Stage]]
"""The folder that a stage writes, and the stage when the folder before it is given and whole."""


def plan(settings: CleanSettings) -> list[Step]:
    """The stages in order; the last two, train and valid, both read the folder before them.

    Raises:
        UserError: the preset needs a tokenizer, or has no use for one.
    """
    copies, folder = DEDUPLICATION[settings.preset], settings.output / "stages"
    filters: dict[str, dict[str, Any]] = preset(settings.preset)
    if settings.tokenizer and "char_token_ratio" not in filters:
        raise UserError(f"the preset {settings.preset} asks no tokenizer; leave it out")
    if "char_token_ratio" in filters:
        filters["char_token_ratio"].update(settings.tokenizer)
    build_filters(filters)  # so that a mistake is told before any work
    steps: list[Step] = []
    if not is_shards(Path(settings.input)):
        imported = folder / "imported"
        chosen = columns_of(settings.columns, {"fixed_language": settings.language})
        steps.append(
            (
                imported,
                lambda _: importing(
                    ImportSettings(inputs=(settings.input,), output=imported, columns=chosen)
                ),
            )
        )
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
    if settings.protect:
        protected, protection = folder / "protected", Protection(humaneval=True)
        steps.append((protected, lambda source: protect_stage(source, protected, protection)))
    return steps


def sides(settings: CleanSettings, source: Path) -> dict[str, Stage]:
    """The stages that divide what is clean, by the names of their folders."""
    told = {"share": settings.valid_share, "seed": settings.seed}
    return {
        "train": split_stage(source, settings.output / "train", "train", **told),
        "valid": split_stage(source, settings.output / "valid", "valid", **told),
    }


def is_shards(folder: Path) -> bool:
    """Whether a folder holds shards of ours, rather than others' parquet files."""
    from pyarrow import ArrowException, parquet

    first = min(folder.glob("*.parquet"), default=None) if folder.is_dir() else None
    try:
        return first is not None and set(parquet.read_schema(first).names) >= set(schema().names)
    except (ArrowException, OSError):
        return False
