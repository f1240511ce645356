"""Documents to texts, without those that cannot be read as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from megatron.neox.corpus.document import Document, Tally


def usable_texts(
    documents: Iterable[Document], tally: Tally, *, keep_byte_order_mark: bool = False
) -> Iterator[str]:
    """Texts that hold something; `tally` counts them and their bytes, and what is left out."""
    for document in documents:
        text = usable_text(document, tally, keep_byte_order_mark=keep_byte_order_mark)
        if text is not None:
            tally.take(document)
            yield text


def usable_text(document: Document, tally: Tally, *, keep_byte_order_mark: bool = False) -> str | None:
    """Text of a document; None, and counted, where it is binary (a file with a NUL byte), not_utf8 or empty."""
    if document.is_file and b"\0" in document.data:
        tally.skip("binary")
        return None
    try:
        text = document.text(keep_byte_order_mark=keep_byte_order_mark)
    except UnicodeDecodeError:
        tally.skip("not_utf8")
        return None
    if not text:
        tally.skip("empty")
        return None
    return text
