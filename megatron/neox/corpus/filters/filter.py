"""What every filter does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from megatron.neox.corpus.document import Document


class Filter(Protocol):
    """A reason to leave documents out."""

    def __call__(self, document: Document) -> str | None:
        """The reason, or None to keep the document."""
        ...


def first_reason(document: Document, filters: Iterable[Filter]) -> str | None:
    """The reason of the first filter that has one."""
    return next((reason for check in filters if (reason := check(document)) is not None), None)
