"""HumanEval as a task: a model that knows the answers, one that knows nothing, and options that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import InputError
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.task import TaskResult, build_tasks
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.reciting_model import RecitingModel

PROBLEMS = read_problems()


def recited(known: Sequence[str]) -> list[str]:
    """The canonical solution of what is known and of the rest nothing, then a new block."""
    return [
        problem.prompt.strip() + f"\n{problem.canonical_solution}\nprint(input())\n"
        if name in known
        else problem.prompt.strip() + "\n    return None\n\nprint()\n"
        for name, problem in PROBLEMS.items()
    ]


def _run(known: Sequence[str], **options: Any) -> TaskResult:
    settings = EvaluationConfig(
        eval_tasks=["human_eval"], eval_task_options={"human_eval": options}, eval_batch_size=4
    )
    task = build_tasks(settings)["human_eval"]
    return task.run(RecitingModel(recited(known)), CharLevelTokenizer(), Workers())


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
