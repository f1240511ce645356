"""What PolyCoder's users type, in a folder that holds nothing yet: configs are found, and what is absent is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.neox.downloads.polycoder import NAMES
from tests.integration.training_case import ROOT, environment


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with checkpoints-2-7B/configs/2-7B.yml, as a tar that was renamed leaves it."""
    configs = tmp_path / "checkpoints-2-7B" / "configs"
    configs.mkdir(parents=True)
    shutil.copy(ROOT / "configs" / "2-7B.yml", configs)
    return tmp_path


def deepy(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), *command.split()], cwd=cwd, env=environment(),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("files", "keys"),
    [
        ("2-7B.yml code_ppl.yml", ["eval_window: 1024", 'load: "checkpoints-2-7B"']),
        (
            "2-7B.yml humaneval_generation.yml",
            ['text_gen_type: "humaneval"', "num_samples: 100", "strip_prompt: true"],
        ),
        ("2-7B text_generation", ['text_gen_type: "interactive"', "maximum_tokens: 256", "temperature: 0.5"]),
    ],
)
def test_task_files_are_found_beside_those_of_the_checkpoint(work: Path, files: str, keys: list[str]) -> None:
    done = deepy(f"config -d checkpoints-2-7B/configs {files}", work)
    assert done.returncode == 0, done.stderr
    for key in [*keys, "parameters        2,775,208,960"]:
        assert key in done.stdout


@pytest.mark.parametrize("script", ["evaluate.py", "eval.py", "eval"])
def test_a_missing_vocabulary_names_the_command_that_fetches_it(work: Path, script: str) -> None:
    done = deepy(f"{script} -d checkpoints-2-7B/configs 2-7B.yml code_ppl.yml", work)
    assert done.returncode == 2
    assert "code_ppl.yml:" in done.stderr
    for key, name in (("vocab_file", "code-vocab.json"), ("merge_file", "code-merges.txt")):
        assert (
            f"{key}: no file data/{name}; tools/download_checkpoint.py vocab --output data fetches PolyCoder's"
        ) in done.stderr
    assert ("note: eval.py is evaluate.py here" in done.stderr) == (script != "evaluate.py")


def commands_of_the_readme() -> list[str]:
    text = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    return [command for command in re.findall(r"`([^`]+)`", text) if "CONF" not in command and " " in command]


@pytest.mark.parametrize(
    "command", [one for one in commands_of_the_readme() if one.startswith("./deepy.py")], ids=str
)
def test_the_commands_of_the_configs_readme_find_configs_that_agree(work: Path, command: str) -> None:
    shutil.copytree(work / "checkpoints-2-7B", work / "checkpoints")
    shutil.copy(ROOT / "configs" / "local_setup.yml", work / "checkpoints" / "configs")
    _, _, *files = command.split()
    done = deepy(f"config {' '.join(files)}", work)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout


def test_the_tools_of_the_configs_readme_know_the_names() -> None:
    names = [
        one.split()[1] for one in commands_of_the_readme() if one.startswith("tools/download_checkpoint.py")
    ]
    assert len(names) == 2
    assert set(names) <= set(NAMES)


def test_a_script_of_ones_own_is_not_renamed(work: Path) -> None:
    (work / "eval.py").write_text("print('mine')\n")
    done = deepy("eval.py -d checkpoints-2-7B/configs 2-7B.yml code_ppl.yml", work)
    assert "is evaluate.py here" not in done.stderr
    assert "code-vocab.json" not in done.stderr
