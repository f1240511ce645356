"""HumanEval as a task: a model that knows the answers, one that knows nothing, and options that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import InputError
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.task import TaskResult, build_tasks
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.tiny_models import TinyLanguageModel, tiny_config

PROBLEMS = read_problems()


class Oracle(TinyLanguageModel):
    """Goes on with the canonical solution wherever it knows one, then with a new block."""

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__(tiny_config(seq_length=4096, max_position_embeddings=4096))
        tokenizer = CharLevelTokenizer()
        self.texts = [
            tokenizer.encode(problem.prompt.strip() + f"\n{problem.canonical_solution}\nprint(input())\n")
            if name in known
            else tokenizer.encode(problem.prompt.strip() + "\n    return None\n\nprint()\n")
            for name, problem in PROBLEMS.items()
        ]
        self.seen: list[list[int]] = []

    def new_cache(self, *arguments: Any, **keywords: Any) -> Any:
        return None

    def logits(self, token_ids: Tensor, cache: object = None, *, at: Sequence[int] | None = None) -> Tensor:
        assert at is not None
        logits = torch.zeros(len(token_ids), 1, CharLevelTokenizer().vocab_size)
        for row, (ids, place) in enumerate(zip(token_ids.tolist(), at)):
            begun = ids[: place + 1]
            text = next(text for text in self.texts if text[: len(begun)] == begun)
            logits[row, 0, text[len(begun)]] = 50.0
        return logits


def _run(known: Sequence[str], **options: Any) -> TaskResult:
    settings = EvaluationConfig(
        eval_tasks=["human_eval"], eval_task_options={"human_eval": options}, eval_batch_size=4
    )
    task = build_tasks(settings)["human_eval"]
    task._sampling = task._sampling.model_copy(update={"recompute": True})  # type: ignore[attr-defined]
    return task.run(Oracle(known), CharLevelTokenizer(), Workers())


def test_it_samples_judges_and_tells_pass_at_k() -> None:
    known = [*PROBLEMS][:3]
    result = _run(known, limit=4, num_samples=2, maximum_tokens=600)
    assert result.metrics["pass@1"] == 0.75
    assert (result.metrics["num_tasks"], result.metrics["num_samples"]) == (4, 8)
    assert 0.0 <= result.metrics["pass@1_low"] < 0.75 < result.metrics["pass@1_high"] <= 1.0  # type: ignore[operator]
    assert "pass@10" not in result.metrics
    assert [row["passed"] for row in result.documents] == [True] * 6 + [False] * 2
    assert all("print" not in row["completion"] for row in result.documents), "stopped while sampling"
    assert result.config["num_samples"] == 2


def test_options_that_cannot_be_are_refused_before_any_weights_are_read() -> None:
    for options, message in (({"protocol": "none"}, "no protocol is named none"),):
        with pytest.raises(InputError, match=message):
            build_tasks(
                EvaluationConfig(eval_tasks=["human_eval"], eval_task_options={"human_eval": options})
            )
