"""A checkpoint's description of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.manifest import FileRecord, Manifest

MANIFEST = Manifest(
    step=3,
    architecture={"num_layers": 2},
    precision="bf16",
    tensor_size=2,
    optimizer={"name": "adam", "tensors": ["exp_avg"], "numbers": {"step": 3.0}},
    loss_scaler={},
    tokenizer={"type": "CharLevelTokenizer"},
    plugins=["part.py"],
    layout={"pipe_parallel_size": 1},
    state={"step": 3},
    # The digest of no bytes at all.
    files={"a": FileRecord(0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")},
)


def test_it_reads_back_what_was_written(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_damage_is_told_file_by_file(tmp_path: Path) -> None:
    assert MANIFEST.damage(tmp_path) == ["a is missing"]
    (tmp_path / "a").write_bytes(b"x")
    assert MANIFEST.damage(tmp_path) == ["a has 1 bytes instead of 0"]
    (tmp_path / "a").write_bytes(b"")
    assert MANIFEST.damage(tmp_path) == []


def test_a_disk_that_fails_is_damage(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/proc/self/mem")  # reading its first page is an input/output error
    assert MANIFEST.damage(tmp_path) == ["a cannot be read (Input/output error)"]
    (tmp_path / "manifest.json").symlink_to("/proc/self/mem")
    with pytest.raises(CheckpointError, match=r"manifest\.json cannot be read \(Input/output error\)"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "files": {}, "more": 1}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        Manifest.read(tmp_path)


def test_one_changed_bit_anywhere_in_a_manifest_is_damage(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    whole = (tmp_path / "manifest.json").read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"manifest\.json is (damaged|of format)"):
            Manifest.read(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 2, "files": {}}))
    with pytest.raises(CheckpointError, match="written by a newer version"):
        Manifest.read(tmp_path)
