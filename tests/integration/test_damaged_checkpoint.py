"""What each door says of a damaged checkpoint, and that the remedy it gives works as it is typed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from megatron.neox.launch.verbs import parse_start
from megatron.neox.layouts.manifest import Manifest
from tests.integration.training_case import ROOT, environment, train, write_config, write_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 4 steps, checkpoints at 2 and 4."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(
        folder / "tiny.yml",
        data_path=write_dataset(folder / "code_text_document"),
        save=str(folder / "run"),
        load=str(folder / "run"),
        checkpoint_factor=2,
        allow_tokenizer_mismatch=True,
    )
    done = train(config)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def case(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged, its config without what is particular to the run."""
    shutil.copytree(trained / "run", tmp_path / "run")
    keys = json.loads((trained / "tiny.yml").read_text())
    del keys["allow_tokenizer_mismatch"]
    (tmp_path / "tiny.yml").write_text(json.dumps({**keys, "load": "run", "save": "run"}))
    return tmp_path


def door(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / name), *arguments],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


ARGUMENTS = {
    "train.py": [],
    "generate.py": ["--set", "maximum_tokens=2", "--set", "sample_output_file=out.jsonl"],
}


@pytest.mark.long
@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_iteration_that_a_door_offers_can_be_typed(case: Path, name: str) -> None:
    file = case / "run" / "global_step4" / "layer_02-model_00-model_states.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    refused = door(case, name, "tiny.yml", *ARGUMENTS[name])
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    assert refused.stderr.count(f"run/global_step4 is damaged: {file.name} has other content") == 1
    offered = re.search(r"give (--iteration \d+) to load it", refused.stderr)
    assert offered is not None, refused.stderr
    assert offered[1] == "--iteration 2"
    done = door(case, name, "tiny.yml", *ARGUMENTS[name], *offered[1].split())
    assert done.returncode == 0, done.stderr
    assert "run/global_step2" in done.stderr


@pytest.mark.parametrize("name", ["train.py", "generate.py", "evaluate.py"])
def test_every_door_takes_an_iteration(name: str) -> None:
    assert parse_start([name, "tiny.yml", "--iteration", "2"]).overrides == ["iteration=2"]


def test_a_tokenizer_that_training_allowed_is_not_allowed_to_generate(case: Path) -> None:
    checkpoint = case / "run" / "global_step4"
    other = {"type": "OtherTokenizer", "vocab_size": 512}
    replace(Manifest.read(checkpoint), tokenizer=other).write(checkpoint)
    done = door(case, "generate.py", "--set", "load=run", *ARGUMENTS["generate.py"])
    assert done.returncode == 2
    assert "the model's config is taken from run/global_step4/configs/config.yml" in done.stderr
    assert "type: OtherTokenizer then, CharLevelTokenizer now" in done.stderr
    assert not (case / "out.jsonl").exists()
    allowed = ["--set", "allow_tokenizer_mismatch=true"]
    done = door(case, "generate.py", "--set", "load=run", *ARGUMENTS["generate.py"], *allowed)
    assert done.returncode == 0, done.stderr
    assert "allow_tokenizer_mismatch: going on with it" in done.stderr
