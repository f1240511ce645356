"""The quick start's chain, whole, on a folder of two dozen small packages and for a few steps."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("train_iters=4", "seq_length=64", "max_position_embeddings=256", "num_layers=1", "hidden_size=32",
         "eval_window=64", "eval_stride=32", "eval_iters=1", "eval_interval=2", "checkpoint_factor=2",
         "log_interval=1", "maximum_tokens=4")  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty real files, small ones of the standard library."""
    folder = tmp_path_factory.mktemp("source")
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in sorted(library.glob("*.py")) if 4_000 < path.stat().st_size < 20_000]
    for path in files[:60]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def quickstart(source: Path, output: Path, *more: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ROOT / "tools" / "quickstart.py"),
        "--input",
        str(source),
        "--output",
        str(output),
    ]
    for setting in SMALL:
        command += ["--set", setting]
    command += more
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def test_the_chain_runs_reports_and_is_not_run_twice(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    first = quickstart(Path(source.name), output, cwd=source.parent)
    assert first.returncode == 0, first.stdout + first.stderr
    summary = json.loads((output / "summary.json").read_text())
    for name in ("model_bits_per_byte", "gzip_bits_per_byte", "xz_bits_per_byte", "validation_loss",
                 "train_seconds", "tokens_per_second"):  # fmt: skip
        assert summary[name] > 0, name
    assert (Path(summary["checkpoint"]) / "latest").read_text().strip() == "global_step4"
    assert Path(summary["report"]).read_text().startswith("<!doctype html>")
    assert (output / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert first.stdout.count("--- the model goes on") == 3
    assert "gzip -9" in first.stdout
    assert "$ ./deepy.py train.py configs/quickstart.yml" in first.stdout

    assert first.stdout.count("\n  took ") == 7

    asked = shlex.split(first.stdout.splitlines()[-1].removeprefix("$ "))
    told = subprocess.run(
        [sys.executable, *asked], cwd=ROOT, input="def f(\n", capture_output=True, text=True, check=False
    )
    assert "Generated Text" in told.stdout, told.stderr

    second = quickstart(source, output)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("done before") == 7
    assert json.loads((output / "summary.json").read_text()) == summary

    other = quickstart(source.parent, output)
    assert other.returncode == 2
    assert "holds a run on" in other.stderr
    assert "Traceback" not in other.stderr

    settings = quickstart(source, output, "--set", "num_layers=2")
    assert settings.returncode == 2
    assert "with --set train_iters=4 seq_length=64" in settings.stderr


def test_mistakes_are_told_at_once_and_claim_no_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, output, more, message in (
        (tmp_path / "absent", "run", (), "absent is not a folder"),
        (source, "file", (), "file: File exists; give a folder"),
        (source, "run", ("--set", "train_itrs=9"), "did you mean train_iters?"),
    ):
        done = quickstart(folder, tmp_path / output, *more)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_one_file_cannot_be_divided(source: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    shutil.copy(next(source.iterdir()), tmp_path / "source")
    done = quickstart(tmp_path / "source", tmp_path / "run")
    assert done.returncode == 2
    assert "1 top-level package(s) cannot be divided into train and heldout" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["source.json"]
