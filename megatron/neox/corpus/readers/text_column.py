"""Columns of text in their many Arrow types: strings and bytes, long ones, views, and dictionaries of each."""

from __future__ import annotations

from typing import Any


def holds_text(kind: Any) -> bool:
    """Whether a column of this type holds texts."""
    from pyarrow import types

    checks = (types.is_string, types.is_large_string, types.is_string_view)
    return any(check(_plain_type(kind)) for check in checks)


def holds_bytes(kind: Any) -> bool:
    """Whether a column of this type holds bytes that may be texts."""
    from pyarrow import types

    checks = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(check(_plain_type(kind)) for check in checks)


def plain(cells: Any) -> Any:
    """The cells of such a column without dictionary and views; what is no UTF-8 stays as it is."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if types.is_string_view(cells.type):
        return cells.cast(pa.binary_view()).cast(pa.large_binary()).view(pa.large_string())
    return cells.cast(pa.large_binary()) if types.is_binary_view(cells.type) else cells


def _plain_type(kind: Any) -> Any:
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind
