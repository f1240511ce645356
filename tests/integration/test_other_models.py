"""evaluate.py on somebody else's model: one command as users start it, and what it does on one rank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.config import Config
from megatron.neox.errors import InputError
from megatron.neox.evaluation.run import run
from tests.forked_ranks import run_ranks
from tests.huggingface_folders import NUM_POSITIONS, save_model

ROOT = Path(__file__).resolve().parents[2]
KEYS: dict[str, Any] = {"precision": "fp32", "eval_tasks": ["code_python"], "eval_data_path": "code"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model without a config file, and three files; it is the working folder."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", "gpt_neox")
    (tmp_path / "code" / "Python").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "code" / "Python" / f"{number}.py").write_text("import os\n" * (number + 1) * 9)
    return tmp_path


def test_two_ranks_share_the_files_of_a_model_without_a_config(folder: Path) -> None:
    """Data parallel copies; what was measured stands in the results. No config file, no load, no vocabulary."""
    model = {"type": "hf", "path": "model"}
    keys = {**KEYS, "evaluated_model": model, "eval_results_path": "2.json", "num_gpus": 2}
    given = [part for key, value in keys.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), "evaluate.py", *given],
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| Python " in done.stdout
    alone = Config.from_flat({**KEYS, "evaluated_model": model, "eval_results_path": "1.json"})
    assert run_ranks(1, run, alone) == [0]
    found = [json.loads((folder / f"{ranks}.json").read_text()) for ranks in (1, 2)]
    one, two = (side["results"]["code_python"] for side in found)
    assert two.pop("num_files_seen_in_training") is one.pop("num_files_seen_in_training") is None
    assert two == pytest.approx(one, rel=1e-6)
    told = found[1]["config"]
    assert (told["model"], told["path"], told["precision"]) == ("hf", "model", "fp32")
    assert (told["class"], told["max_positions"]) == ("GPTNeoXForCausalLM", NUM_POSITIONS)


def test_an_absent_model_is_one_message(folder: Path) -> None:
    config = Config.from_flat({**KEYS, "evaluated_model": {"type": "hf", "path": "./absent"}})
    with pytest.raises(
        InputError, match=r"evaluated_model: \./absent is no folder here and no name on the hub"
    ):
        run(config)
