"""Extraction: from repositories on the disk to shards, or to PolyCoder's tree, of source files with their limits.

A task takes some repositories, in the order of language and name; it needs the memory of a row group.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from megatron.neox.corpus.extraction.checkouts import CLONES, Checkout, find_checkouts, fingerprint_of
from megatron.neox.corpus.extraction.flat_tree import FlatTreeTask
from megatron.neox.corpus.extraction.resumption import check_listings, keep_listings
from megatron.neox.corpus.extraction.source_files import REPOSITORIES, ExtractSettings, extract_checkout
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import new_shard, shard_name
from megatron.neox.corpus.stages.stage import Phase, Stage
from megatron.neox.errors import InputError, OutputError

_MOST_IN_A_TASK = 64
_FEWEST_TASKS = 16
_MOST_LOOKED_AT = 256  # tasks whose files are counted
_BY_NAME = frozenset({"other_extension", "other_language", "version_control", "symlink", "special_file"})


def extraction(settings: ExtractSettings) -> Stage:
    """The stage.

    Raises:
        InputError: as `find_checkouts`.
        OutputError: the output lies inside the input.
    """
    if settings.output.resolve().is_relative_to(settings.input.resolve()):
        raise OutputError(
            f"the output {settings.output} lies inside the input {settings.input}, and would be extracted the next "
            "time; give another --output"
        )
    checkouts = find_checkouts(settings.input, repository=settings.repository, manifests=settings.manifests)
    size = settings.repositories_per_task or min(_MOST_IN_A_TASK, -(-len(checkouts) // _FEWEST_TASKS))
    groups = _grouped(checkouts, size)
    told = {
        "repositories": fingerprint_of(checkouts),
        "rule": _rule(settings),
        **{key: getattr(settings, key) for key in ("format", "encoding", "max_bytes", "min_tokens")},
        "repositories_per_task": size,
        "tasks": len(groups),
    }
    weight = partial(_num_files, groups)
    if settings.format == "tree":
        files = FlatTreeTask(settings, groups)
        phases = [Phase("extract", len(groups), files, weight), Phase("index", 1, files.index)]
    else:
        phases = [Phase("extract", len(groups), ShardTask(settings, groups), weight)]
    inputs = [settings.input, *settings.manifests]
    return Stage(
        "extract",
        settings.output,
        told,
        phases,
        describe=partial(_describe, settings),
        inputs=inputs,
        check_inputs=partial(check_listings, settings.output, groups),
        prepare=_load if len(groups) > 1 else None,
    )


def _grouped(checkouts: Sequence[Checkout], size: int) -> tuple[tuple[Checkout, ...], ...]:
    """What each task takes: some of one language, for each process has to make the lexers that it needs."""
    groups: list[tuple[Checkout, ...]] = []
    for _, those in groupby(checkouts, key=lambda checkout: checkout.language):
        of_language = tuple(those)
        groups += [of_language[start : start + size] for start in range(0, len(of_language), size)]
    return tuple(groups)


def _num_files(groups: Sequence[Sequence[Checkout]], number: int) -> int:
    """About how many files a task takes; of many tasks each is too short to be worth a look at its folders."""
    if len(groups) > _MOST_LOOKED_AT:
        return 0
    return sum(len(files) for checkout in groups[number] for *_, files in os.walk(checkout.folder))


def _load() -> None:
    """Import what every task needs, while the folders are looked at."""
    import pyarrow  # noqa: F401


def _rule(settings: ExtractSettings) -> str:
    """Which files of a repository are taken, in words."""
    if settings.all_languages:
        return "all languages of the table"
    return "the language of most bytes" if settings.repository else "the language that the tree names"


@dataclass(frozen=True)
class ShardTask:
    """Extracts some of the repositories to the shard of the task's number."""

    settings: ExtractSettings
    groups: tuple[tuple[Checkout, ...], ...]

    def __call__(self, number: int) -> Counts:
        """Write the shard; return what became of the files."""
        counts, listings = Counts(), list[str]()
        with new_shard(self.settings.output / shard_name(number)) as shard:
            for checkout in self.groups[number]:
                for file in extract_checkout(checkout, self.settings, counts, listings):
                    shard.write(file.row)
        keep_listings(self.settings.output, number, listings)
        return counts


def _describe(settings: ExtractSettings, counts: Counts) -> Mapping[str, Any]:
    """Repositories that gave at least one file, by language.

    Raises:
        InputError: there was no file but by names of other kinds. Repositories that a crawl found may be such.
    """
    reasons = {reason: amount.num_files for reason, amount in counts.reasons().items()}
    is_crawled = (settings.input / CLONES).is_file()
    if not (counts.total_kept().num_files or reasons.keys() - _BY_NAME or is_crawled):
        said = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items()) or "there is no file"
        raise InputError(
            f"{settings.input} holds no source file of its repositories' languages ({said}); --all-languages takes "
            "those of all"
        )
    return {"repositories": {name.removeprefix(REPOSITORIES): number for name, number in
                             sorted(counts.numbers.items()) if name.startswith(REPOSITORIES)}}  # fmt: skip
