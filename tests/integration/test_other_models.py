"""evaluate.py on somebody else's model, as users start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.huggingface_folders import NUM_POSITIONS, save_model

ROOT = Path(__file__).resolve().parents[2]


def evaluate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), "evaluate.py", *arguments, "--set", "precision=fp32"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def test_two_ranks_share_the_files_of_a_model_without_a_config(tmp_path: Path) -> None:
    """Data parallel copies; what was measured stands in the results. No config file, no load, no vocabulary."""
    save_model(tmp_path / "model", "gpt_neox")
    (tmp_path / "code" / "Python").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "code" / "Python" / f"{number}.py").write_text("import os\n" * (number + 1) * 9)
    found = []
    for ranks in (1, 2):
        done = evaluate(
            tmp_path, "--set", 'evaluated_model={"type": "hf", "path": "model"}', "--eval_tasks", "code_python",
            "--set", "eval_data_path=code", "--set", f"eval_results_path={ranks}.json", "--set", f"num_gpus={ranks}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "| Python " in done.stdout
        found.append(json.loads((tmp_path / f"{ranks}.json").read_text()))
    one, two = (side["results"]["code_python"]["log_likelihood"] for side in found)
    assert one == pytest.approx(two, rel=1e-6)
    told = found[0]["config"]
    assert (told["model"], told["path"], told["precision"]) == ("hf", "model", "fp32")
    assert (told["class"], told["max_positions"]) == ("GPTNeoXForCausalLM", NUM_POSITIONS)


def test_an_absent_model_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    done = evaluate(
        tmp_path, "--set", 'evaluated_model={"type": "hf", "path": "./absent"}', "--eval_tasks", "perplexity",
        "--set", "eval_data_path=a.py",
    )  # fmt: skip
    assert done.returncode == 2
    assert "InputError\nevaluated_model: ./absent is no folder here and no name on the hub" in done.stderr
    assert "Traceback" not in done.stderr
