"""Perplexity of code in PolyCoder's twelve languages: the tasks code_python, code_c++, ... code_rust."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from megatron.neox.config import EvaluationConfig
from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.index.index import file_hashes
from megatron.neox.corpus.texts import usable_text
from megatron.neox.errors import ConfigError, InputError
from megatron.neox.evaluation.code_files import read_documents
from megatron.neox.evaluation.compatibility import polycoder_window, warn_of_window, with_padding
from megatron.neox.evaluation.intervals import NUM_RESAMPLES, ratio_interval, resampled_sums
from megatron.neox.evaluation.languages import LANGUAGES, TASK_PREFIX
from megatron.neox.evaluation.lexing import PYGMENTS_VERSION, count_language_tokens, warn_of_version
from megatron.neox.evaluation.published.tables import code_perplexity
from megatron.neox.evaluation.scoring import TokenScorer
from megatron.neox.evaluation.task import TaskResult
from megatron.neox.evaluation.tasks.perplexity import bits_per_byte, perplexity
from megatron.neox.evaluation.windows import (
    WindowScorer,
    cut_windows,
    described_context,
    document_start,
    window_and_stride,
)
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.plugins import tasks
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

DEFAULT_DATA = "evaldata/Code-sampled100"

# What log p is divided by, and the perplexity that it gives.
_COUNTS = {"pygments_tokens": "pygments", "tokens": "token", "bytes": "byte"}


@dataclass(frozen=True)
class CodeFile:
    """A file that is scored: its name below the language's folder, its text, its hashes as in the index."""

    name: str
    text: str
    hashes: tuple[str, str, str]


class CodePerplexity:
    """Bits per byte and perplexities of the files of one language, with 95% intervals.

    Files come from eval_data_path (evaldata/Code-sampled100 where it is not given); how they are read, and what
    eval_compat changes, is in docs/perplexity.md.

    Args:
        settings: data, window, stride, batch size, compatibility, limit.

    Raises:
        ConfigError: eval_stride together with eval_compat.
        InputError: there is no file of the language, or none that can be scored.
    """

    version = 1
    language: ClassVar[str]

    def __init__(self, settings: EvaluationConfig) -> None:
        self._settings = settings
        self._is_compatible = settings.eval_compat == "polycoder"
        if self._is_compatible:
            if settings.eval_stride not in (None, settings.eval_window):
                raise ConfigError(["eval_stride: eval_compat polycoder has disjoint windows; leave it away"])
            warn_of_version(self.language)
        self._path = Path(settings.eval_data_path or DEFAULT_DATA)
        self._tally = Tally()
        self.files = self._read()
        self._seen: set[str] | None = None

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of every file, as it is and with LF line ends."""
        return [digest for file in self.files for digest in file.hashes]

    def mark_seen(self, seen: set[str]) -> None:
        """Take note of which of `hashes` belong to files that the model was trained on."""
        self._seen = seen

    def run(self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers) -> TaskResult:
        """Score all files, shared among the copies of the model.

        Raises:
            ConfigError: the window is longer than the model's positions.
            NeoXError: the model's logits are not numbers.
        """
        default = polycoder_window(model) if self._is_compatible else None
        window, stride = window_and_stride(self._settings, model, default=default)
        if self._is_compatible:
            warn_of_window(window)
        rows = workers.join(self._rows(model, tokenizer, workers.share(self.files), window, stride))
        return TaskResult(self._totals(rows), self._description(tokenizer, window, stride), rows)

    def _read(self) -> list[CodeFile]:
        documents = read_documents(self._path, self.language, self._tally)
        files = [file for document in documents if (file := self._file(document)) is not None]
        reasons = self._tally.reasons()
        if not files:
            raise InputError(
                f"{self._path} holds no {self.language} file that can be scored (left out: {reasons})"
            )
        if self._tally.skipped:
            died = "; PolyCoder's evaluation would have died of not_utf8"
            log.warning(
                "%s in %s: %d files; left out: %s%s", self.language, self._path, len(files), reasons,
                died if self._is_compatible and self._tally.skipped["not_utf8"] else "",
            )  # fmt: skip
        limit = self._settings.eval_limit
        if limit is None:
            return files
        return files[: math.ceil(limit * len(files)) if limit < 1 else int(limit)]

    def _file(self, document: Document) -> CodeFile | None:
        """A file that can be scored; none, and counted, where it is blank or cannot be read as text."""
        text = (
            _text_as_polycoder(document, self._tally)
            if self._is_compatible
            else usable_text(document, self._tally)
        )
        if text is None:
            return None
        if not text.strip():
            self._tally.skip("blank")
            return None
        self._tally.take(document)
        return CodeFile(document.name, text, file_hashes(document.data))

    def _rows(
        self, model: LanguageModel, tokenizer: Tokenizer, files: Sequence[CodeFile], window: int, stride: int
    ) -> list[dict[str, Any]]:
        encoded = [torch.tensor(ids) for ids in tokenizer.encode_batch([file.text for file in files])]
        scorer = TokenScorer(
            with_padding(model) if self._is_compatible else model,
            padding=tokenizer.eod,
            vocab_size=None if self._is_compatible else tokenizer.vocab_size,
            batch_size=self._settings.eval_batch_size,
        )
        cut = {"window": window, "stride": stride, "drop_single_tokens": self._is_compatible}
        scores = WindowScorer(scorer, start=document_start(tokenizer)).log_likelihoods(encoded, **cut)
        return [
            self._row(
                file, len(ids), sum(piece.num_scored for piece in cut_windows(0, len(ids), **cut)), score
            )
            for file, ids, score in zip(files, encoded, scores)
        ]

    def _row(self, file: CodeFile, num_tokens: int, num_scored: int, score: float) -> dict[str, Any]:
        num_bytes, num_lexed = len(file.text.encode()), count_language_tokens(self.language, file.text)
        return {
            "path": file.name,
            "sha256": file.hashes[0],
            "bytes": num_bytes,
            "tokens": num_tokens,
            "tokens_scored": num_scored,
            "pygments_tokens": num_lexed,
            "log_likelihood": score,
            "bits_per_byte": bits_per_byte(score, num_bytes),
            "pygments_perplexity": perplexity(score, num_lexed),
            "seen_in_training": None if self._seen is None else not self._seen.isdisjoint(file.hashes),
        }

    def _totals(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int | None]:
        """Micro averages: sums over all files, divided once; and their intervals."""
        columns = {key: [row[key] for row in rows] for key in ("log_likelihood", "tokens_scored", *_COUNTS)}
        sums = {key: sum(values) for key, values in columns.items()}
        ends = _intervals(columns)
        score = sums["log_likelihood"]
        low, high = ends["bytes"]
        totals: dict[str, float | int | None] = {
            "bits_per_byte": bits_per_byte(score, sums["bytes"]),
            "bits_per_byte_ci95_low": None if low is None else low / math.log(2),
            "bits_per_byte_ci95_high": None if high is None else high / math.log(2),
        }
        for key, name in _COUNTS.items():
            low, high = ends[key]
            totals[f"{name}_perplexity"] = perplexity(score, sums[key])
            totals[f"{name}_perplexity_ci95_low"] = None if low is None else perplexity(-low, 1)
            totals[f"{name}_perplexity_ci95_high"] = None if high is None else perplexity(-high, 1)
        if self._is_compatible:  # the fork's names; what it calls bits_per_byte are nats
            totals["word_perplexity"] = totals["pygments_perplexity"]
            totals["nats_per_byte"] = -score / sums["bytes"]
        seen = sum(bool(row["seen_in_training"]) for row in rows) if self._seen is not None else None
        return totals | {
            "log_likelihood": score,
            "num_files": len(rows),
            "num_files_seen_in_training": seen,
            "num_files_skipped": sum(self._tally.skipped.values()),
            "num_bytes": sums["bytes"],
            "num_model_tokens": sums["tokens"],
            "num_tokens_not_scored": sums["tokens"] - sums["tokens_scored"],
            "num_pygments_tokens": sums["pygments_tokens"],
        }

    def _description(self, tokenizer: Tokenizer, window: int, stride: int) -> dict[str, Any]:
        return {
            "language": self.language,
            "eval_data_path": str(self._path),
            "eval_compat": self._settings.eval_compat,
            "window": window,
            "stride": stride,
            "context": described_context(tokenizer),
            "limit": self._settings.eval_limit,
            "pygments_version": PYGMENTS_VERSION,
            "intervals": f"95%, bootstrap over files, {NUM_RESAMPLES} draws, percentiles",
            "contamination_index": self._settings.eval_contamination_index,
            "skipped": dict(self._tally.skipped),
            "published": code_perplexity().described,
        }


def _text_as_polycoder(document: Document, tally: Tally) -> str | None:
    """The text as `open(path).read()` gives it in UTF-8: a byte order mark and NUL characters stay."""
    try:
        return document.text(keep_byte_order_mark=True)
    except UnicodeDecodeError:
        tally.skip("not_utf8")
        return None


def _intervals(columns: Mapping[str, Sequence[float]]) -> dict[str, tuple[float | None, float | None]]:
    """The 95% interval of -log p per byte, and by the other counts, in nats; none of a single file."""
    if len(columns["log_likelihood"]) < 2:
        return dict.fromkeys(_COUNTS, (None, None))
    drawn = resampled_sums(columns)
    return {key: ratio_interval(-drawn["log_likelihood"], drawn[key]) or (None, None) for key in _COUNTS}


for _suffix, _language in LANGUAGES.items():
    _members = {
        "language": _language,
        "__module__": __name__,
        "__doc__": f"Bits per byte and perplexity, with 95% intervals, of the {_language} files of eval_data_path.",
    }
    tasks.register(TASK_PREFIX + _suffix)(type(f"CodePerplexity{_language}", (CodePerplexity,), _members))
