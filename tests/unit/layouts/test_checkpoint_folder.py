"""Which checkpoint is taken, and which are thrown away."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import torch

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.checkpoint_folder import (
    clear_leftovers,
    find_checkpoint,
    prune_checkpoints,
    publish,
)
from megatron.neox.layouts.manifest import FileRecord, Manifest

LAYER = "layer_00-model_00-model_states.pt"


def make(folder: Path, step: int, *, latest: bool = False, manifest: bool = True) -> Path:
    """A checkpoint of one small file."""
    checkpoint = folder / f"global_step{step}"
    checkpoint.mkdir(parents=True)
    torch.save({"word_embeddings.weight": torch.full((2, 2), float(step))}, checkpoint / LAYER)
    content = (checkpoint / LAYER).read_bytes()
    record = FileRecord(len(content), hashlib.sha256(content).hexdigest())
    if manifest:
        Manifest(
            step=step,
            architecture={},
            precision="fp32",
            tensor_size=1,
            optimizer=None,
            loss_scaler={},
            tokenizer={},
            plugins=[],
            layout={},
            state={},
            files={LAYER: record},
        ).write(checkpoint)
    if latest:
        (folder / "latest").write_text(f"global_step{step}\n")
    return checkpoint


def test_latest_is_taken_even_where_a_newer_one_stands(tmp_path: Path) -> None:
    make(tmp_path, 10, latest=True)
    make(tmp_path, 20)
    assert find_checkpoint(tmp_path, strict=True) == tmp_path / "global_step10"


def test_without_latest_the_newest_is_taken_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, 9)
    make(tmp_path, 100)
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path, strict=True) == tmp_path / "global_step100"
    assert "latest is missing" in caplog.text
    assert "global_step100" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "gone"])
def test_a_damaged_one_gives_way_to_the_newest_intact(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, 10)
    file = make(tmp_path, 20, latest=True) / LAYER
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-100])
    elif damage == "changed":
        file.write_bytes(content[:-1] + b"?")
    elif damage == "missing":
        file.unlink()
    else:
        file.unlink()
        (tmp_path / "global_step20" / "manifest.json").unlink()
    assert find_checkpoint(tmp_path, strict=False) == tmp_path / "global_step10"
    assert "global_step20" in caplog.text


def test_a_folder_without_an_intact_checkpoint_is_an_error_even_for_training(tmp_path: Path) -> None:
    (make(tmp_path, 10, latest=True) / LAYER).unlink()
    with pytest.raises(CheckpointError, match="holds no intact checkpoint") as caught:
        find_checkpoint(tmp_path, strict=False)
    assert f"global_step10: {LAYER} is missing" in str(caught.value)


def test_a_latest_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("global_step7")
    with pytest.raises(CheckpointError, match="names global_step7, which is missing"):
        find_checkpoint(tmp_path, strict=False)


def test_an_absent_or_empty_folder_is_a_fresh_start_for_training_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").touch()
    (tmp_path / "empty" / "global_step5.tmp").mkdir()  # what a kill leaves behind
    for name in ("absent", "empty"):
        assert find_checkpoint(tmp_path / name, strict=False) is None
        with pytest.raises(CheckpointError, match=f"{name}"):
            find_checkpoint(tmp_path / name, strict=True)


def test_a_step_can_be_asked_for(tmp_path: Path) -> None:
    make(tmp_path, 10, latest=True)
    make(tmp_path, 20)
    assert find_checkpoint(tmp_path, iteration=20, strict=True) == tmp_path / "global_step20"
    with pytest.raises(CheckpointError, match="holds no step 15; it holds 20, 10"):
        find_checkpoint(tmp_path, iteration=15, strict=True)


def test_a_step_folder_itself_is_taken(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 10)
    assert find_checkpoint(checkpoint, strict=True) == checkpoint


def test_a_folder_of_gpt_neox_has_no_manifest(tmp_path: Path) -> None:
    make(tmp_path, 150000, latest=True, manifest=False)
    assert find_checkpoint(tmp_path, strict=True) == tmp_path / "global_step150000"


def test_pruning_keeps_the_newest_and_what_latest_names(tmp_path: Path) -> None:
    for step in (5, 10, 20, 100):
        make(tmp_path, step)
    (tmp_path / "latest").write_text("global_step5\n")
    removed = prune_checkpoints(tmp_path, 2)
    assert [path.name for path in removed] == ["global_step10"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "global_step100",
        "global_step20",
        "global_step5",
        "latest",
    ]


def test_publishing_replaces_a_checkpoint_of_the_same_step(tmp_path: Path) -> None:
    make(tmp_path, 10)
    temporary = tmp_path / "global_step10.tmp"
    temporary.mkdir()
    (temporary / "new").touch()
    publish(temporary, tmp_path / "global_step10")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["global_step10", "latest"]
    assert (tmp_path / "global_step10" / "new").exists()
    assert (tmp_path / "latest").read_text() == "global_step10\n"


def test_leftovers_go_and_a_checkpoint_set_aside_comes_back(tmp_path: Path) -> None:
    make(tmp_path, 5)
    make(tmp_path, 10).rename(tmp_path / "global_step10.replaced")
    for name in ("global_step10.tmp", "global_step5.replaced", "global_step1.removed", "plots"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    clear_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["global_step10", "global_step5", "plots"]
    assert (tmp_path / "global_step10" / LAYER).exists()
