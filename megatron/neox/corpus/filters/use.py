"""Filters by what a file is for: CodeParrot's of 2022, and packages made for machines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from megatron.neox.corpus.document import Document
from megatron.neox.corpus.filters.shape import measure_lines
from megatron.neox.plugins import filters

_CONFIG_OR_TEST = re.compile(rb"unit tests|test file|configuration file")
_KEYWORDS = (b"def ", b"class ", b"for ", b"while ")
_MINIFIED_NAME = re.compile(r"[.\-]min\.(?:js|mjs|cjs|css)$", re.IGNORECASE)
_MINIFIED_LANGUAGES = frozenset({"JavaScript", "CSS"})


def drawn(document: Document, probability: float, *, name: str, seed: int) -> bool:
    """Whether a draw with a probability falls on a document: the same in every run for the same text and seed."""
    digest = sha256(f"{seed}\0{name}\0".encode() + document.data).digest()
    return int.from_bytes(digest[:8], "big") < probability * 2**64


@filters.register("config_or_test")
@dataclass(frozen=True, kw_only=True)
class ConfigOrTest:
    """Configuration or tests, by the words in it (CodeParrot: 7 of 10 such files are dropped).

    Such a file says "unit tests", "test file" or "configuration file" in its first lines, or says "config" or "test"
    more often than a share of its lines.

    Args:
        probability: of dropping such a file.
        seed: of that choice.
        num_lines: lines that are searched for the phrases.
        share: of the lines, rounded down.
    """

    probability: float = 0.7
    seed: int = 1
    num_lines: int = 5
    share: float = 0.05

    def __call__(self, document: Document) -> str | None:
        """`config_or_test`, or None."""
        if self._is_one(document.data) and drawn(
            document, self.probability, name="config_or_test", seed=self.seed
        ):
            return "config_or_test"
        return None

    def _is_one(self, data: bytes) -> bool:
        lower = data.lower()
        head = b"\n".join(lower.split(b"\n", self.num_lines)[: self.num_lines])
        limit = int(self.share * data.count(b"\n"))
        return bool(_CONFIG_OR_TEST.search(head)) or max(lower.count(b"config"), lower.count(b"test")) > limit


@filters.register("no_keywords")
@dataclass(frozen=True, kw_only=True)
class NoKeywords:
    """Python without def, class, for and while (CodeParrot: 7 of 10 such files are dropped).

    Files that are known to be in another language are kept.

    Args:
        probability: of dropping such a file.
        seed: of that choice.
    """

    probability: float = 0.7
    seed: int = 1

    def __call__(self, document: Document) -> str | None:
        """`no_keywords`, or None."""
        if document.language not in ("", "Python"):
            return None
        lower = document.data.lower()
        if any(word in lower for word in _KEYWORDS):
            return None
        return (
            "no_keywords" if drawn(document, self.probability, name="no_keywords", seed=self.seed) else None
        )


@filters.register("few_assignments")
@dataclass(frozen=True, kw_only=True)
class FewAssignments:
    """Hardly an equals sign (CodeParrot: at most four).

    Args:
        max_signs: so many and fewer are too few.
    """

    max_signs: int = 4

    def __call__(self, document: Document) -> str | None:
        """`few_assignments`, or None."""
        return "few_assignments" if document.data.count(b"=") <= self.max_signs else None


@filters.register("minified")
@dataclass(frozen=True, kw_only=True)
class Minified:
    """Minified: named so (a.min.js), or JavaScript or CSS of long lines (GitHub's linguist: over 110 on average).

    Args:
        max_mean_characters: the largest mean length of a line that is kept.
    """

    max_mean_characters: float = 110.0

    def __call__(self, document: Document) -> str | None:
        """`minified`, or None."""
        if _MINIFIED_NAME.search(document.name):
            return "minified"
        if document.language not in _MINIFIED_LANGUAGES:
            return None
        lines = measure_lines(document.data)
        return "minified" if lines.num_characters > self.max_mean_characters * lines.num_lines else None
