"""Log-probabilities of the last tokens of sequences, sequences of like length together in a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
        for row, sequence in enumerate(batch):
            token_ids[row, : len(sequence.ids) - 1] = sequence.ids[:-1]
        logits = self._model.logits(token_ids.to(self._model.device))[..., : self._vocab_size]
        sums, best = zip(*(_row(sequence, logits[row], greedy) for row, sequence in enumerate(batch)))
        log_likelihoods: list[float] = torch.stack(sums).tolist()
        if not all(map(math.isfinite, log_likelihoods)):
            raise NeoXError(
                "the model's logits are not finite numbers: its weights are damaged, or they overflow "
                "the precision (try --set precision=fp32)"
            )
        return [Score(value, bool(flag)) for value, flag in zip(log_likelihoods, torch.stack(best).tolist())]


def _row(sequence: Scored, logits: Tensor, greedy: bool) -> tuple[Tensor, Tensor]:
    """log p of the tokens that count, fp64, and whether all are the likeliest; logits [s, V]."""
    last, count = len(sequence.ids) - 1, sequence.num_scored
    targets = sequence.ids[last + 1 - count :].to(logits.device)
    scored = logits[last - count : last].float()  # [count, V]
    losses = functional.cross_entropy(scored, targets, reduction="none")
    is_best = (scored.argmax(-1) == targets).all() if greedy else torch.tensor(False)
    return -losses.double().sum(), is_best
