"""The worked examples of docs/evaluation.md, computed by the code that evaluates; and its table of disagreements."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.neox.config import EvaluationConfig
from megatron.neox.evaluation.humaneval.summary import compare, score
from megatron.neox.evaluation.published.tables import (
    code_perplexity,
    human_eval,
    standard_error_bound,
)
from megatron.neox.evaluation.task import build_tasks
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.tiny_models import VOCAB_SIZE, TinyLanguageModel

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")


class Ignorant(TinyLanguageModel):
    """Every id is as likely as any other."""

    def logits(self, token_ids: Tensor, cache: object = None, *, at: Sequence[int] | None = None) -> Tensor:
        return torch.zeros(len(token_ids), token_ids.shape[1] if at is None else 1, VOCAB_SIZE)


def _measure(folder: Path, name: str = "code_python", **keys: Any) -> dict[str, Any]:
    for file, text in (("a.py", "return 10\n"), ("b.py", "a=1\n")):
        (folder / "Python").mkdir(exist_ok=True)
        (folder / "Python" / file).write_text(text)
    settings = EvaluationConfig(eval_tasks=[name], eval_data_path=str(folder), **keys)
    task = build_tasks(settings)[name]
    return dict(task.run(Ignorant(), CharLevelTokenizer(), Workers()).metrics)


def test_perplexity(tmp_path: Path) -> None:
    found = _measure(tmp_path)
    assert VOCAB_SIZE == 512
    assert (found["num_bytes"], found["num_model_tokens"], found["num_pygments_tokens"]) == (14, 14, 8)
    assert found["log_likelihood"] == pytest.approx(-14 * math.log(512), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(9, rel=1e-6)
    assert found["token_perplexity"] == pytest.approx(512, rel=1e-5)
    assert found["pygments_perplexity"] == pytest.approx(55109, rel=1e-5)
    ends = [found[f"pygments_perplexity_ci95_{end}"] for end in ("low", "high")]
    assert ends == pytest.approx([512, 5931642], rel=1e-5)


def test_polycoders_lost_tokens(tmp_path: Path) -> None:
    found = _measure(tmp_path, eval_compat="polycoder", eval_window=3)
    assert found["num_tokens_not_scored"] == 2
    assert found["log_likelihood"] == pytest.approx(-12 * math.log(512), rel=1e-6)
    assert found["nats_per_byte"] == pytest.approx(5.3471, abs=5e-5)
    assert found["word_perplexity"] == pytest.approx(11585, abs=0.5)


def test_codeparrots_validation_loss(tmp_path: Path) -> None:
    options = {"validation_loss": {"seq_length": 8}}
    found = _measure(tmp_path, "validation_loss", eval_task_options=options)
    assert (found["num_sequences"], found["num_tokens_predicted"]) == (2, 14)
    assert found["loss"] == pytest.approx(6.2383, abs=5e-5)
    assert found["perplexity"] == pytest.approx(512, rel=1e-5)


def test_pass_at_k() -> None:
    first, second = {"one": (4, 1), "two": (4, 0)}, {"one": (4, 2), "two": (4, 1)}
    ours, theirs = score(first, [1, 2]), score(second, [1])
    assert (ours[1].mean, ours[2].mean, theirs[1].mean) == (0.125, 0.25, 0.375)
    assert (ours[1].low, ours[1].high, theirs[1].low, theirs[1].high) == (0.0, 0.25, 0.25, 0.5)
    difference = compare(second, first, [1])[0][1]
    assert (difference.mean, difference.low, difference.high) == (0.25, 0.25, 0.25)


def test_standard_errors() -> None:
    assert standard_error_bound(5.59) == pytest.approx(1.79, abs=5e-3)
    assert standard_error_bound(6.41) == pytest.approx(1.91, abs=5e-3)


def test_the_page_shows_these_figures() -> None:
    examples = PAGE.partition("## Worked examples")[2].partition("\n## ")[0]
    for figure in ("= 9\n", "= 512\n", "= 55109\n", "= 5.3471\n", "= 6.2383\n", "= 11585\n", "5931642",
                   "12.5%", "25%", "37.5%", "+25 to +25", "1.79 points", "of 1.91"):  # fmt: skip
        assert figure in examples, figure


def test_the_page_tells_every_disagreement_of_the_data() -> None:
    told = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE, re.M)
    for note in (*human_eval().disagreements, *code_perplexity().disagreements):
        assert (note.about, note.says) in told
