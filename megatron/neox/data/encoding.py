"""Texts to ids in this process or in several, in the order of the texts, with bounded memory."""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from megatron.neox.config import TokenizerConfig
from megatron.neox.corpus.stages.processes import submit, worker_pool
from megatron.neox.errors import DependencyError, ResourceError
from megatron.neox.tokenizers import Tokenizer, build_tokenizer
from megatron.neox.tokenizers.engines import EngineName, batch_encoder, check_agreement

Chunk = tuple[list[str], int]  # texts, and the bytes they come from

_PROOF_CHARACTERS = 50_000  # some 20 ms of the plain tokenizer, in each process


@dataclass(frozen=True)
class Encoding:
    """How texts become ids: sent to each worker, which reads the vocabulary itself."""

    tokenizer: TokenizerConfig
    append_eod: bool
    fix_text: bool
    engine: EngineName = "auto"


@dataclass(frozen=True)
class Encoded:
    """Ids of a chunk's documents end to end, int32 `[n]`, and the length of each.

    `num_replaced` counts end-of-document ids inside documents: bytes that the vocabulary lacks.
    """

    ids: np.ndarray
    sizes: np.ndarray
    num_bytes: int
    num_replaced: int


class Encoder:
    """Turns chunks into ids. A fast engine proves on the first texts that it gives the tokenizer's.

    Raises:
        DependencyError: texts are to be fixed, and ftfy is not installed; or gigatoken is asked for, and is not.
        VocabularyError: gigatoken is asked for, and cannot run the tokenizer.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.tokenizer: Tokenizer = build_tokenizer(encoding.tokenizer)
        self.engine = batch_encoder(self.tokenizer, encoding.engine)
        self._eod = self.tokenizer.eod
        self._append_eod = encoding.append_eod
        self._fix_text = _load_ftfy() if encoding.fix_text else None
        self._is_proven = False

    def encode(self, chunk: Chunk) -> Encoded:
        """Ids of a chunk.

        Raises:
            NeoXError: the fast engine gives other ids than the tokenizer.
        """
        texts, num_bytes = chunk
        if self._fix_text is not None:
            texts = [self._fix_text(text) for text in texts]
        if not self._is_proven:
            check_agreement(self.engine, _first_characters(texts, _PROOF_CHARACTERS))
            self._is_proven = True
        ids, sizes = self.engine.encode(texts)
        num_replaced = int(np.count_nonzero(ids == self._eod))
        if self._append_eod:
            ids = np.insert(ids, np.cumsum(sizes), self._eod)
            sizes = sizes + 1
        return Encoded(ids, sizes, num_bytes, num_replaced)


def _first_characters(texts: Sequence[str], limit: int) -> list[str]:
    """The first texts, as many as have so many characters together; the last of them is cut."""
    taken: list[str] = []
    for text in texts:
        taken.append(text[:limit])
        limit -= len(text)
        if limit <= 0:
            break
    return taken


def _load_ftfy() -> Any:
    try:
        return importlib.import_module("ftfy").fix_text
    except ImportError as error:
        raise DependencyError(
            "--ftfy needs the package ftfy, which is not installed: pip install ftfy"
        ) from error


def encode_all(
    chunks: Iterator[Chunk], encoding: Encoding, *, workers: int
) -> Generator[Encoded, None, None]:
    """Encode chunks in order; at most two a worker, and two more, are in memory.

    Raises:
        ResourceError: a worker died, as it does when memory runs out.
    """
    encoder = Encoder(encoding)
    if workers <= 1:
        with one_thread():
            yield from map(encoder.encode, chunks)
        return
    with one_thread(), worker_pool(workers, _start_worker, (encoding,)) as pool:
        yield from _in_order(pool, chunks, workers=workers)


def _in_order(pool: ProcessPoolExecutor, chunks: Iterator[Chunk], *, workers: int) -> Iterator[Encoded]:
    waiting: deque[Future[Encoded]] = deque()
    try:
        for chunk in chunks:
            waiting.append(submit(pool, _encode, chunk))
            if len(waiting) >= 2 * workers + 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceError(
            f"one of {workers} workers died, most likely for want of memory; give fewer --workers"
        ) from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Each process encodes with one thread: --workers says how many cores are used."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


_encoder: Encoder | None = None  # of this worker process


def _start_worker(encoding: Encoding) -> None:
    global _encoder
    _encoder = Encoder(encoding)


def _encode(chunk: Chunk) -> Encoded:
    assert _encoder is not None
    return _encoder.encode(chunk)
