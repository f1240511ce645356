"""tools/report.py: what is told apart, what is drawn and tabulated of it, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.errors import InputError, OutputError
from megatron.neox.evaluation.humaneval.summary import score
from megatron.neox.evaluation.report import Report, band
from megatron.neox.evaluation.report_inputs import Verdicts, read_inputs

ROOT = Path(__file__).resolve().parents[3]


def _run(folder: Path, **more: float) -> Path:
    folder.mkdir()
    lines = [{"step": 10, "loss": 5.0}, {"step": 20, "loss": 4.5, "validation_loss": 4.75, **more}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _verdicts(path: Path, passed: int, *, tasks: int = 4, samples: int = 12, **more: Any) -> Path:
    """Of task number t, `passed` + t of the samples pass."""
    rows = [
        {"task_id": f"T/{task}", "sample": sample, "passed": sample < passed + task, **more}
        for task in range(tasks)
        for sample in range(samples)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _results(path: Path, ruby: float) -> Path:
    metrics = {
        "bits_per_byte": 2.5, "bits_per_byte_ci95_low": 2.25, "bits_per_byte_ci95_high": 2.75,
        "pygments_perplexity": ruby, "pygments_perplexity_ci95_low": None, "pygments_perplexity_ci95_high": None,
    }  # fmt: skip
    content = {"results": {"code_ruby": metrics}, "configs": {"code_ruby": {"language": "Ruby"}}}
    path.write_text(json.dumps(content, indent=2))
    return path


def _words(page: Path) -> str:
    return re.sub(r"<[^>]*>", " ", re.sub(r"<img[^>]*>", "", page.read_text(encoding="utf-8")))


def test_a_page_of_everything(tmp_path: Path) -> None:
    evaluated = _run(tmp_path / "run", **{"eval/code_ruby/bits_per_byte": 2.125})
    words = [
        str(evaluated), f"again={evaluated / 'metrics.jsonl'}",
        f"m={_verdicts(tmp_path / 'a', 1, temperature=0.2)}",
        f"m={_verdicts(tmp_path / 'b', 2, temperature=0.8)}",
        f"whole={_verdicts(tmp_path / 'c', 0, tasks=164, samples=1)}",
        f"small={_results(tmp_path / 'r.json', 7.5)}",
    ]  # fmt: skip
    report = Report(read_inputs(words), tmp_path / "out" / "0.4B", log_axes="xy")
    names = [path.name for path in report.write()]
    kinds = ("loss", "evaluation", "pass_at_k", "temperature", "languages")
    assert names == [*(f"0.4B_{kind}.png" for kind in kinds), "0.4B.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    page = tmp_path / "out" / "0.4B.html"
    assert page.read_text(encoding="utf-8").count("data:image/png;base64,") == 5
    words = " ".join(_words(page).split())
    assert "again 20 4.5 4.75" in words
    assert "again code_ruby bits_per_byte 20 2.125" in words
    assert "m, T 0.2 4 20.83% (" in words  # tasks with 1, 2, 3 and 4 of 12: 10 / 48
    assert "whole 164 99.39% (" in words  # all tasks but the first: 163 / 164
    assert "published: PolyCoder 2.7B 164 5.59% 9.87% 17.68%" in words
    assert "Ruby small bits per byte 2.5 2.25 2.75" in words
    assert "Ruby small perplexity by Pygments tokens 7.5 - -" in words
    assert "Ruby published: PolyCoder 2.7B perplexity by Pygments tokens 3.974 - -" in words
    assert "Rust" not in words


def test_bands_are_the_intervals_of_the_scoring_command(tmp_path: Path) -> None:
    counts = {f"T/{number}": (12, number % 5) for number in range(30)}
    drawn = band(Verdicts("m", "m", counts, None), range(1, 13))
    expected = score(counts, range(1, 13))
    assert list(drawn.places) == [*range(1, 13)]
    for place, k in enumerate(drawn.places):
        found = expected[int(k)]
        assert drawn.means[place] == pytest.approx(found.mean, abs=1e-12)
        assert (drawn.lows[place], drawn.highs[place]) == pytest.approx((found.low, found.high), abs=1e-12)


def test_samples_of_an_evaluation_are_drawn_with_it(tmp_path: Path) -> None:
    _verdicts(tmp_path / "r_human_eval.jsonl", 1, temperature=0.4)
    content = {"results": {"human_eval": {"pass@1": 0.2}}, "documents": {"human_eval": "r_human_eval.jsonl"}}
    (tmp_path / "r.json").write_text(json.dumps(content))
    inputs = read_inputs([f"m={tmp_path / 'r.json'}"])
    assert [(one.label, one.temperature, len(one.counts)) for one in inputs.verdicts] == [
        ("m, T 0.4", 0.4, 4)
    ]


def test_what_makes_no_line_over_temperature_is_said(tmp_path: Path) -> None:
    files = [
        _verdicts(tmp_path / "a", 1, temperature=0.2),
        _verdicts(tmp_path / "b", 1, temperature=0.2),
        _verdicts(tmp_path / "c", 1, temperature=0.8),
        _verdicts(tmp_path / "d", 1),
    ]
    report = Report(read_inputs([*map(str, files)]), tmp_path / "o")
    assert [path.name for path in report.write()] == ["o_pass_at_k.png", "o.html"]
    assert [note[:52] for note in report.notes] == ["not drawn over temperature: files without a name, tw"]
    report = Report(read_inputs([f"m={path}" for path in (files[0], files[2], files[3])]), tmp_path / "p")
    assert "p_temperature.png" in [path.name for path in report.write()]
    assert report.notes == ["not drawn over temperature, which the file does not tell: m"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x cannot be read: No such file"),
        (b"\xff\xfe", "x cannot be read: it is not UTF-8"),
        (b"", "x is nothing that is drawn: give a run's folder"),
        (b"[1]", "x is nothing that is drawn"),
        (b'{"a": 1}', "x is nothing that is drawn"),
        (
            b'{"results": {"piqa": {"acc": 1}}}',
            "x has results of piqa, and only code_* and human_eval are drawn",
        ),
        (b'{"task_id": "T", "passed": 1}', "a result has task_id and passed"),
        (b'{"step": 1, "loss": 2}\n{"st', "x:2: not a JSON object"),
        (b'{"step": 1, "loss": 2}\n5\n', "x:2: no logged step: an object with step, and numbers or null"),
        (b'{"step": 1, "loss": 2}\n{"loss": 2}\n', "x:2: no logged step"),
        (b'{"step": 1, "loss": "low"}', "x:1: no logged step"),
        (b'{"results": {"code_c": 5}, "configs": 7}', "'configs' is no object"),
        (
            b'{"results": {"code_c": {"bits_per_byte": "low"}}, "configs": {"code_c": {"language": "C"}}}',
            "bits_per_byte of code_c is 'low', no number",
        ),
        (
            b'{"results": {"code_c": {"bits_per_byte": 1}}, "configs": {"code_c": {"language": "Cobol"}}}',
            "x has results of code_c, and only code_*",
        ),
        (b'{"results": {}, "documents": {"human_eval": "absent.jsonl"}}', "absent.jsonl cannot be read"),
    ],
)
def test_other_files_are_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        read_inputs([str(tmp_path / "x")])


def test_what_is_no_number_is_not_drawn(tmp_path: Path) -> None:
    """Intervals that leave their value out, values beyond every number, and temperatures that are none."""
    metrics = {
        "bits_per_byte": 2.0, "bits_per_byte_ci95_low": 2.1, "bits_per_byte_ci95_high": 3, "pygments_perplexity": None,
    }  # fmt: skip
    content = {"results": {"code_c": metrics}, "configs": {"code_c": {"language": "C"}}}
    (tmp_path / "r.json").write_text(json.dumps(content))
    (tmp_path / "m.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 1e999}\n')
    _verdicts(tmp_path / "v", 1, temperature=[0.2])
    inputs = read_inputs([f"{name}={tmp_path / name}" for name in ("r.json", "m.jsonl", "v")])
    assert [one.temperature for one in inputs.verdicts] == [None]
    kinds = [path.name for path in Report(inputs, tmp_path / "o").write()]
    assert kinds == ["o_loss.png", "o_pass_at_k.png", "o_languages.png", "o.html"]


def test_a_report_of_nothing_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"step": 1, "tokens": 5}\n')
    inputs = read_inputs([str(tmp_path / "m.jsonl")])
    with pytest.raises(InputError, match="no loss and no evaluation was logged, so nothing is drawn"):
        Report(inputs, tmp_path / "o").write()
    with pytest.raises(OutputError, match="cannot be written"):
        Report(inputs, tmp_path / "m.jsonl" / "o").write()


def test_names_are_given_once(tmp_path: Path) -> None:
    run, results = _run(tmp_path / "run"), _results(tmp_path / "r.json", 7.5)
    with pytest.raises(InputError, match=r"two runs are named a; give each a name of its own: NAME=PATH"):
        read_inputs([f"a={run}", f"a={run}"])
    with pytest.raises(InputError, match="two results are named a"):
        read_inputs([f"a={results}", f"a={results}"])
    file = _verdicts(tmp_path / "v", 1)
    with pytest.raises(InputError, match="two files of verdicts are m"):
        Report(read_inputs([f"m={file}", f"m={file}"]), tmp_path / "o").write()


def test_the_command(tmp_path: Path) -> None:
    run, odd = _run(tmp_path / "a=b"), tmp_path / "odd"
    odd.write_text("no")

    def report(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "tools" / "report.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)

    done = report(run.name, "--output", "o")  # a path that holds a = sign
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote o_loss.png, o.html\n"
    done = report(odd)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "is nothing that is drawn" in done.stderr
