"""Extraction: from repositories on the disk to shards, or to PolyCoder's tree, of source files with their limits.

A task takes some repositories, in the order of language and name; it needs the memory of a row group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron.neox.corpus.extraction.checkouts import Checkout, find_checkouts, fingerprint_of
from megatron.neox.corpus.extraction.flat_tree import FlatTreeTask
from megatron.neox.corpus.extraction.source_files import REPOSITORIES, ExtractSettings, extract_checkout
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import new_shard, shard_name
from megatron.neox.corpus.stages.stage import Phase, Stage

_MOST_IN_A_TASK = 64
_FEWEST_TASKS = 16


def extraction(settings: ExtractSettings) -> Stage:
    """The stage.

    Raises:
        InputError: as `find_checkouts`.
    """
    checkouts = find_checkouts(settings.input, repository=settings.repository, manifests=settings.manifests)
    size = settings.repositories_per_task or min(_MOST_IN_A_TASK, -(-len(checkouts) // _FEWEST_TASKS))
    groups = tuple(tuple(checkouts[start : start + size]) for start in range(0, len(checkouts), size))
    told = {
        "repositories": fingerprint_of(checkouts),
        "rule": _rule(settings),
        **{key: getattr(settings, key) for key in ("format", "encoding", "max_bytes", "min_tokens")},
        "repositories_per_task": size,
    }
    if settings.format == "tree":
        files = FlatTreeTask(settings, groups)
        phases = [Phase("extract", len(groups), files), Phase("index", 1, files.index)]
    else:
        phases = [Phase("extract", len(groups), ShardTask(settings, groups))]
    inputs = [settings.input, *settings.manifests]
    return Stage("extract", settings.output, told, phases, _describe, inputs)


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
        counts = Counts()
        with new_shard(self.settings.output / shard_name(number)) as shard:
            for checkout in self.groups[number]:
                for file in extract_checkout(checkout, self.settings, counts):
                    shard.write(file.row)
        return counts


def _describe(counts: Counts) -> Mapping[str, Any]:
    """Repositories that gave at least one file, by language."""
    return {"repositories": {name.removeprefix(REPOSITORIES): number for name, number in
                             sorted(counts.numbers.items()) if name.startswith(REPOSITORIES)}}  # fmt: skip
