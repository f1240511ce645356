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

PolyCoder's own evaluation also loses every window that scores a single token, a document of one token among them:
its copy of lm-evaluation-harness takes `context[:-(scored - 1)]`, which is empty for one token, and leaves out
windows without context (lm_eval/utils.py and lm_eval/base.py there). `drop_single_tokens` does the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import ConfigError
from megatron.neox.evaluation.scoring import Scored, TokenScorer
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.tokenizers import Tokenizer


@dataclass(frozen=True)
class Window:
    """Tokens [start, start + length) of eod + document are fed; the last num_scored predictions count."""

    document: int
    start: int
    length: int
    num_scored: int


def cut_windows(
    document: int, num_tokens: int, *, window: int, stride: int, drop_single_tokens: bool = False
) -> Iterator[Window]:
    """The windows of a document of num_tokens tokens, its end-of-document token in front not counted."""
    end = min(window, num_tokens)
    pieces = [Window(document, 0, end, end)] if end else []
    while end < num_tokens:
        before, end = end, min(end + stride, num_tokens)
        pieces.append(Window(document, end - window, window, end - before))
    return (piece for piece in pieces if piece.num_scored > 1 or not drop_single_tokens)


def window_and_stride(
    settings: EvaluationConfig, model: LanguageModel, *, default: int | None = None
) -> tuple[int, int]:
    """eval_window and eval_stride, or what stands for them: `default` or the model's positions, and the window.

    Raises:
        ConfigError: the window is longer than the model's positions, or the stride than the window.
    """
    window = settings.eval_window or default or model.max_positions
    stride = settings.eval_stride or window
    if window > model.max_positions:
        raise ConfigError([f"eval_window is {window}, and the model has {model.max_positions} positions"])
    if stride > window:
        raise ConfigError(
            [f"eval_stride is {stride}, longer than the window ({window}): it would leave tokens out"]
        )
    return window, stride


def document_start(tokenizer: Tokenizer) -> int:
    """Id that stands before a document: our models begin one with what ends the last; others may have a bos."""
    return getattr(tokenizer, "start", tokenizer.eod)


def described_context(tokenizer: Tokenizer) -> str:
    """What a document's first token is conditioned on, for the results."""
    name = getattr(tokenizer, "start_name", "end-of-document token")
    return f"{name} before each file; see megatron/neox/evaluation/windows.py"


class WindowScorer:
    """Log-likelihoods of documents under a model, windows of like length scored together.

    Args:
        start: id that stands before every document.
    """

    def __init__(self, scorer: TokenScorer, *, start: int) -> None:
        self._scorer = scorer
        self._start = torch.tensor([start])

    def log_likelihoods(
        self, documents: Sequence[Tensor], *, window: int, stride: int, drop_single_tokens: bool = False
    ) -> list[float]:
        """log p in nats of each document, given as its ids int64 [num_tokens].

        Raises:
            NeoXError: the model's logits are not numbers.
        """
        whole = [torch.cat([self._start, ids.long()]) for ids in documents]
        windows = [
            piece
            for number, ids in enumerate(documents)
            for piece in cut_windows(
                number, len(ids), window=window, stride=stride, drop_single_tokens=drop_single_tokens
            )
        ]
        scores = self._scorer.score([_scored(whole[piece.document], piece) for piece in windows], "windows")
        totals = [0.0] * len(documents)
        for piece, score in zip(windows, scores):
            totals[piece.document] += score.log_likelihood
        return totals


def _scored(whole: Tensor, piece: Window) -> Scored:
    return Scored(whole[piece.start : piece.start + piece.length + 1], piece.num_scored)
