"""How well a model predicts the files of a folder: bits per byte, and perplexity by several counts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron.neox.config import EvaluationConfig
from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.readers import reader_name
from megatron.neox.corpus.texts import usable_text
from megatron.neox.errors import ConfigError, InputError
from megatron.neox.evaluation.compressors import SIZES
from megatron.neox.evaluation.lexing import PYGMENTS_VERSION, count_tokens
from megatron.neox.evaluation.scoring import TokenScorer
from megatron.neox.evaluation.task import TaskResult
from megatron.neox.evaluation.windows import (
    WindowScorer,
    described_context,
    document_start,
    window_and_stride,
)
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.plugins import readers, tasks
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

_COMPRESSORS = "each file by itself: gzip -9 -n as zlib does it (GNU gzip differs by up to 1%), xz -9"


@dataclass(frozen=True)
class _File:
    name: str
    text: str


@tasks.register("perplexity")
class Perplexity:
    """Bits per byte and perplexity of every file of eval_data_path, beside gzip -9 and xz -9.

    A file is read as training data is: UTF-8, a byte order mark dropped, CRLF and CR as LF. Bytes are those
    of the text so read, and so are what the compressors get. Its tokens are the whole text's, without special
    ones; how windows give them context is in `windows.py`.

    Args:
        settings: the folder, window, stride and batch size.
        limit: score the first so many files only.
        extensions: endings of the names to read (".py"); none reads all files.
        compressors: sizes under gzip and xz too.

    Raises:
        ConfigError: eval_data_path is missing, or the stride is longer than the window.
        InputError: there is nothing to read there.
    """

    version = 1

    def __init__(
        self,
        settings: EvaluationConfig,
        *,
        limit: int | None = None,
        extensions: Sequence[str] = (),
        compressors: bool = True,
    ) -> None:
        if settings.eval_data_path is None:
            raise ConfigError(["eval_data_path is missing: the folder of files whose perplexity is measured"])
        self._settings = settings
        self._compressors = SIZES if compressors else {}
        self._tally = Tally()
        self._limit = limit
        self._files = _read_files(Path(settings.eval_data_path), self._tally, extensions)[:limit]

    def run(self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers) -> TaskResult:
        """Score all files, shared among the copies of the model.

        Raises:
            ConfigError: the window is longer than the model's positions.
            NeoXError: the model's logits are not numbers.
        """
        window, stride = window_and_stride(self._settings, model)
        rows = workers.join(self._rows(model, tokenizer, workers.share(self._files), window, stride))
        return TaskResult(self._totals(rows), self._description(tokenizer, window, stride), rows)

    def _rows(
        self, model: LanguageModel, tokenizer: Tokenizer, files: Sequence[_File], window: int, stride: int
    ) -> list[dict[str, Any]]:
        encoded = [torch.tensor(ids) for ids in tokenizer.encode_batch([file.text for file in files])]
        scorer = TokenScorer(
            model,
            padding=tokenizer.eod,
            vocab_size=tokenizer.vocab_size,
            batch_size=self._settings.eval_batch_size,
        )
        scores = WindowScorer(scorer, start=document_start(tokenizer)).log_likelihoods(
            encoded, window=window, stride=stride
        )
        return [self._row(file, len(ids), score) for file, ids, score in zip(files, encoded, scores)]

    def _row(self, file: _File, num_tokens: int, score: float) -> dict[str, Any]:
        data = file.text.encode()
        row: dict[str, Any] = {
            "path": file.name,
            "bytes": len(data),
            "tokens": num_tokens,
            "pygments_tokens": count_tokens(file.name, file.text),
            "log_likelihood": score,
            "bits_per_byte": bits_per_byte(score, len(data)),
            "token_perplexity": perplexity(score, num_tokens),
        }
        for name, size in self._compressors.items():
            row[f"{name}_bytes"] = compressed = size(data)
            row[f"{name}_bits_per_byte"] = 8 * compressed / len(data)
        return row

    def _totals(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
        """Micro averages: sums over all files, divided once."""
        score = sum(row["log_likelihood"] for row in rows)
        num_bytes = sum(row["bytes"] for row in rows)
        num_tokens = sum(row["tokens"] for row in rows)
        lexed = [row for row in rows if row["pygments_tokens"] is not None]
        num_lexed = sum(row["pygments_tokens"] for row in lexed)
        totals: dict[str, float | int | None] = {
            "bits_per_byte": bits_per_byte(score, num_bytes),
            "byte_perplexity": perplexity(score, num_bytes),
            "token_perplexity": perplexity(score, num_tokens),
            "pygments_perplexity": perplexity(sum(row["log_likelihood"] for row in lexed), num_lexed),
        }
        for name in self._compressors:
            totals[f"{name}_bits_per_byte"] = 8 * sum(row[f"{name}_bytes"] for row in rows) / num_bytes
        return totals | {
            "log_likelihood": score,
            "num_files": len(rows),
            "num_bytes": num_bytes,
            "num_model_tokens": num_tokens,
            "num_pygments_tokens": num_lexed,
            "num_files_without_lexer": len(rows) - len(lexed),
            "num_files_skipped": sum(self._tally.skipped.values()),
        }

    def _description(self, tokenizer: Tokenizer, window: int, stride: int) -> dict[str, Any]:
        return {
            "eval_data_path": self._settings.eval_data_path,
            "window": window,
            "stride": stride,
            "context": described_context(tokenizer),
            "limit": self._limit,
            "pygments_version": PYGMENTS_VERSION,
            "compressors": _COMPRESSORS if self._compressors else None,
            "skipped": dict(self._tally.skipped),
        }


def bits_per_byte(log_likelihood: float, num_bytes: int) -> float:
    """-log2 p per byte, from log p in nats."""
    return -log_likelihood / math.log(2) / num_bytes


def perplexity(log_likelihood: float, count: int) -> float | None:
    """exp(-log p / count); none where there is nothing to divide by, or no float is that large."""
    try:
        return math.exp(-log_likelihood / count)
    except (ZeroDivisionError, OverflowError):
        return None


def _read_files(path: Path, tally: Tally, extensions: Sequence[str]) -> list[_File]:
    if not path.exists():
        raise InputError(f"eval_data_path {path} does not exist (looked for {path.absolute()})")
    options = {"extensions": list(extensions)} if extensions and path.is_dir() else {}
    documents = readers.build(reader_name(path), path, tally, options=options)
    files = [file for document in documents if (file := _read_file(document, tally)) is not None]
    if not files:
        raise InputError(
            f"eval_data_path {path} holds no file that can be scored (left out: {tally.reasons()}); "
            "it takes a folder of UTF-8 text files"
        )
    if tally.skipped:
        log.warning("%s: %d files; left out: %s", path, len(files), tally.reasons())
    return files


def _read_file(document: Document, tally: Tally) -> _File | None:
    """A document that can be scored; none (and counted) where it is binary, not UTF-8, or blank."""
    text = usable_text(document, tally)
    if text is None:
        return None
    if not text.strip():
        tally.skip("empty")
        return None
    tally.take(document)
    return _File(document.name, text)
