"""Filters by mark-up: comments in code, XML and HTML in place of code (BigCode's).

Every pattern here matches wherever it is tried, or fails at its first characters, so that each byte is looked at a
bounded number of times whatever the input.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from megatron.neox.corpus.document import Document
from megatron.neox.corpus.filters.shape import num_characters
from megatron.neox.plugins import filters

_LINE_COMMENT = rb"//[^\n]*+"
_BLOCK_COMMENT = rb"/\*.*?(?:\*/|\Z)"
_HASH_COMMENT = rb"\#[^\n]*+"
_DOUBLE = rb'"(?:[^"\\\n]|\\.)*+"?'
_SINGLE = rb"'(?:[^'\\\n]|\\.)*+'?"
_BACKTICK = rb"`(?:[^`\\]|\\.)*+`?"
# A character or a lifetime: Rust and Scala have quotes that nothing closes.
_CHARACTER = rb"'(?:\\.[^'\n]{0,10}'|[^'\\\n]{1,4}')?"
_RAW_BACKTICK = rb"`[^`]*+`?"
_PYTHON_LONG = rb'"""(?:[^"\\]|\\.|"(?!""))*+(?:""")?|' + rb"'''(?:[^'\\]|\\.|'(?!''))*+(?:''')?"


def _scanner(comments: bytes, others: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?P<comment>" + comments + rb")|" + others, re.DOTALL)


_C = _scanner(_LINE_COMMENT + rb"|" + _BLOCK_COMMENT, _DOUBLE + rb"|" + _SINGLE)
_SCRIPT = _scanner(_LINE_COMMENT + rb"|" + _BLOCK_COMMENT, rb"|".join((_DOUBLE, _SINGLE, _BACKTICK)))
_RUSTY = _scanner(_LINE_COMMENT + rb"|" + _BLOCK_COMMENT, _DOUBLE + rb"|" + _CHARACTER)
_GO = _scanner(_LINE_COMMENT + rb"|" + _BLOCK_COMMENT, rb"|".join((_DOUBLE, _SINGLE, _RAW_BACKTICK)))
_PHP = _scanner(rb"|".join((_LINE_COMMENT, _BLOCK_COMMENT, _HASH_COMMENT)), _DOUBLE + rb"|" + _SINGLE)
_HASHED = _scanner(_HASH_COMMENT, _DOUBLE + rb"|" + _SINGLE)
# A docstring is a string that begins a line; one behind `=` or `(` on a line of its own is taken for one, too.
_PYTHON = re.compile(
    rb"(?P<comment>" + _HASH_COMMENT + rb"|(?:(?<=\n)|\A)[ \t]*+[rRuU]?(?:" + _PYTHON_LONG + rb"))|"
    + rb"|".join((_PYTHON_LONG, _DOUBLE, _SINGLE)),
    re.DOTALL,
)  # fmt: skip
_SCANNERS = {
    **dict.fromkeys(("C", "C#", "C++", "Java", "CUDA", "Objective-C", "Dart", "CSS"), _C),
    **dict.fromkeys(("JavaScript", "TypeScript"), _SCRIPT),
    **dict.fromkeys(("Rust", "Scala", "Kotlin", "Swift"), _RUSTY),
    **dict.fromkeys(("Ruby", "Shell", "R", "Perl", "Julia"), _HASHED),
    "Go": _GO, "PHP": _PHP, "Python": _PYTHON,
}  # fmt: skip

_XML_HEAD = re.compile(rb"<\?xml version=")
_HIDDEN = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*+>|\Z)|<[^>]*+>?", re.DOTALL | re.IGNORECASE
)


def comment_share(data: bytes, language: str) -> float | None:
    """Share of a text that is comments (of Python also docstrings), in bytes; None where the language is not known."""
    scanner = _SCANNERS.get(language)
    if scanner is None:
        return None
    num_bytes = sum(len(match["comment"] or b"") for match in scanner.finditer(data))
    return num_bytes / max(len(data), 1)


@filters.register("comments")
@dataclass(frozen=True, kw_only=True)
class Comments:
    """Hardly a comment, or hardly anything else (BigCode: 0.01 to 0.8 of the text).

    Files in a language whose comments are not known are kept.

    Args:
        min_share: the share must be larger.
        max_share: the share must be smaller.
    """

    min_share: float = 0.01
    max_share: float = 0.8

    def __call__(self, document: Document) -> str | None:
        """`few_comments`, `mostly_comments`, or None."""
        share = comment_share(document.data, document.language)
        if share is None:
            return None
        if share <= self.min_share:
            return "few_comments"
        return "mostly_comments" if share >= self.max_share else None


@filters.register("xml")
@dataclass(frozen=True, kw_only=True)
class XML:
    """An XML declaration near the start, whatever the file's name says (BigCode: in 100 characters).

    Args:
        num_characters: that are searched.
    """

    num_characters: int = 100

    def __call__(self, document: Document) -> str | None:
        """`xml`, or None."""
        head = document.data[: 4 * self.num_characters].decode("utf-8", "replace")[: self.num_characters]
        return "xml" if _XML_HEAD.search(head.encode()) else None


@filters.register("html")
@dataclass(frozen=True, kw_only=True)
class HTML:
    """HTML that shows little text (BigCode: 0.2 of the file and 100 characters, or less).

    Files in other languages are kept.

    Args:
        min_share: of the file's characters that must be shown.
        min_characters: that must be shown.
    """

    min_share: float = 0.2
    min_characters: int = 100

    def __call__(self, document: Document) -> str | None:
        """`html`, or None."""
        if document.language != "HTML":
            return None
        shown = len(html.unescape(_HIDDEN.sub(b"", document.data).decode("utf-8", "replace")))
        enough = shown > self.min_characters and shown > self.min_share * num_characters(document.data)
        return None if enough else "html"
