"""What a folder of shards holds: repositories, bytes, files, tokens by language, and files by licence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.neox.corpus.stages.counts import Amount
from megatron.neox.corpus.stages.shards import read_batches

if TYPE_CHECKING:
    from megatron.neox.tokenizers.engines import BatchEncoder

_NO_LICENSE = "not known"


@dataclass
class Census:
    """Amounts; a file with several licences counts under each."""

    repositories: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    languages: dict[str, Amount] = field(default_factory=lambda: defaultdict(Amount))
    licenses: dict[str, Amount] = field(default_factory=lambda: defaultdict(Amount))
    tokens: Counter[str] = field(default_factory=Counter)
    """By language; empty where none were counted."""

    @property
    def total(self) -> Amount:
        """Over all languages."""
        total = Amount()
        for amount in self.languages.values():
            total.add(amount.num_files, amount.num_bytes)
        return total

    @property
    def num_repositories(self) -> int:
        """Of any language; one with several counts once."""
        return len(set().union(*self.repositories.values()))


def take_census(shards: Sequence[Path], encoder: BatchEncoder | None = None) -> Census:
    """Read the small columns of shards, and with an encoder the texts too; a bounded number of rows at once.

    Raises:
        InputError: a shard cannot be read.
    """
    census = Census()
    columns = ["repository", "language", "size", "licenses", *(["content"] if encoder else [])]
    for shard in shards:
        for batch in read_batches(shard, columns):
            rows = zip(*(batch.column(name).to_pylist() for name in columns[:4]))
            for repository, language, size, licenses in rows:
                census.repositories[language].add(repository)
                census.languages[language].add(1, size)
                for name in licenses or [_NO_LICENSE]:
                    census.licenses[name].add(1, size)
            if encoder is not None:
                sizes = encoder.encode(batch.column("content").to_pylist())[1]
                for language, size in zip(batch.column("language").to_pylist(), sizes.tolist()):
                    census.tokens[language] += size
    return census
