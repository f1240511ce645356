"""What crosses the sandbox's wall comes out as it went in, and nothing else comes out."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, namedtuple
from typing import Any

import pytest

from megatron.neox.evaluation.sandbox.programs.plain_data import NotPlainError, dumps, loads


class Number(int):
    pass


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1, 2**63 - 1, 2**63, -(2**70), 1 << 10_000, 1.5, float("inf"), 1e-320, 2 + 3j, "", "\0\ud800é",
        b"\xff\x00", [], [1, [2, ()]], (1,), {1, "a"}, frozenset({(1, 2)}), {}, {(1, 2): [3], None: {"i": "c"}},
        ["i", "ff"], ["d"], {"a": {"b": {1.0}}},
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_plain_values_return_with_their_exact_types(value: Any) -> None:
    line = dumps(value)
    assert line.isascii()
    assert b"\n" not in line
    assert repr(loads(line)) == repr(value)


def test_nan_and_negative_zero_survive() -> None:
    assert repr(loads(dumps([float("nan"), -0.0]))) == "[nan, -0.0]"


def test_dicts_of_the_library_cross_as_dicts() -> None:
    values: list[Any] = [Counter("aab"), defaultdict(int, {"a": 2, "b": 1}), OrderedDict(a=2, b=1)]
    assert [loads(dumps(value)) for value in values] == [{"a": 2, "b": 1}] * 3
    assert {type(loads(dumps(value))) for value in values} == {dict}


@pytest.mark.parametrize(
    "value",
    [Number(1), [Number(1)], {Number(1): 1}, namedtuple("P", "x")(1), object(), range(3), iter([]), int, bytearray(1)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_other_types_and_subclasses_are_refused(value: Any) -> None:
    with pytest.raises(NotPlainError):
        dumps(value)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b'{"a":1}', b"[]", b"[1]", b'["z"]', b'["i"]', b'["i",5]', b'["i","xyz"]', b'["b","0"]', b'["c",1]',
        b'["d",1]', b'["s",["l"]]', b'["d",["l"],1]', b"[" * 100_000, b'["l",' * 70 + b"1" + b"]" * 70, b"\xff",
        b"1" * 5000, b"1 2",
    ],
    ids=lambda line: repr(line)[:20],
)  # fmt: skip
def test_malformed_lines_are_refused(line: bytes) -> None:
    with pytest.raises(NotPlainError):
        loads(line)
