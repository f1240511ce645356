from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron.neox.errors import InputError
from megatron.neox.reports.canvas import canvas
from megatron.neox.reports.evaluation_curves import draw_evaluation_curves, evaluation_keys
from megatron.neox.reports.loss_curve import draw_loss_curves
from megatron.neox.reports.metrics import Metrics
from megatron.neox.reports.page import Completion, Page, Picture, Table


@pytest.fixture
def run(tmp_path: Path) -> Path:
    lines = [
        {"step": 10, "loss": 5.0},
        {"step": 20, "loss": 4.5, "validation_loss": 4.75},
        {"step": 30, "loss": 4.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_curve_holds_only_the_steps_that_logged_the_key(run: Path) -> None:
    metrics = Metrics(run)
    assert metrics.curve("loss").steps == [10, 20, 30]
    assert metrics.curve("validation_loss").steps == [20]
    assert metrics.curve("validation_loss").last == 4.75
    assert metrics.curve("absent").last is None


def test_an_absent_or_broken_metrics_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.jsonl does not exist"):
        Metrics(tmp_path)
    broken = tmp_path / "metrics.jsonl"
    broken.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    with pytest.raises(InputError, match=r"metrics\.jsonl:2: not a JSON object"):
        Metrics(broken)
    broken.write_text("")
    with pytest.raises(InputError, match="logged no step"):
        Metrics(broken)


def test_the_loss_curve_is_a_png_under_its_final_name_only(run: Path) -> None:
    output = run / "loss.png"
    draw_loss_curves({"one": Metrics(run), "two": Metrics(run)}, output)
    assert output.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in run.iterdir() if "partial" in path.name] == []


def test_the_page_is_self_contained_and_escapes_code(run: Path) -> None:
    picture = run / "loss.png"
    draw_loss_curves({"run": Metrics(run)}, picture)
    page = Page(
        title="a <run>",
        facts={"loss": 4.0},
        pictures=[Picture("Loss", picture, "loss over steps")],
        tables=[Table("files", ("file", "bits"), [("a.py", 1.23456)])],
        completions=[Completion("a.py", "if a < b:\n\t", "return a", "return b")],
    )
    page.write(run / "report.html")
    text = (run / "report.html").read_text()
    assert "a &lt;run&gt;" in text
    assert "if a &lt; b:\n\t" in text
    assert "data:image/png;base64," in text
    assert "<td>1.235</td>" in text
    assert "http" not in text
    assert "<script" not in text


def test_metrics_of_tasks_are_found_by_their_keys(tmp_path: Path) -> None:
    lines = [
        {"step": 10, "loss": 5.0},
        {
            "step": 20, "eval/code_c++/bits_per_byte": 3.5, "eval/code_c++/bits_per_byte_ci95_low": 3.0,
            "eval/code_c++/bits_per_byte_ci95_high": 4.0, "eval/code_c++/num_files": 7, "eval/a/b/acc": None,
            "eval/a/b/acc_stderr": 1.0, "validation_loss/c": 3.0,
        },
        {"step": 30, "eval/code_c++/bits_per_byte": 3.25, "eval/a/b/acc": 0.5},
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = Metrics(tmp_path)
    assert evaluation_keys(metrics) == {"bits_per_byte": ["code_c++"], "acc": ["a/b"]}
    draw_loss_curves({"one": metrics}, tmp_path / "l.png")
    draw_evaluation_curves({"one": metrics, "two": metrics}, tmp_path / "e.png", log_axes="y")
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")


def test_a_drawing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), canvas(tmp_path / "a.png"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
