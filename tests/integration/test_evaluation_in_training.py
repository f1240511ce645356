"""What a run logs of its model is what evaluate.py says of the checkpoint of that step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness_tasks import write_tasks
from tests.integration.training_case import ROOT, environment, metrics, train, write_config, write_dataset

pytestmark = pytest.mark.slow


def test_a_run_on_two_ranks_logs_what_evaluate_py_gives(tmp_path: Path) -> None:
    for name, text in {
        "Python/u/r/a.py": "import os\nprint(os.name)\n" * 9,
        "Go/u/r/a.go": "package a\n" * 5,
    }.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    save = tmp_path / "run"
    config = write_config(
        tmp_path / "tiny.yml",
        data_path=write_dataset(tmp_path / "code_text_document"),
        num_gpus=2, train_iters=3, checkpoint_factor=1, save=str(save), load=str(save), eval_tasks_interval=1,
        eval_tasks=["code_python", "code_go", "validation_loss", "infilling_single_line", "tiny_choice"],
        eval_task_options={"validation_loss": {"seq_length": 32}, "infilling_single_line": {
            "limit": 3, "maximum_tokens": 4, "problem_file": str(write_problems(tmp_path / "problems.jsonl")),
        }},
        eval_data_path=str(tmp_path / "files"),
        eval_include_path=[str(write_tasks(tmp_path / "tasks", "tiny_choice"))],
    )  # fmt: skip
    done = train(config)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 1 code_python: bits_per_byte ") == 1
    logged = metrics(save)[0]
    evaluated = evaluate(config, tmp_path / "results.json", iteration=1)
    for task, metric in (
        ("code_python", "bits_per_byte"),
        ("code_go", "pygments_perplexity"),
        ("validation_loss", "loss"),
        ("validation_loss", "loss_ci95_high"),
        ("infilling_single_line", "pass@1"),
        ("tiny_choice", "acc"),
    ):
        expected = evaluated[task][metric if task != "tiny_choice" else "acc,none"]
        assert logged[f"eval/{task}/{metric}"] == pytest.approx(expected, rel=1e-5), (task, metric)
    # The last step has a learning rate of 0.
    assert logged["eval/code_python/bits_per_byte"] != metrics(save)[1]["eval/code_python/bits_per_byte"]


def write_problems(path: Path) -> Path:
    """One problem whose prompt leaves room in 32 positions of a character each."""
    problem = {
        "task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "  x=1\n  return x\n",
        "test": "def check(f):\n    assert f() == 1\n",
    }  # fmt: skip
    path.write_text(json.dumps(problem) + "\n")
    return path


def evaluate(config: Path, results: Path, *, iteration: int) -> dict[str, dict[str, float]]:
    """What `./deepy.py evaluate.py` finds on one rank."""
    keys = {"num_gpus": 1, "iteration": iteration, "eval_results_path": str(results)}
    given = [part for key, value in keys.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), "evaluate.py", str(config), *given],
        capture_output=True, text=True, env=environment(), timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(results.read_text())["results"]
