"""CodeParrot's validation loss against transformers' own, on the same weights and files."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

from megatron.neox.config import EvaluationConfig
from megatron.neox.evaluation.task import TaskResult, build_tasks
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.numerics.transformers_twin import twin_of
from tests.tiny_models import TinyLanguageModel

LENGTH = 24
TEXTS = ["x = 1\n", "def f(x):\n    return [x + 1, 'text']\n" * 4, "y" * 24, "", "z" * 31]


@pytest.fixture(scope="module")
def model() -> TinyLanguageModel:
    return TinyLanguageModel(scale=2.0)


def measure(model: TinyLanguageModel, path: Path, **options: Any) -> TaskResult:
    settings = EvaluationConfig(
        eval_tasks=["validation_loss"], eval_data_path=str(path), eval_batch_size=2,
        eval_task_options={"validation_loss": {"seq_length": LENGTH, **options}},
    )  # fmt: skip
    return build_tasks(settings)["validation_loss"].run(model, CharLevelTokenizer(), Workers())


def written(folder: Path, kind: str) -> Path:
    lines = "".join(json.dumps({"content": text, "repo": "a/b"}) + "\n" for text in TEXTS)
    if kind == "folder":
        (folder / "files").mkdir()
        for number, text in enumerate(TEXTS):
            (folder / "files" / f"{number}.py").write_text(text)
        return folder / "files"
    path = folder / f"valid.{kind}"
    if kind == "parquet":
        parquet.write_table(pyarrow.table({"content": TEXTS}), path)
    else:
        path.write_bytes(gzip.compress(lines.encode()) if kind.endswith("gz") else lines.encode())
    return path


def transformers_losses(model: TinyLanguageModel, batch_size: int) -> list[float]:
    """model(batch, labels=batch) of each batch of sequences, as the script computes it."""
    twin, eod = twin_of(model), CharLevelTokenizer().eod
    ids = [token for text in TEXTS if text for token in [*text.encode(), eod]]
    whole = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)
    with torch.no_grad():
        return [twin(batch, labels=batch).loss.item() for batch in whole.split(batch_size)]


@pytest.mark.parametrize("kind", ["folder", "jsonl", "jsonl.gz", "parquet"])
def test_the_loss_is_that_of_transformers(model: TinyLanguageModel, tmp_path: Path, kind: str) -> None:
    expected = transformers_losses(model, 1)
    assert len(expected) == 8
    result = measure(model, written(tmp_path, kind))
    assert [row["loss"] for row in result.documents] == pytest.approx(expected, abs=1e-5)
    mean = sum(expected) / 8
    assert result.metrics["loss"] == pytest.approx(mean, abs=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert (result.metrics["num_sequences"], result.metrics["num_tokens_predicted"]) == (8, 8 * 23)
    assert result.metrics["num_texts"] == 4
    low, high = result.metrics["loss_ci95_low"], result.metrics["loss_ci95_high"]
    assert low is not None
    assert high is not None
    assert low < mean < high


def test_batches_count_alike_where_codeparrots_mean_is_asked_for(
    model: TinyLanguageModel, tmp_path: Path
) -> None:
    of_batches = transformers_losses(model, 3)  # 3, 3 and 2 sequences
    result = measure(model, written(tmp_path, "jsonl"), codeparrot_batch_size=3)
    mean = sum(of_batches) / 3
    assert result.metrics["codeparrot_loss"] == pytest.approx(mean, abs=1e-5)
    assert result.metrics["codeparrot_perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert abs(mean - sum(transformers_losses(model, 1)) / 8) > 1e-3, "the two means differ here"


def test_the_first_sequences_alone(model: TinyLanguageModel, tmp_path: Path) -> None:
    result = measure(model, written(tmp_path, "jsonl"), max_sequences=3)
    assert [row["loss"] for row in result.documents] == pytest.approx(
        transformers_losses(model, 1)[:3], abs=1e-5
    )


def test_the_rest_of_each_piece_is_dropped(
    model: TinyLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of 86.4 characters and more: files 1 and 2 (155 tokens), then the others (57)."""
    monkeypatch.setattr("megatron.neox.evaluation.tasks.validation_loss._SEQUENCES_OF_A_PIECE", 1)
    result = measure(model, written(tmp_path, "jsonl"))
    assert result.metrics["num_sequences"] == 155 // LENGTH + 57 // LENGTH
