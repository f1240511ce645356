"""Perplexity against transformers' logits on the same weights, window by window."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from megatron.neox.config import EvaluationConfig
from megatron.neox.engine.inference import InferenceModel
from megatron.neox.evaluation.task import TaskResult, build_tasks
from megatron.neox.evaluation.tasks.perplexity import Perplexity
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.numerics.transformers_twin import twin_of
from tests.tiny_models import VOCAB_SIZE, TinyLanguageModel

TEXTS = {
    "short.py": "x = 1\n",
    "window.py": "y" * 32,
    "long.py": "def f(x):\n    return [x + 1, 'text']\n" * 4,
    "one_more.py": "z" * 33,
}

LENGTHS = [1, 2, 23, 24, 25, 26, 48, 49, 50, 73, 100]


@pytest.fixture(scope="module")
def model() -> TinyLanguageModel:
    return TinyLanguageModel(scale=2.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def measure(model: TinyLanguageModel, folder: Path, stride: int, batch_size: int = 8) -> TaskResult:
    settings = EvaluationConfig(
        eval_data_path=str(folder), eval_window=32, eval_stride=stride, eval_batch_size=batch_size
    )
    return Perplexity(settings).run(model, CharLevelTokenizer(), Workers())


def plain_log_likelihood(twin: torch.nn.Module, text: str, stride: int) -> float:
    """Token by token: which window scores it, and what that window sees before it."""
    ids = [0, *text.encode()]
    total = 0.0
    for token in range(1, len(ids)):
        end = 32 if token <= 32 else min(32 + -(-(token - 32) // stride) * stride, len(ids) - 1)
        context = torch.tensor([ids[max(0, end - 32) : token]])
        with torch.no_grad():
            logits = twin(context).logits[0, -1].double()
        total += logits.log_softmax(-1)[ids[token]].item()
    return total


@pytest.mark.parametrize("stride", [32, 16, 5])
def test_perplexity_is_transformers(model: TinyLanguageModel, folder: Path, stride: int) -> None:
    twin = twin_of(model)
    scores = {name: plain_log_likelihood(twin, text, stride) for name, text in TEXTS.items()}
    result = measure(model, folder, stride)
    for row in result.documents:
        assert row["log_likelihood"] == pytest.approx(scores[row["path"]], rel=1e-5)
    num_tokens = sum(map(len, TEXTS.values()))
    mean = -sum(scores.values()) / num_tokens
    assert result.metrics["num_model_tokens"] == num_tokens
    assert result.metrics["token_perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert result.metrics["bits_per_byte"] == pytest.approx(mean / math.log(2), rel=1e-5)


def test_the_batch_size_changes_nothing(model: TinyLanguageModel, folder: Path) -> None:
    alone = measure(model, folder, 5, batch_size=1)
    together = measure(model, folder, 5, batch_size=64)
    for one, other in zip(alone.documents, together.documents, strict=True):
        assert other["log_likelihood"] == pytest.approx(one["log_likelihood"], rel=1e-6)


def polycoder_log_likelihood(twin: torch.nn.Module, text: str) -> float:
    """Token by token over PolyCoder's windows of 24: a last window of one token, and a file of one, score nothing."""
    ids = [0, *text.encode()]
    last = len(ids) - 1
    total = 0.0
    for token in range(1, len(ids)):
        begin = (token - 1) // 24 * 24
        rest = last - begin
        if rest == 1:
            continue
        if begin and rest < 24:
            begin = last - 24
        with torch.no_grad():
            logits = twin(torch.tensor([ids[begin:token]])).logits[0, -1].double()
        total += logits.log_softmax(-1)[ids[token]].item()
    return total


def test_perplexity_as_polycoders_is_transformers(model: TinyLanguageModel, tmp_path: Path) -> None:
    texts = {f"u/r/{length}.py": ("if x:\n    y = [x, 'text', 1.5]\n" * 5)[:length] for length in LENGTHS}
    for name, text in texts.items():
        path = tmp_path / "Python" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    twin = twin_of(model)
    # transformers' model has no rows of padding, so none may have a share of the probability here.
    same = InferenceModel(
        model.net, model.config, model.parallel, vocab_size=VOCAB_SIZE, padded_vocab_size=VOCAB_SIZE,
        checkpoint=tmp_path,
    )  # fmt: skip
    settings = EvaluationConfig(
        eval_tasks=["code_python"], eval_data_path=str(tmp_path), eval_compat="polycoder", eval_batch_size=3
    )
    result = build_tasks(settings)["code_python"].run(same, CharLevelTokenizer(), Workers())
    assert len(result.documents) == len(LENGTHS)
    for row in result.documents:
        expected = polycoder_log_likelihood(twin, texts[row["path"]])
        assert row["log_likelihood"] == pytest.approx(expected, rel=1e-5)
