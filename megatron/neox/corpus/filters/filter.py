"""What every filter does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Protocol, runtime_checkable

from megatron.neox.corpus.document import Document


class Filter(Protocol):
    """A reason to leave documents out."""

    def __call__(self, document: Document) -> str | None:
        """The reason, or None to keep the document."""
        ...


@runtime_checkable
class BatchFilter(Filter, Protocol):
    """A filter that many documents at once cost less."""

    def of_batch(self, documents: Sequence[Document]) -> list[str | None]:
        """What the filter says of each."""
        ...


def reasons_of(documents: Sequence[Document], filters: Iterable[Filter]) -> list[str | None]:
    """`first_reason` of each document."""
    reasons: list[str | None] = [None] * len(documents)
    for is_batch, group in groupby(filters, key=lambda check: isinstance(check, BatchFilter)):
        checks = list(group)
        for stretch in [[check] for check in checks] if is_batch else [checks]:
            left = [number for number, reason in enumerate(reasons) if reason is None]
            found = _said([documents[number] for number in left], stretch)
            for number, reason in zip(left, found):
                reasons[number] = reason
    return reasons


def _said(documents: Sequence[Document], checks: Sequence[Filter]) -> list[str | None]:
    if isinstance(checks[0], BatchFilter):
        return checks[0].of_batch(documents)
    return [first_reason(document, checks) for document in documents]


def first_reason(document: Document, filters: Iterable[Filter]) -> str | None:
    """The reason of the first filter that has one."""
    return next((reason for check in filters if (reason := check(document)) is not None), None)
