"""Log-probabilities of the last tokens of sequences, sequences of like length together in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from megatron.neox.errors import NeoXError
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.progress import Progress

# Logits computed at once (numbers, 4 bytes each), whatever the batch size says.
_LOGITS_AT_ONCE = 2**27


class Scored(NamedTuple):
    """Ids int64 [n + 1], of which the first n are fed and the last num_scored are predicted and count."""

    ids: Tensor
    num_scored: int


class Score(NamedTuple):
    """log p in nats of the tokens that count, and whether each was the likeliest at its place (asked for only)."""

    log_likelihood: float
    is_greedy: bool


@runtime_checkable
class WithoutLogits(Protocol):
    """A model that has a quicker way to log-probabilities; `engine.inference.InferenceModel` on a CPU is one."""

    @property
    def computes_log_probabilities(self) -> bool:
        """Whether it has, on this device and in this number format."""
        ...

    def log_probabilities(
        self, token_ids: Tensor, targets: Tensor, *, vocab_size: int | None = None, greedy: bool = False
    ) -> tuple[Tensor, Tensor]:
        """log p of the targets [b, s] behind ids [b, s], and whether each is the likeliest (if greedy).

        Args:
            targets: -1 where nothing is asked; the answers there are 0 and True.
            vocab_size: ids from here on have no share in the probability.
        """
        ...


class TokenScorer:
    """Scores sequences under a model.

    Args:
        padding: id that fills up shorter rows, behind all that counts.
        vocab_size: ids from here on only pad the vocabulary and have no share in the probability; none
            gives every row of logits its share.
    """

    def __init__(
        self, model: LanguageModel, *, padding: int, vocab_size: int | None, batch_size: int
    ) -> None:
        self._model = model
        self._padding = padding
        self._vocab_size = vocab_size
        self._batch_size = batch_size

    @torch.inference_mode()
    def score(self, sequences: Sequence[Scored], what: str, *, greedy: bool = False) -> list[Score]:
        """The score of each sequence.

        Args:
            what: what the sequences are, in the plural, for the lines about progress.
            greedy: also tell whether greedy decoding would have said the same.

        Raises:
            NeoXError: the model's logits are not numbers.
        """
        order = sorted(range(len(sequences)), key=lambda number: -len(sequences[number].ids))
        scores = [Score(0.0, True)] * len(sequences)
        progress = Progress(len(sequences), what)
        for numbers in self._batches(sequences, order):
            batch = [sequences[number] for number in numbers]
            for number, score in zip(numbers, self._score(batch, greedy)):
                scores[number] = score
            progress.add(len(batch), sum(sequence.num_scored for sequence in batch))
        return scores

    def _batches(self, sequences: Sequence[Scored], order: Sequence[int]) -> Iterator[Sequence[int]]:
        start = 0
        while start < len(order):
            row = len(sequences[order[start]].ids) * (self._vocab_size or 2**16)
            end = start + max(1, min(self._batch_size, _LOGITS_AT_ONCE // row))
            yield order[start:end]
            start = end

    def _score(self, batch: Sequence[Scored], greedy: bool) -> list[Score]:
        token_ids = torch.full((len(batch), len(batch[0].ids) - 1), self._padding)
        targets = torch.full_like(token_ids, -1)
        for row, (ids, num_scored) in enumerate(batch):
            last = len(ids) - 1
            token_ids[row, :last] = ids[:-1]
            targets[row, last - num_scored : last] = ids[last + 1 - num_scored :]
        log_p, is_best = self._log_probabilities(token_ids, targets, greedy)
        log_likelihoods: list[float] = log_p.double().sum(1).tolist()
        if not all(map(math.isfinite, log_likelihoods)):
            raise NeoXError(
                "the model's logits are not finite numbers: its weights are damaged, or they overflow "
                "the precision (try --set precision=fp32)"
            )
        return [Score(value, flag) for value, flag in zip(log_likelihoods, is_best.all(1).tolist())]

    def _log_probabilities(self, token_ids: Tensor, targets: Tensor, greedy: bool) -> tuple[Tensor, Tensor]:
        """log p of the targets [b, s], and whether each is the likeliest; 0 and True where a target is -1."""
        model = self._model
        if isinstance(model, WithoutLogits) and model.computes_log_probabilities:
            return model.log_probabilities(token_ids, targets, vocab_size=self._vocab_size, greedy=greedy)
        logits = model.logits(token_ids.to(model.device))[..., : self._vocab_size]
        return by_logits(logits, targets, greedy=greedy)


def by_logits(logits: Tensor, targets: Tensor, *, greedy: bool) -> tuple[Tensor, Tensor]:
    """The plain way to `WithoutLogits.log_probabilities`: from logits [b, s, V], a row of the batch at a time.

    Args:
        targets: [b, s] on the CPU; those of a row that are not -1 are neighbours.
    """
    log_p = torch.zeros(targets.shape, device=logits.device)
    is_best = torch.ones(targets.shape, device=logits.device, dtype=torch.bool)
    for row, wanted in enumerate(targets >= 0):
        first = int(wanted.int().argmax())
        counted = slice(first, first + int(wanted.sum()))
        ids = targets[row, counted].to(logits.device)
        scored = logits[row, counted].float()  # [count, V]
        log_p[row, counted] = -functional.cross_entropy(scored, ids, reduction="none")
        is_best[row, counted] = (scored.argmax(-1) == ids) if greedy else False
    return log_p, is_best
