"""Shingles: the overlapping pieces of a text, each as a 64-bit hash, for many texts at once.

Two files are as alike as the sets of their shingles: Jaccard's index is the share of the shingles of either that are
shingles of both (Broder 1997, "On the resemblance and containment of documents").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np

_WHITE = b" \t\n\r\v\f"
_SLICE_BYTES = 1 << 18  # of texts that are hashed together: what they take fits a processor's cache
_WORD = bytes(chr(code).isalnum() or code == ord("_") for code in range(128)) + bytes(128)
_LONG_WORD = 256
_MASKS = np.array([(1 << 8 * length) - 1 for length in range(9)], np.uint64)

# Odd, so that multiplication by them loses nothing; from the fractions of sqrt(2), sqrt(3), sqrt(5).
_FIRST, _SECOND, _THIRD = (
    np.uint64(value) for value in (0x6A09E667F3BCC909, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B)
)


@dataclass(frozen=True)
class Shingling:
    """What the pieces are.

    Attributes:
        unit: `bytes` without white space; or `words`, the runs of letters, digits and underscores.
        size: units in a shingle; of bytes 8 to 16.
        minimum: files with fewer units are not compared.
    """

    unit: Literal["bytes", "words"]
    size: int
    minimum: int

    def __post_init__(self) -> None:
        assert self.unit == "words" or 8 <= self.size <= 16
        assert self.minimum >= self.size


@dataclass(frozen=True)
class Shingles:
    """Of texts numbered from 0: all their shingles, those of a text together and in its order.

    Attributes:
        hashes: [n] uint64.
        bounds: [texts + 1], where the shingles of each text begin; those that are too short have none.
    """

    hashes: np.ndarray
    bounds: np.ndarray

    @property
    def texts(self) -> np.ndarray:
        """The text of each shingle, [n]."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))


def slices(texts: Sequence[bytes]) -> Iterator[slice]:
    """Runs of texts that are worth hashing together."""
    start, num_bytes = 0, 0
    for number, text in enumerate(texts):
        num_bytes += len(text)
        if num_bytes >= _SLICE_BYTES:
            yield slice(start, number + 1)
            start, num_bytes = number + 1, 0
    if start < len(texts):
        yield slice(start, len(texts))


def shingle(texts: Sequence[bytes], shingling: Shingling) -> Shingles:
    """The shingles of a few texts in UTF-8."""
    if shingling.unit == "words":
        units, per_text = _words(texts)
    else:
        texts = [text.translate(None, _WHITE) for text in texts]
        units, per_text = _windows(b"".join(texts)), np.array([len(text) for text in texts])
    unit_bounds = np.concatenate([[0], np.cumsum(per_text)])
    hashes = _joined(units, shingling)
    # A shingle begins at every unit of a text but the last ones, from which it would reach into the next text.
    counts = np.where(per_text >= shingling.minimum, per_text - shingling.size + 1, 0)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    begins = np.repeat(counts > 0, per_text)
    last = unit_bounds[1:, None] - np.arange(1, shingling.size)
    begins[last[last >= unit_bounds[:-1, None]]] = False
    return Shingles(hashes[begins[: len(hashes)]], bounds)


def _joined(units: np.ndarray, shingling: Shingling) -> np.ndarray:
    """Hashes of the runs of units; those that would reach beyond the end are left out."""
    if shingling.unit == "bytes":
        # A unit holds eight bytes already: the first and the last eight of a shingle are all of it.
        parts, step = 2, shingling.size - 8
    else:
        parts, step = shingling.size, 1
    length = max(0, len(units) - (parts - 1) * step)
    total = units[:length] * _FIRST
    for part in range(1, parts):
        total ^= total >> np.uint64(32)
        total += units[part * step : part * step + length]
        total *= _SECOND
    return mix(total)


def mix(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit numbers evenly, in place."""
    values ^= values >> np.uint64(29)
    values *= _THIRD
    values ^= values >> np.uint64(32)
    return values


def _windows(text: bytes) -> np.ndarray:
    """The eight bytes from each byte on as a number, [bytes], of which no copy is made; zeros stand beyond the end."""
    return np.ndarray((len(text),), "<u8", text + bytes(8), strides=(1,))


def _words(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the words, and how many each text has."""
    text = b" ".join([b"", *texts, b""])
    is_word = np.frombuffer(text.translate(_WORD), np.uint8)
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    lengths = ends - starts
    windows = _windows(text)
    hashes = windows[starts]
    hashes &= _MASKS.take(lengths, mode="clip")
    hashes += lengths.view(np.uint64) * _FIRST
    mix(hashes)
    here = np.flatnonzero(lengths > 8)
    for offset in range(8, _LONG_WORD, 8):
        if not len(here):
            break
        left = lengths[here] - offset
        values = windows[starts[here] + offset] & _MASKS.take(left, mode="clip")
        values += hashes[here] * _FIRST
        hashes[here] = mix(values)
        here = here[left > 8]
    for place in here:
        digest = blake2b(text[starts[place] : ends[place]], digest_size=8).digest()
        hashes[place] = int.from_bytes(digest, "little")
    text_ends = np.cumsum([len(text) + 1 for text in texts])
    return hashes, np.diff(np.searchsorted(starts, text_ends), prepend=0)
