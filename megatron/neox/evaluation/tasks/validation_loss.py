"""CodeParrot's validation loss: files joined by BOS, cut into sequences of 1,024 tokens.

::

    file 1 BOS file 2 BOS file 3 ...      tokens
    |------------|------------|---..      sequences of seq_length, the rest dropped

Of each sequence every token but the first is predicted, from those before it in the sequence; files run across the
ends of sequences. As in `scripts/validation_loss.py` of huggingface/transformers' codeparrot, the text is taken in
pieces of at least 1,024 * seq_length * 3.6 characters, and the rest that is dropped is that of each piece.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megatron.neox.config import EvaluationConfig
from megatron.neox.corpus.document import Tally
from megatron.neox.errors import ConfigError, InputError
from megatron.neox.evaluation.column_texts import hub_texts, local_texts
from megatron.neox.evaluation.intervals import NUM_RESAMPLES, mean_interval
from megatron.neox.evaluation.scoring import Scored, TokenScorer
from megatron.neox.evaluation.task import TaskResult
from megatron.neox.evaluation.tasks.perplexity import perplexity
from megatron.neox.evaluation.windows import document_start
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.plugins import tasks
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

_SEQUENCES_OF_A_PIECE = 1024
_CHARACTERS_OF_A_TOKEN = 3.6


@tasks.register("validation_loss")
class ValidationLoss:
    """CodeParrot's loss and exp(loss) over sequences of BOS-joined files of eval_data_path, or streamed from the hub.

    Args:
        settings: the data (a folder, .parquet, .jsonl, .jsonl.gz) and the batch size.
        seq_length: tokens in a sequence, seq_length - 1 of which are predicted.
        max_sequences: measure the first so many only; 0 is all.
        column: where records hold their text.
        dataset: name of a dataset on the Hugging Face hub, read as it arrives, instead of eval_data_path; a token is
            taken from HF_TOKEN.
        split: its part.
        codeparrot_batch_size: also give the mean as CodeParrot takes it, over batches of so many sequences, of which a
            last one that is not full weighs as much as the others; 0 leaves it out.

    Raises:
        ConfigError: a number that cannot be, or neither data nor a dataset, or both.
        InputError: there is nothing to read, or not enough for one sequence.
    """

    version = 1

    def __init__(
        self,
        settings: EvaluationConfig,
        *,
        seq_length: int = 1024,
        max_sequences: int = 0,
        column: str = "content",
        dataset: str | None = None,
        split: str = "train",
        codeparrot_batch_size: int = 0,
    ) -> None:
        if seq_length < 2 or max_sequences < 0 or codeparrot_batch_size < 0:
            raise ConfigError(
                [
                    "validation_loss: seq_length is 2 or more, max_sequences and codeparrot_batch_size 0 or more"
                ]
            )
        if (dataset is None) == (settings.eval_data_path is None):
            told = (
                "is missing: give it, or the option dataset"
                if dataset is None
                else "and dataset are both given"
            )
            raise ConfigError([f"validation_loss: eval_data_path {told}, the name of a dataset on the hub"])
        self._settings = settings
        self._seq_length = seq_length
        self._max_sequences = max_sequences
        self._batch_size = codeparrot_batch_size
        self._column = column
        self._source = dataset or str(settings.eval_data_path)
        self._is_streamed = dataset is not None
        self._split = split
        if dataset is None:  # what is wrong with it is said before weights are read
            for _ in self._texts(Tally()):
                break

    def check_positions(self, max_positions: int) -> None:
        """Refuse a model whose positions a sequence does not fit into.

        Raises:
            ConfigError: it has too few.
        """
        if self._seq_length > max_positions:
            raise ConfigError(
                [
                    f"validation_loss: seq_length is {self._seq_length}, and the model has {max_positions} "
                    'positions; give the option: --set \'eval_task_options={"validation_loss": {"seq_length": '
                    f"{max_positions}}}}}'"
                ]
            )

    def run(self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers) -> TaskResult:
        """Score all sequences, shared among the copies of the model.

        Raises:
            ConfigError: a sequence is longer than the model's positions.
            InputError: there is not enough text for one sequence, or a record is damaged.
            NeoXError: the model's logits are not numbers.
        """
        self.check_positions(model.max_positions)
        tally = Tally()
        sequences = self._sequences(tokenizer, tally)
        scorer = TokenScorer(
            model,
            padding=tokenizer.eod,
            vocab_size=tokenizer.vocab_size,
            batch_size=self._settings.eval_batch_size,
        )
        scored = [Scored(ids, self._seq_length - 1) for ids in workers.share(sequences)]
        losses = workers.join(
            [-score.log_likelihood / (self._seq_length - 1) for score in scorer.score(scored, "sequences")]
        )
        rows = [{"sequence": number, "loss": loss} for number, loss in enumerate(losses)]
        return TaskResult(self._metrics(losses, tally), self._description(tokenizer, tally), rows)

    def _texts(self, tally: Tally) -> Iterator[str]:
        if self._is_streamed:
            return hub_texts(self._source, self._split, self._column, tally)
        return local_texts(Path(self._source), self._column, tally)

    def _sequences(self, tokenizer: Tokenizer, tally: Tally) -> list[Tensor]:
        """Ids int64 [seq_length] of each sequence."""
        sequences: list[Tensor] = []
        joint = document_start(tokenizer)
        for texts in self._pieces(self._texts(tally)):
            ids = [token for text in tokenizer.encode_batch(texts) for token in [*text, joint]]
            whole = len(ids) // self._seq_length
            sequences += torch.tensor(ids[: whole * self._seq_length]).view(whole, self._seq_length)
            if 0 < self._max_sequences <= len(sequences):
                return sequences[: self._max_sequences]
        if not sequences:
            raise InputError(
                f"{self._source} holds {tally.num_documents} texts of {tally.num_bytes} bytes together (left out: "
                f"{tally.reasons()}), less than one sequence of {self._seq_length} tokens; give more, or a smaller "
                "seq_length"
            )
        return sequences

    def _pieces(self, texts: Iterator[str]) -> Iterator[list[str]]:
        """Texts that together have at least so many characters as make 1,024 sequences."""
        wanted = _SEQUENCES_OF_A_PIECE * self._seq_length * _CHARACTERS_OF_A_TOKEN
        piece: list[str] = []
        length = 0
        for text in texts:
            piece.append(text)
            length += len(text)
            if length >= wanted:
                yield piece
                piece, length = [], 0
        if piece:
            yield piece

    def _metrics(self, losses: Sequence[float], tally: Tally) -> dict[str, float | int | None]:
        loss = sum(losses) / len(losses)
        low, high = _interval(losses)
        metrics: dict[str, float | int | None] = {
            "loss": loss,
            "loss_ci95_low": low,
            "loss_ci95_high": high,
            "perplexity": perplexity(-loss, 1),
            "perplexity_ci95_low": None if low is None else perplexity(-low, 1),
            "perplexity_ci95_high": None if high is None else perplexity(-high, 1),
        }
        if self._batch_size:
            means = [
                math.fsum(batch) / len(batch)
                for start in range(0, len(losses), self._batch_size)
                if (batch := losses[start : start + self._batch_size])
            ]
            metrics["codeparrot_loss"] = of_batches = math.fsum(means) / len(means)
            metrics["codeparrot_perplexity"] = perplexity(-of_batches, 1)
        return metrics | {
            "num_sequences": len(losses),
            "num_tokens_predicted": len(losses) * (self._seq_length - 1),
            "num_texts": tally.num_documents,
            "num_texts_skipped": sum(tally.skipped.values()),
        }

    def _description(self, tokenizer: Tokenizer, tally: Tally) -> Mapping[str, Any]:
        joint = getattr(tokenizer, "start_name", "the end-of-document token").rstrip(",")
        return {
            "data": self._source,
            "split": self._split if self._is_streamed else None,
            "column": self._column,
            "seq_length": self._seq_length,
            "max_sequences": self._max_sequences or None,
            "codeparrot_batch_size": self._batch_size or None,
            "context": f"the tokens before in the sequence; files joined by {joint}",
            "intervals": f"95%, bootstrap over sequences, {NUM_RESAMPLES} draws, percentiles",
            "skipped": dict(tally.skipped),
        }


def _interval(losses: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """The 95% interval of the mean; none of a single sequence."""
    if len(losses) < 2:
        return None, None
    found = mean_interval(np.array(losses))
    return found.low, found.high
