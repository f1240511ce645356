from __future__ import annotations

import random
import re
from itertools import combinations, pairwise

import numpy as np
import pytest

from megatron.neox.corpus.deduplication import shingles as module
from megatron.neox.corpus.deduplication import sketches as sketch_module
from megatron.neox.corpus.deduplication.clusters import (
    are_among,
    components,
    different,
    distinct,
    meeting,
    neighbours,
)
from megatron.neox.corpus.deduplication.minhash import band_keys, signatures
from megatron.neox.corpus.deduplication.shingles import Shingling, shingle, slices
from megatron.neox.corpus.deduplication.sketches import jaccard, may_reach, sketches

BYTES, WORDS, FIVE = Shingling("bytes", 16, 16), Shingling("words", 1, 10), Shingling("words", 5, 5)


def plain(text: bytes, shingling: Shingling) -> set[bytes | tuple[bytes, ...]]:
    """The set of shingles, as the definition says."""
    if shingling.unit == "bytes":
        units = re.sub(rb"[ \t\n\r\v\f]", b"", text)
        found = {units[start : start + shingling.size] for start in range(len(units) - shingling.size + 1)}
        return set(found) if len(units) >= shingling.minimum else set()
    words = re.findall(rb"[A-Za-z0-9_]+", text)
    if len(words) < shingling.minimum:
        return set()
    return {tuple(words[start : start + shingling.size]) for start in range(len(words) - shingling.size + 1)}


def random_texts() -> list[bytes]:
    chance = random.Random(5)
    words = [
        b"alpha",
        b"b",
        b"_c1",
        b"if",
        b"(",
        b"+ =",
        b"\n",
        b"\t\t",
        "日本é".encode(),
        b"0",
        b"x" * 40,
        b"y" * 300,
        b"z" * 8,
    ]
    texts = [b" ".join(chance.choices(words, k=chance.randrange(60))) for _ in range(60)]
    return [b"", *texts, b"short", b"", b"a" * 15, b"a" * 16, b"a" * 17, texts[3], b"\xff\xfe bad", b"end"]


@pytest.mark.parametrize(
    "shingling", [BYTES, Shingling("bytes", 8, 8), Shingling("bytes", 11, 20), WORDS, FIVE]
)
def test_shingles_are_those_of_the_definition(shingling: Shingling) -> None:
    texts = random_texts()
    found = shingle(texts, shingling)
    assert np.array_equal(np.diff(found.bounds) == 0, [not plain(text, shingling) for text in texts])
    hashes = [set(found.hashes[a:b].tolist()) for a, b in zip(found.bounds, found.bounds[1:])]
    sets = [plain(text, shingling) for text in texts]
    for (one, other), (hashed, other_hashed) in zip(combinations(sets, 2), combinations(hashes, 2)):
        assert (len(one), len(one & other)) == (len(hashed), len(hashed & other_hashed))


def test_slices_hold_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLICE_BYTES", 200)
    texts = random_texts()
    assert [text for part in slices(texts) for text in texts[part]] == texts
    whole = shingle(texts, BYTES)
    parts = [shingle(texts[part], BYTES).hashes for part in slices(texts)]
    assert len(parts) > 5
    assert np.array_equal(np.concatenate(parts), whole.hashes)


@pytest.mark.parametrize(("size", "values_at_once"), [(4096, 1 << 17), (4096, 90), (20, 1 << 17), (20, 90)])
def test_jaccard_is_exact_for_short_files_and_near_for_long_ones(
    monkeypatch: pytest.MonkeyPatch, size: int, values_at_once: int
) -> None:
    monkeypatch.setattr(sketch_module, "SKETCH_SIZE", size)
    monkeypatch.setattr(sketch_module, "_VALUES", values_at_once)
    texts = random_texts()
    made = [*sketches(shingle(texts, FIVE))]
    errors = []
    index = iter(jaccard(made, np.array([*combinations(range(len(made)), 2)]).T))
    for (one, other), (first, second) in zip(combinations(texts, 2), combinations(made, 2)):
        a, b = plain(one, FIVE), plain(other, FIVE)
        exact = len(a & b) / len(a | b) if a | b else 0.0
        errors.append(next(index) - exact)
        sizes = np.array([[len(first[0])], [len(second[0])]])
        assert may_reach(sizes, np.array([[first[1]], [second[1]]]), exact).all()
    if size == 4096:
        assert not np.any(errors)
    else:
        assert 0 < np.abs(errors).max() < 0.35


@pytest.mark.parametrize("size", [4096, 20])
def test_sketches_are_the_least_different_hashes(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(sketch_module, "SKETCH_SIZE", size)
    found = shingle(random_texts(), WORDS)
    made = sketches(found)
    assert len(made) == len(random_texts())
    for text, (start, stop) in enumerate(pairwise(found.bounds)):
        values, end = made[text]
        plainly = sorted({int(value) & 0xFFFFFFFF for value in found.hashes[start:stop]})
        assert values.tolist() == plainly[:size]
        assert end == (plainly[size - 1] if len(plainly) > size else 0xFFFFFFFF)


def test_no_pairs_have_no_index() -> None:
    assert jaccard([], np.empty((2, 0), np.int64)).shape == (0,)


def test_signatures_of_short_files_take_the_next_full_bin() -> None:
    found, num_bins = shingle([b"one two three four five six seven eight nine ten", b"a " * 12], WORDS), 64
    for text, signature in enumerate(signatures(found, num_bins).tolist()):
        bins: list[int] = [-1] * num_bins
        for value in found.hashes[found.bounds[text] : found.bounds[text + 1]].tolist():
            place, low = (value >> 32) * num_bins >> 32, value & 0xFFFFFFFF
            bins[place] = low if bins[place] < 0 else min(low, bins[place])
        for place, made in enumerate(signature):
            distance = next(steps for steps in range(num_bins) if bins[(place + steps) % num_bins] >= 0)
            assert made == (bins[(place + distance) % num_bins] + distance * 0x9E3779B1) % (1 << 32)


def test_signatures_agree_as_often_as_the_sets_do() -> None:
    chance = random.Random(1)
    lines = [b"%d\n" % chance.randrange(10**12, 10**13) for _ in range(3000)]
    one, other = b"".join(lines[:2500]), b"".join(lines[500:])
    both = shingle([one, other], BYTES)
    (exact,) = jaccard([*sketches(both)], np.array([[0], [1]]))
    first, second = signatures(both, 2048)
    assert exact == pytest.approx(2 / 3, abs=0.02)
    assert np.mean(first == second) == pytest.approx(exact, abs=0.04)  # standard error 0.0104


def test_signatures_of_short_files_have_no_empty_bin() -> None:
    one = shingle(
        [b"def f(x):\n    return x + 1\n", b"def f(x):  return x+1", b"something else, quite long"], BYTES
    )
    first, second, third = signatures(one, 256)
    assert np.array_equal(first, second)
    assert len(set(first.tolist())) > 200
    assert not (first == third).any()
    assert (band_keys(np.stack([first, third]), 32, 8)[0] != band_keys(third[None], 32, 8)[0]).all()


def test_neighbours_are_pairs_under_one_key() -> None:
    key = np.array([1, 2, 2, 2, 5, 5], np.uint64)
    file = np.array([9, 8, 3, 4, 7, 1], np.uint64)
    assert neighbours(key, file).T.tolist() == [[1, 7], [3, 4], [3, 8], [4, 8]]
    # A crowd is linked, with a number of pairs that grows with it and not with its square.
    crowd = neighbours(np.zeros(1000, np.uint64), np.arange(1000, dtype=np.uint64))
    assert crowd.shape[1] < 64 * 1000
    assert not components(crowd.astype(np.int64), 1000).any()


def test_distinct_pairs_and_what_is_among_them() -> None:
    chance = np.random.default_rng(4)
    pairs = np.sort(chance.integers(0, 40, (2, 500), np.uint64) << np.uint64(58), axis=0)
    assert np.array_equal(distinct(pairs), np.unique(pairs, axis=1))
    assert distinct(np.empty((2, 0), np.uint64)).shape == (2, 0)
    numbers, others = pairs[0], different(pairs[1, :20])
    assert np.array_equal(others, np.unique(pairs[1, :20]))
    assert np.array_equal(are_among(numbers, others), np.isin(numbers, others))


def test_files_that_meet_are_paired_and_those_of_one_content_linked() -> None:
    key = np.array([7, 8, 7, 8, 7, 9], np.uint64)
    content = np.array([1, 1, 1, 1, 2, 3], np.uint64)
    file = np.array([0, 0, 5, 5, 6, 4], np.uint64)
    pairs, links = meeting(key, content, file, np.array([True, False, True, False, True, True]))
    assert pairs.T.tolist() == [[0, 6]]
    assert links.T.tolist() == [[0, 5]]


def test_components_of_chains_and_rings() -> None:
    chance = random.Random(2)
    order = chance.sample(range(1000), 1000)
    chain = np.array([order[:499], order[1:500]])
    ring = np.array([order[500:], [*order[501:], order[500]]])
    roots = components(np.concatenate([chain, ring], axis=1), 1001)
    assert {roots[node] for node in order[:500]} == {min(order[:500])}
    assert {roots[node] for node in order[500:]} == {min(order[500:])}
    assert roots[1000] == 1000
