"""Filters by sizes and shares, in characters; measured on bytes, which is ten times faster and gives the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from megatron.neox.corpus.document import Document
from megatron.neox.plugins import filters

_ASCII = bytes(range(128))
_ALPHABETIC = bytes(byte for byte in _ASCII if chr(byte).isalpha())
_ALPHANUMERIC = bytes(byte for byte in _ASCII if chr(byte).isalnum())
_CONTINUATION = bytes(range(0x80, 0xC0))
# What ends a line for str.splitlines and not for bytes.splitlines.
_OTHER_LINE_ENDS = re.compile(rb"[\v\f\x1c-\x1e]")


class Lines(NamedTuple):
    """The lines of a text, measured in characters without their ends."""

    num_lines: int
    num_characters: int
    longest: int


@lru_cache(maxsize=1)  # several filters ask about one document after another
def measure_lines(data: bytes) -> Lines:
    """What `str.splitlines` of the text would show."""
    if data.isascii() and not _OTHER_LINE_ENDS.search(data):
        lengths = list(map(len, data.splitlines()))
    else:
        lengths = list(map(len, data.decode("utf-8", "replace").splitlines()))
    return Lines(len(lengths), sum(lengths), max(lengths, default=0))


def num_characters(data: bytes) -> int:
    """Characters of a text in UTF-8."""
    return len(data) if data.isascii() else len(data.translate(None, _CONTINUATION))


def share_of(data: bytes, *, digits: bool = True) -> float:
    """Share of a text's characters that are letters, or letters and digits, in any script; 0 of an empty text."""
    counted = _ALPHANUMERIC if digits else _ALPHABETIC
    num_counted = len(data) - len(data.translate(None, counted))
    if not data.isascii():
        others = data.translate(None, _ASCII).decode("utf-8", "replace")
        num_counted += sum(map(str.isalnum if digits else str.isalpha, others))
    return num_counted / max(num_characters(data), 1)


@filters.register("too_big")
@dataclass(frozen=True, kw_only=True)
class TooBig:
    """More bytes than a file that people write has (Code-LMs: over 1 MiB).

    Args:
        max_bytes: the largest size that is kept.
    """

    max_bytes: int = 1 << 20

    def __call__(self, document: Document) -> str | None:
        """`too_big`, or None."""
        return "too_big" if document.num_bytes > self.max_bytes else None


@filters.register("long_line")
@dataclass(frozen=True, kw_only=True)
class LongLine:
    """One line that is very long: minified code, embedded data (CodeParrot: over 1000 characters).

    Args:
        max_characters: the longest line that is kept.
    """

    max_characters: int = 1000

    def __call__(self, document: Document) -> str | None:
        """`long_line`, or None."""
        # Files shorter than the limit, many of them, need no look at their lines.
        if document.num_bytes <= self.max_characters:
            return None
        return "long_line" if measure_lines(document.data).longest > self.max_characters else None


@filters.register("long_lines")
@dataclass(frozen=True, kw_only=True)
class LongLines:
    """Lines that are long on average (CodeParrot: over 100 characters, line ends not counted).

    Args:
        max_mean_characters: the largest mean that is kept.
    """

    max_mean_characters: float = 100.0

    def __call__(self, document: Document) -> str | None:
        """`long_lines`, or None."""
        lines = measure_lines(document.data)
        return "long_lines" if lines.num_characters > self.max_mean_characters * lines.num_lines else None


@filters.register("not_alphanumeric")
@dataclass(frozen=True, kw_only=True)
class NotAlphanumeric:
    """Few letters and digits: tables, drawings (CodeParrot: under a quarter of the characters).

    Args:
        min_share: the smallest share of letters and digits that is kept.
    """

    min_share: float = 0.25

    def __call__(self, document: Document) -> str | None:
        """`not_alphanumeric`, or None."""
        return "not_alphanumeric" if share_of(document.data) < self.min_share else None


@filters.register("not_alphabetic")
@dataclass(frozen=True, kw_only=True)
class NotAlphabetic:
    """Few letters: data written as code (BigCode: under a quarter of the characters, for some endings).

    Args:
        min_share: the smallest share of letters that is kept.
    """

    min_share: float = 0.25

    def __call__(self, document: Document) -> str | None:
        """`not_alphabetic`, or None."""
        return "not_alphabetic" if share_of(document.data, digits=False) < self.min_share else None
