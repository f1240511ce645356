"""A document on its way to tokens, and the count of what became of all of them."""

from __future__ import annotations

import codecs
from collections import Counter
from dataclasses import dataclass, field

MOST_BYTES = 1 << 30
"""Of a file that is read as one document, since it is held whole: a guard of the memory, and no filter."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document: a source file, or the text of one record.

    `name` is the path below its folder, or `file:line`; bytes of a name that are not UTF-8 are escaped as
    `os.fsdecode` does. `data` is the file as it lies on disk, or the record's text in UTF-8. What else is known of
    it stands in the rest: of a row of a shard all, elsewhere nothing.
    """

    name: str
    data: bytes
    is_file: bool
    language: str = ""
    licenses: tuple[str, ...] = ()
    stars: int | None = None
    vendored: bool = False

    @property
    def num_bytes(self) -> int:
        """Size of the source in bytes."""
        return len(self.data)

    def text(self, *, keep_byte_order_mark: bool = False) -> str:
        """The text; of a file as text mode reads it: CRLF and CR become LF. A record's text is kept as it is.

        Raises:
            UnicodeDecodeError: the data is not UTF-8.
        """
        text = self.data.decode()
        if not self.is_file:
            return text
        if not keep_byte_order_mark:
            text = text.removeprefix(codecs.BOM_UTF8.decode())
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


@dataclass
class Tally:
    """How many documents were taken, and how many were left out for which reason."""

    num_documents: int = 0
    num_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def take(self, document: Document) -> None:
        """Count a document that goes on."""
        self.num_documents += 1
        self.num_bytes += document.num_bytes

    def skip(self, reason: str) -> None:
        """Count one that does not."""
        self.skipped[reason] += 1

    def reasons(self) -> str:
        """The reasons in words, most frequent first: `3 binary, 1 empty`."""
        return ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common()) or "none"
