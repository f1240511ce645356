"""Samples from documents as they are read: tokenized in the training process, shuffled in blocks, resumed by place.

The documents, each ended by the end-of-document id, form one endless line of ids: behind the last document the first
follows again. Sample k of the line is the `s + 1` ids from position `k * s` on, as in `order.py`. Blocks of
`stream_shuffle_buffer` samples are shuffled by the seed and their number. So the order is a function of the source,
the seed and the two lengths, whatever the number of ranks; and a block's place in the source is enough to read on.

Every rank reads the whole line and takes its own samples out of it (see `batches.py`): what is read and encoded grows
with the ranks, and the order does not change with them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from megatron.neox.data.batches import check_ids, split_samples
from megatron.neox.data.index_cache import settings_digest
from megatron.neox.data.stream_source import IDS_COLUMN, Content, Source
from megatron.neox.errors import DatasetError
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

Place = dict[str, Any]
"""Where a sample begins: `{"epoch": e, "document": place of its document, "offset": ids into it}`."""

BEGINNING: Place = {"epoch": 0, "document": None, "offset": 0}


@dataclass(frozen=True)
class Streaming:
    """How documents become samples.

    Args:
        tokenizer: None where documents are ids already.
    """

    source: Source
    tokenizer: Tokenizer | None
    eod: int
    seq_length: int
    seed: int
    shuffle_buffer: int

    @property
    def identity(self) -> str:
        """Hash of all that the order depends on."""
        return settings_digest(
            {
                "stream": self.source.identity,
                "tokenizer": self.tokenizer and self.tokenizer.fingerprint(),
                "seq_length": self.seq_length,
                "seed": self.seed,
                "shuffle_buffer": self.shuffle_buffer,
            }
        )


@dataclass(frozen=True)
class _Document:
    place: Any
    epoch: int
    ids: np.ndarray


class SampleLine:
    """The samples of the line in its own order, from a place on."""

    def __init__(self, streaming: Streaming, place: Place) -> None:
        self._streaming = streaming
        self._documents = _encoded(streaming, place)
        self._ready: deque[_Document] = deque()
        self._offset = int(place["offset"])
        self._num_ready = 0

    @property
    def place(self) -> Place:
        """Where the next sample begins."""
        if not self._ready:
            self._pull()
        first = self._ready[0]
        return {"epoch": first.epoch, "document": first.place, "offset": self._offset}

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        """The next sample, int64 `[s + 1]`."""
        length = self._streaming.seq_length
        while self._num_ready - self._offset < length + 1:
            self._pull()
        sample = np.empty(length + 1, np.int64)
        filled, offset = 0, self._offset
        for document in self._ready:
            part = document.ids[offset : offset + length + 1 - filled]
            sample[filled : filled + len(part)] = part
            filled, offset = filled + len(part), 0
            if filled > length:
                break
        self._offset += length
        while self._offset >= len(self._ready[0].ids):
            passed = len(self._ready.popleft().ids)
            self._offset -= passed
            self._num_ready -= passed
        return sample

    def _pull(self) -> None:
        document = next(self._documents)
        self._ready.append(document)
        self._num_ready += len(document.ids)


def _encoded(streaming: Streaming, place: Place) -> Iterator[_Document]:
    """Documents as ids, over and over."""
    epoch, start = int(place["epoch"]), place["document"]
    while True:
        num_documents = 0
        for document, content in streaming.source.read(start):
            num_documents += 1
            yield _Document(document, epoch, _ids(streaming, document, content))
        if not num_documents and start is None:
            raise DatasetError("the stream holds no documents; give files that have some")
        epoch, start = epoch + 1, None


def _ids(streaming: Streaming, place: Any, content: Content) -> np.ndarray:
    """Ids of a document with its end.

    Raises:
        DatasetError: it is to hold ids, and holds something else.
    """
    if isinstance(content, str) and streaming.tokenizer is not None:
        content = streaming.tokenizer.encode(content)
    elif not _holds_ids(content):
        raise DatasetError(
            f"{streaming.source.name(place)} holds no list of token ids in {IDS_COLUMN}; make the shards anew, or give "
            "the column of the texts: stream_column"
        )
    if content and content[-1] == streaming.eod:
        return np.array(content, np.int64)
    return np.array([*content, streaming.eod], np.int64)


def _holds_ids(content: Content) -> bool:
    try:
        ids = np.array(content)
    except ValueError:  # lists of several lengths
        return False
    if not ids.size:
        return isinstance(content, list)
    return ids.ndim == 1 and ids.dtype.kind in "iu" and int(ids.min()) >= 0 and int(ids.max()) < 1 << 31


@dataclass
class _Block:
    number: int
    place: Place
    samples: list[np.ndarray] = field(repr=False)


class StreamBatches:
    """Iterator of `(token_ids [b, s], labels [b, s])` of one data rank, like `Batches`, without an end.

    Args:
        first_sample: sample of the order at which step begins, the same on every rank.
        state: what `state` gave, of a run that had come so far; None begins at the first document.
        masked_eod, vocab_size: see `Batches`.
    """

    def __init__(
        self,
        streaming: Streaming,
        *,
        micro_batch_size: int,
        data_rank: int,
        data_size: int,
        first_sample: int = 0,
        state: dict[str, Any] | None = None,
        masked_eod: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.streaming = streaming
        self.micro_batch_size = micro_batch_size
        self.stride = micro_batch_size * data_size
        self.next_sample = first_sample + data_rank * micro_batch_size
        self.masked_eod, self.vocab_size = masked_eod, vocab_size
        # Samples are counted from where the order began: another source or buffer begins a new one.
        self._origin, number, place = _start(streaming, state, first_sample)
        self._line = SampleLine(streaming, place)
        self._block = _Block(number - 1, place, [])
        self._places = {number: place}

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = range(self.next_sample, self.next_sample + self.micro_batch_size)
        self.next_sample += self.stride
        samples = np.stack([self._sample(number - self._origin) for number in numbers])
        check_ids(samples, numbers, vocab_size=self.vocab_size)
        return split_samples(samples, masked_eod=self.masked_eod)

    def state(self, num_samples: int) -> dict[str, Any]:
        """What a run needs that goes on behind `num_samples` samples of the order."""
        number = (num_samples - self._origin) // self.streaming.shuffle_buffer
        while number not in self._places:  # every sample was read, but of none of the block that begins here
            self._advance()
        return {
            "identity": self.streaming.identity,
            "origin": self._origin,
            "block": number,
            "place": self._places[number],
        }

    def _sample(self, number: int) -> np.ndarray:
        block, place = divmod(number, self.streaming.shuffle_buffer)
        while self._block.number < block:
            self._advance()
        return self._block.samples[place]

    def _advance(self) -> None:
        """Read the next block and shuffle it."""
        number, size = self._block.number + 1, self.streaming.shuffle_buffer
        samples = [next(self._line) for _ in range(size)]
        order = np.random.default_rng([self.streaming.seed, number]).permutation(size)
        self._block = _Block(number, self._places[number], [samples[index] for index in order])
        self._places = {number: self._places[number], number + 1: self._line.place}


def _start(streaming: Streaming, state: dict[str, Any] | None, first_sample: int) -> tuple[int, int, Place]:
    """Sample that the order is counted from, number of the block to begin with, and its place."""
    if state is None:
        if first_sample:
            log.warning(
                "the checkpoint does not say how far the stream was read: it begins at its first document"
            )
        return first_sample, 0, BEGINNING
    if state["identity"] != streaming.identity:
        log.warning(
            "the stream is not the one that the checkpoint read (its files, the tokenizer, seed, seq_length or "
            "stream_shuffle_buffer changed): it begins at its first document"
        )
        return first_sample, 0, BEGINNING
    return int(state["origin"]), int(state["block"]), state["place"]
