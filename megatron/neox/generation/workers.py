"""The copies of the model, each of which takes a share of the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """This process's place among the data-parallel copies of the model.

    Args:
        group: process group of the copies; needed where there are several.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    def share(self, items: Sequence[T]) -> list[T]:
        """This copy's items: every size-th of all."""
        return list(items[self.rank :: self.size])

    def join(self, values: Sequence[T]) -> list[T]:
        """Every copy's results, in the order in which `share` dealt out the items; called by all copies."""
        if self.size == 1:
            return list(values)
        parts: list[list[T]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(parts, list(values), group=self.group)
        longest = max(map(len, parts))
        return [part[place] for place in range(longest) for part in parts if place < len(part)]

    def rounds(self, items: Sequence[T], batch_size: int) -> Iterator[Sequence[T]]:
        """The items in pieces of which every copy's share is at most batch_size."""
        for start in range(0, len(items), batch_size * self.size):
            yield items[start : start + batch_size * self.size]
