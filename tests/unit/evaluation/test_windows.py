"""Windows: every token once, with the context that the rule says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.neox.evaluation.windows import Window, cut_windows


def test_the_drawing_of_the_module() -> None:
    assert list(cut_windows(0, 9, window=4, stride=2)) == [
        Window(0, 0, 4, 4),
        Window(0, 3 - 1, 4, 2),
        Window(0, 4, 4, 2),
        Window(0, 5, 4, 1),
    ]


def test_disjoint_windows_fill_up_the_last_with_context() -> None:
    assert list(cut_windows(3, 10, window=4, stride=4)) == [
        Window(3, 0, 4, 4),
        Window(3, 4, 4, 4),
        Window(3, 6, 4, 2),
    ]


@pytest.mark.parametrize(
    ("num_tokens", "expected"), [(0, []), (1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4])]
)
def test_short_documents(num_tokens: int, expected: list[int]) -> None:
    assert [w.num_scored for w in cut_windows(0, num_tokens, window=4, stride=4)] == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 200), st.integers(1, 40), st.data())
def test_every_token_is_scored_once_and_sees_enough(
    num_tokens: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    scored: list[int] = []
    for piece in cut_windows(0, num_tokens, window=window, stride=stride):
        assert piece.length <= window
        last = piece.start + piece.length
        targets = list(range(last - piece.num_scored + 1, last + 1))
        # Target t is predicted from fed tokens [start, t), numbered with the end-of-document token as 0.
        assert all(t - piece.start >= min(t, window - stride + 1) for t in targets)
        scored += targets
    assert scored == list(range(1, num_tokens + 1))


# PolyCoder's windows of documents of n tokens at L = 4, written out by hand from its harness: what is fed
# (0 is the end-of-document token, 1.. the document's tokens) and what of it is scored.
POLYCODER = {
    1: [],
    2: [([0, 1], [1, 2])],
    3: [([0, 1, 2], [1, 2, 3])],
    4: [([0, 1, 2, 3], [1, 2, 3, 4])],
    5: [([0, 1, 2, 3], [1, 2, 3, 4])],
    6: [([0, 1, 2, 3], [1, 2, 3, 4]), ([2, 3, 4, 5], [5, 6])],
    7: [([0, 1, 2, 3], [1, 2, 3, 4]), ([3, 4, 5, 6], [5, 6, 7])],
    8: [([0, 1, 2, 3], [1, 2, 3, 4]), ([4, 5, 6, 7], [5, 6, 7, 8])],
    9: [([0, 1, 2, 3], [1, 2, 3, 4]), ([4, 5, 6, 7], [5, 6, 7, 8])],
    11: [([0, 1, 2, 3], [1, 2, 3, 4]), ([4, 5, 6, 7], [5, 6, 7, 8]), ([7, 8, 9, 10], [9, 10, 11])],
}


@pytest.mark.parametrize("num_tokens", POLYCODER)
def test_polycoders_windows(num_tokens: int) -> None:
    found = [
        (
            list(range(piece.start, piece.start + piece.length)),
            list(range(piece.start + piece.length - piece.num_scored + 1, piece.start + piece.length + 1)),
        )
        for piece in cut_windows(0, num_tokens, window=4, stride=4, drop_single_tokens=True)
    ]
    assert found == POLYCODER[num_tokens]
