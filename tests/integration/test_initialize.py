"""`tools/initialize.py` as a user runs it, and the doors on what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.training_case import ROOT, environment, metrics, train, write_config, write_dataset

pytestmark = pytest.mark.slow


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment(), timeout=300,
        check=False,
    )  # fmt: skip


@pytest.mark.long
def test_initialize_then_train_and_generate(tmp_path: Path) -> None:
    config, initial = write_config(tmp_path / "tiny.yml"), tmp_path / "initial"
    done = run("tools/initialize.py", str(config), "--output", str(initial), "--set", "seed=7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"wrote {initial}/global_step0: untrained model, seed 7, fp32"

    data = write_dataset(tmp_path / "code_text_document")
    keys = {"data_path": data, "load": str(initial), "finetune": True, "save": str(tmp_path / "run")}
    trained = train(write_config(tmp_path / "train.yml", seed=7, train_iters=1, eval_interval=0, **keys))
    assert trained.returncode == 0, trained.stderr
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1]

    output = tmp_path / "samples.jsonl"
    settings = ["--set", f"load={initial}", "--set", "maximum_tokens=4", "-o", str(output)]
    generated = run("deepy.py", "generate.py", str(initial / "global_step0/configs/config.yml"), *settings)
    assert generated.returncode == 0, generated.stderr
    assert json.loads(output.read_text().splitlines()[0])["length"] == 4
