"""Filters by sizes and shares, measured on bytes (ten times faster than on characters)."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.neox.corpus.document import Document
from megatron.neox.plugins import filters

_ALPHANUMERIC = bytes(byte for byte in range(128) if chr(byte).isalnum())
_HIGH = bytes(range(128, 256))


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
    """One line that is very long: minified code, embedded data (CodeParrot: over 1000).

    Args:
        max_bytes: the longest line that is kept.
    """

    max_bytes: int = 1000

    def __call__(self, document: Document) -> str | None:
        """`long_line`, or None."""
        # Files shorter than the limit, most of them, need no look at their lines.
        if document.num_bytes <= self.max_bytes:
            return None
        return "long_line" if max(map(len, document.data.splitlines())) > self.max_bytes else None


@filters.register("long_lines")
@dataclass(frozen=True, kw_only=True)
class LongLines:
    """Lines that are long on average (CodeParrot: over 100).

    Args:
        max_mean_bytes: the largest mean that is kept.
    """

    max_mean_bytes: float = 100.0

    def __call__(self, document: Document) -> str | None:
        """`long_lines`, or None."""
        num_lines = len(document.data.splitlines())
        return "long_lines" if document.num_bytes > self.max_mean_bytes * (num_lines or 1) else None


@filters.register("not_alphanumeric")
@dataclass(frozen=True, kw_only=True)
class NotAlphanumeric:
    """Few letters and digits: tables, drawings (CodeParrot: under a quarter).

    Bytes beyond ASCII count as letters.

    Args:
        min_share: the smallest share of letters and digits that is kept.
    """

    min_share: float = 0.25

    def __call__(self, document: Document) -> str | None:
        """`not_alphanumeric`, or None."""
        num_other = len(document.data.translate(None, _ALPHANUMERIC + _HIGH))
        share = 1 - num_other / max(document.num_bytes, 1)
        return "not_alphanumeric" if share < self.min_share else None
