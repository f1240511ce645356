"""Long documents cut into windows that fit the model, every token scored once.

A window feeds L tokens, each of which predicts the next. The first begins with the end-of-document token,
which so is what a document's first token is conditioned on. Every next window moves on by `stride` tokens and
scores what no window before it did; the last one ends with the document and reaches back as far as L allows::

    document         |t1 t2 t3 t4 t5 t6 t7 t8 t9|        L = 4, stride = 2
    window 1    [eod  t1 t2 t3]                          scores t1 t2 t3 t4
    window 2          [t2 t3 t4 t5]                      scores t5 t6
    window 3                [t4 t5 t6 t7]                scores t7 t8
    window 4                   [t5 t6 t7 t8]             scores t9

So a token beyond the first window has at least L - stride + 1 tokens of context. With stride = L the windows
are disjoint, as lm-evaluation-harness' rolling log-likelihood and PolyCoder's evaluation have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from megatron.neox.errors import NeoXError
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.progress import Progress

# Logits computed at once (numbers, 4 bytes each), whatever the batch size says.
_LOGITS_AT_ONCE = 2**27


@dataclass(frozen=True)
class Window:
    """Tokens [start, start + length) of eod + document are fed; the last num_scored predictions count."""

    document: int
    start: int
    length: int
    num_scored: int


def cut_windows(document: int, num_tokens: int, *, window: int, stride: int) -> Iterator[Window]:
    """The windows of a document of num_tokens tokens, its end-of-document token in front not counted."""
    end = min(window, num_tokens)
    if end:
        yield Window(document, 0, end, end)
    while end < num_tokens:
        before, end = end, min(end + stride, num_tokens)
        yield Window(document, end - window, window, end - before)


class WindowScorer:
    """Log-likelihoods of documents under a model, windows of like length scored together.

    Args:
        eod: id that stands before every document, and fills up shorter rows.
        vocab_size: ids from here on only pad the vocabulary and have no share in the probability.
    """

    def __init__(self, model: LanguageModel, *, eod: int, vocab_size: int, batch_size: int) -> None:
        self._model = model
        self._eod = eod
        self._vocab_size = vocab_size
        self._batch_size = batch_size

    @torch.inference_mode()
    def log_likelihoods(self, documents: Sequence[Tensor], *, window: int, stride: int) -> list[float]:
        """log p in nats of each document, given as its ids int64 [num_tokens].

        Raises:
            NeoXError: the model's logits are not numbers.
        """
        windows = [
            piece
            for number, ids in enumerate(documents)
            for piece in cut_windows(number, len(ids), window=window, stride=stride)
        ]
        windows.sort(key=lambda piece: -piece.length)
        totals = torch.zeros(len(documents), dtype=torch.float64)
        progress = Progress(len(windows), "windows")
        for batch in self._batches(windows):
            owners = torch.tensor([piece.document for piece in batch])
            totals.index_add_(0, owners, self._score(documents, batch))
            progress.add(len(batch), sum(piece.num_scored for piece in batch))
        if not totals.isfinite().all():
            raise NeoXError(
                "the model's logits are not finite numbers: its weights are damaged, or they overflow "
                "the precision (try --set precision=fp32)"
            )
        return totals.tolist()

    def _batches(self, windows: Sequence[Window]) -> Iterator[Sequence[Window]]:
        start = 0
        while start < len(windows):
            fitting = _LOGITS_AT_ONCE // (windows[start].length * self._vocab_size)
            end = start + max(1, min(self._batch_size, fitting))
            yield windows[start:end]
            start = end

    def _score(self, documents: Sequence[Tensor], batch: Sequence[Window]) -> Tensor:
        """log p of the scored tokens of each window, fp64 [windows]."""
        token_ids = torch.full((len(batch), batch[0].length), self._eod)
        for row, piece in enumerate(batch):
            first = max(piece.start, 1)  # position 0 is the end-of-document token
            token_ids[row, first - piece.start : piece.length] = documents[piece.document][
                first - 1 : piece.start + piece.length - 1
            ]
        logits = self._model.logits(token_ids.to(self._model.device))[..., : self._vocab_size]
        return torch.stack(
            [self._score_row(documents, piece, row) for piece, row in zip(batch, logits)]
        ).cpu()

    def _score_row(self, documents: Sequence[Tensor], piece: Window, logits: Tensor) -> Tensor:
        last = piece.start + piece.length  # number of the last target, counting the tokens from 1
        targets = documents[piece.document][last - piece.num_scored : last].to(logits.device)
        scored = logits[piece.length - piece.num_scored : piece.length].float()
        return -functional.cross_entropy(scored, targets, reduction="none").double().sum()
