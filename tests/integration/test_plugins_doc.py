"""The parts that docs/plugins.md writes out, used as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.shards import SourceFile, new_shard, shard_name
from tests.integration.hub import Hub, serve
from tests.integration.training_case import ROOT, environment, write_config, write_dataset

TEXT = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
PARTS = {name: snippet for snippet in SNIPPETS for name in re.findall(r'register\("(\w+)"', snippet)}


def run(folder: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, env={**environment(), **variables},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder as a checkout, with the parts as files of their own."""
    for name in ("tools", "deepy.py", "train.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert list(PARTS) == ["squared_relu", "few_lines", "push_checkpoints"]
    for name, part in PARTS.items():
        (tmp_path / f"{name}.py").write_text(part)
    return tmp_path


def test_a_filter_is_named_and_counts(work: Path) -> None:
    (work / "shards").mkdir()
    with new_shard(work / "shards" / shard_name(0)) as shard:
        for name, lines in (("short.py", 4), ("long.py", 5)):
            text = "x = 1\n" * lines
            shard.write(SourceFile("o/p", "Python", name, "0" * 64, len(text), 1, [], None, False, text))
    words = ["--input", "shards", "--plugins", "few_lines.py", "--filters", "few_lines", "--output", "out"]
    done = run(work, "tools/collect/filter_code.py", *words, "--workers", 1)
    assert "kept: 1 files" in done.stdout
    assert "left out, few_lines: 1 files" in done.stdout


@pytest.mark.long
def test_a_hook_uploads_each_checkpoint(work: Path) -> None:
    keys = {"plugins": ["push_checkpoints.py"], "hooks": [{"type": "push_checkpoints", "repository": "me/polycoder"}],
            "data_path": write_dataset(work / "data"), "train_iters": 1, "eval_interval": 0, "save": "run"}  # fmt: skip
    write_config(work / "tiny.yml", **keys)
    with serve(Hub()) as hub:
        variables = {"HF_ENDPOINT": hub.address, "HF_TOKEN": hub.token, "HF_HOME": str(work / "home"),
                     "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip
        run(work, "deepy.py", "train.py", "tiny.yml", **variables)
        assert hub.created == ["me/polycoder"]
        assert (
            hub.pushed["model.safetensors"] == (work / "run/global_step1-hf/model.safetensors").read_bytes()
        )
