"""tools/preprocess_data.py over shards on Ray and as Slurm jobs: the dataset that processes of this machine write."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.shards import SourceFile, new_shard, shard_name
from tests.unit.corpus.stages.test_executors import ROOT, SBATCH, SRUN

pytestmark = pytest.mark.slow


def _shards(folder: Path) -> Path:
    folder.mkdir()
    for number in range(2):
        with new_shard(folder / shard_name(number)) as shard:
            for file in range(20):
                text = f"def f_{number}_{file}(x):\n    return x + {file}\n"
                digest = hashlib.sha256(text.encode()).hexdigest()
                shard.write(
                    SourceFile(
                        "org/project",
                        "Python",
                        f"{number}/{file}.py",
                        digest,
                        len(text),
                        1,
                        [],
                        None,
                        False,
                        text,
                    )
                )
    (folder / "summary.json").write_text("{}")
    return folder


def _tokenize(shards: Path, prefix: Path, polycoder: Path, *arguments: str) -> str:
    command = [
        sys.executable, str(ROOT / "tools" / "preprocess_data.py"), f"--input={shards}", f"--output-prefix={prefix}",
        "--tokenizer-type=GPT2BPETokenizer", f"--vocab-file={polycoder}/code-vocab.json",
        f"--merge-file={polycoder}/code-merges.txt", "--append-eod", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _dataset(prefix: Path) -> list[bytes]:
    return [Path(f"{prefix}_text_document.{ending}").read_bytes() for ending in ("bin", "idx", "json")]


def test_ray_gives_the_dataset_of_this_machine(polycoder: Path, tmp_path: Path) -> None:
    shards = _shards(tmp_path / "shards")
    _tokenize(shards, tmp_path / "here", polycoder)
    _tokenize(shards, tmp_path / "ray", polycoder, "--executor=ray", "--tasks=2", "--workers=2")
    assert _dataset(tmp_path / "ray") == _dataset(tmp_path / "here")


def test_slurm_gives_the_dataset_of_this_machine(
    polycoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = _shards(tmp_path / "shards")
    _tokenize(shards, tmp_path / "here", polycoder)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("sbatch", SBATCH.format(python=sys.executable)), ("srun", SRUN), ("scontrol", "#!/bin/sh\necho here\n"),
    ):  # fmt: skip
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("SUBMITTED", str(tmp_path / "submitted"))
    told = _tokenize(
        shards, tmp_path / "slurm", polycoder, "--executor=slurm", "--slurm-partition=cpu", "--tasks=2"
    )
    assert "slurm_text_document: job " in told
    assert _dataset(tmp_path / "slurm") == _dataset(tmp_path / "here")
    _tokenize(shards, tmp_path / "slurm", polycoder, "--resume")
    assert not (tmp_path / "slurm_text_document.parts").exists()
