"""The results file, the table beside it, and the documents' rows."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import ConfigError
from megatron.neox.evaluation.results import markdown_table, results_path, write_results
from megatron.neox.evaluation.task import TaskResult
from megatron.neox.evaluation.tasks.perplexity import Perplexity

WHEN = time.struct_time((2026, 3, 4, 5, 6, 7, 2, 63, 0))
RESULT = TaskResult(
    {"bits_per_byte": 1.23456789, "num_files": 3, "pygments_perplexity": None},
    {"window": 48, "context": "eod first", "limit": None},
    [{"path": "é.py", "bytes": 3}, {"path": "b.py", "bytes": 4}],
)


def test_the_file_is_named_as_in_gpt_neox() -> None:
    assert results_path(EvaluationConfig(), WHEN) == Path("eval_results_03-04-2026-05-06-07.json")
    prefixed = EvaluationConfig(eval_results_prefix="runs/small")
    assert results_path(prefixed, WHEN) == Path("runs/small_eval_results_03-04-2026-05-06-07.json")
    assert results_path(EvaluationConfig(eval_results_path="out/r.json"), WHEN) == Path("out/r.json")


def test_the_results_do_not_take_the_place_of_the_tables() -> None:
    with pytest.raises(
        ConfigError, match=r"out/r\.md is where the tables go; name the JSON file: out/r\.json"
    ):
        results_path(EvaluationConfig(eval_results_path="out/r.md"), WHEN)


def test_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x\n")
    task = Perplexity(EvaluationConfig(eval_data_path=str(tmp_path)))
    path = tmp_path / "out" / "results.json"
    table = write_results(path, {"perplexity": (task, RESULT)}, config={"model": "neox"}, when=WHEN)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["results"] == {
        "perplexity": {"bits_per_byte": 1.23456789, "num_files": 3, "pygments_perplexity": None}
    }
    assert content["versions"] == {"perplexity": 1}
    assert content["config"] == {"model": "neox"}
    assert content["configs"] == {"perplexity": {"window": 48, "context": "eod first", "limit": None}}
    assert content["documents"] == {"perplexity": "results_perplexity.jsonl"}
    rows = (path.parent / "results_perplexity.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["path"] for row in rows] == ["é.py", "b.py"]
    assert path.with_suffix(".md").read_text() == table
    assert table.endswith(" - |\n\nHow perplexity was measured:\n\n- window: 48\n- context: eod first\n")
    assert len(list(path.parent.iterdir())) == 3


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {"model": "neox", "checkpoint": "runs/global_step5", "precision": "bf16"},
            "runs/global_step5 (neox, bf16)",
        ),
        (
            {"model": "hf", "path": "gpt2", "revision": "0a1b", "precision": "fp32"},
            "gpt2, revision 0a1b (hf, fp32)",
        ),
    ],
)
def test_tables_say_of_which_model_they_are(tmp_path: Path, config: dict[str, str], line: str) -> None:
    (tmp_path / "a.py").write_text("x\n")
    task = Perplexity(EvaluationConfig(eval_data_path=str(tmp_path)))
    table = write_results(tmp_path / "r.json", {"perplexity": (task, RESULT)}, config=config, when=WHEN)
    assert table.startswith(f"Model: {line}\n\n| Task ")
    assert (tmp_path / "r.md").read_text() == table


def test_the_table() -> None:
    assert markdown_table({"perplexity": (1, RESULT)}) == (
        "| Task       | Version | Metric              |  Value |\n"
        "| ---------- | ------- | ------------------- | -----: |\n"
        "| perplexity | 1       | bits_per_byte       | 1.2346 |\n"
        "| perplexity | 1       | num_files           |      3 |\n"
        "| perplexity | 1       | pygments_perplexity |      - |\n"
    )


def test_an_interval_stands_in_its_metrics_row() -> None:
    """Both spellings of its ends."""
    metrics = {"pass@1": 0.05, "pass@1_low": 0.025, "pass@1_high": 0.075, "a_low": 1, "b": 2.0}
    shown = markdown_table({"t": (1, TaskResult({**metrics, "b_ci95_low": None, "b_ci95_high": None}, {}))})
    assert [line.split(" | ", 2)[2] for line in shown.splitlines()[2:]] == [
        "pass@1 | 0.0500 (0.0250 to 0.0750) |",
        "a_low  |                         1 |",
        "b      |                    2.0000 |",
    ]


@pytest.mark.parametrize("num_tasks", [164, 10])
def test_published_figures_stand_below_a_whole_human_eval(num_tasks: int, tmp_path: Path) -> None:
    """Those of a part of its tasks compare with none."""
    (tmp_path / "a.py").write_text("x\n")
    task = Perplexity(EvaluationConfig(eval_data_path=str(tmp_path)))
    result = TaskResult({"num_tasks": num_tasks, "pass@1": 0.05}, {"protocol": "polycoder"})
    table = write_results(tmp_path / "r.json", {"human_eval": (task, result)}, config={}, when=WHEN)
    assert table.count("| PolyCoder 2.7B ") == (num_tasks == 164)
