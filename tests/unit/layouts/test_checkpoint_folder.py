"""Which checkpoint is taken, and which are thrown away."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.checkpoint_folder import (
    clear_leftovers,
    damaged_steps,
    find_checkpoint,
    prune_checkpoints,
    publish,
)
from megatron.neox.layouts.manifest import FileRecord, Manifest

LAYER = "layer_00-model_00-model_states.pt"


def make(
    folder: Path, step: int, *, latest: bool = False, manifest: bool = True, other: Sequence[str] = ()
) -> Path:
    """A checkpoint of one small file, and `other` empty ones."""
    checkpoint = folder / f"global_step{step}"
    checkpoint.mkdir(parents=True)
    torch.save({"word_embeddings.weight": torch.full((2, 2), float(step))}, checkpoint / LAYER)
    content = (checkpoint / LAYER).read_bytes()
    record = FileRecord(len(content), hashlib.sha256(content).hexdigest())
    for name in other:
        (checkpoint / name).touch()
    nothing = FileRecord(0, hashlib.sha256().hexdigest())
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
            files={LAYER: record, **dict.fromkeys(other, nothing)},
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


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def remove_with_manifest(file: Path) -> None:
    file.unlink()
    (file.parent / "manifest.json").unlink()


def add_a_rank(file: Path) -> None:
    shutil.copy(file, file.with_name("layer_00-model_01-model_states.pt"))


DAMAGE = [
    (cut, f"{LAYER} has "),
    (flip_a_bit, f"{LAYER} has other content than was written"),
    (Path.unlink, f"{LAYER} is missing"),
    (remove_with_manifest, "it holds no layer files"),
    (
        lambda file: (file.parent / "manifest.json").unlink(),
        "manifest.json is missing, which is written last",
    ),
    (lambda file: cut(file.parent / "manifest.json"), "manifest.json is damaged"),
    (add_a_rank, "layer_00-model_01-model_states.pt was not written with it"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_one_is_named_and_the_newest_intact_one_offered(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    make(tmp_path, 5)
    make(tmp_path, 10)
    damage(make(tmp_path, 20, latest=True) / LAYER)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(tmp_path, strict=False)
    assert f"{tmp_path / 'global_step20'} is damaged: " in str(caught.value)
    assert message in str(caught.value)
    assert str(caught.value).endswith(
        "the newest intact checkpoint is global_step10: give --iteration 10 to load it; with load_fallback: true "
        "it is taken by itself"
    )
    assert find_checkpoint(tmp_path, iteration=10, strict=True) == tmp_path / "global_step10"


def test_the_newest_intact_one_is_taken_by_itself_when_that_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, 5)
    make(tmp_path, 10)
    cut(make(tmp_path, 20, latest=True) / LAYER)
    cut(make(tmp_path, 30) / LAYER)
    assert find_checkpoint(tmp_path, strict=False, fallback=True) == tmp_path / "global_step10"
    assert len(caplog.records) == 1
    assert f"{tmp_path / 'global_step20'} is damaged" in caplog.text
    assert f"load_fallback: taking the newest intact checkpoint, {tmp_path / 'global_step10'}" in caplog.text


def test_a_step_that_was_asked_for_has_no_substitute(tmp_path: Path) -> None:
    make(tmp_path, 10)
    cut(make(tmp_path, 20, latest=True) / LAYER)
    with pytest.raises(
        CheckpointError, match=r"global_step20 is damaged.*\n.*give --iteration 10 to load it$"
    ):
        find_checkpoint(tmp_path, iteration=20, strict=True, fallback=True)


def test_without_latest_a_damaged_newest_one_is_not_passed_over(tmp_path: Path) -> None:
    make(tmp_path, 10)
    cut(make(tmp_path, 20) / LAYER)
    with pytest.raises(CheckpointError, match="give --iteration 10"):
        find_checkpoint(tmp_path, strict=True)


@pytest.mark.parametrize("fallback", [False, True])
def test_a_folder_without_an_intact_checkpoint_is_an_error_even_for_training(
    tmp_path: Path, fallback: bool
) -> None:
    (make(tmp_path, 10, latest=True) / LAYER).unlink()
    with pytest.raises(CheckpointError, match="holds no intact checkpoint") as caught:
        find_checkpoint(tmp_path, strict=False, fallback=fallback)
    assert f"global_step10 is damaged: {LAYER} is missing" in str(caught.value)


def test_a_latest_that_names_what_is_gone_is_told_with_what_is_there(tmp_path: Path) -> None:
    make(tmp_path, 10)
    (tmp_path / "latest").write_text("global_step20\n")
    with pytest.raises(CheckpointError, match="names global_step20, which is missing") as caught:
        find_checkpoint(tmp_path, strict=False)
    assert "give --iteration 10" in str(caught.value)
    assert find_checkpoint(tmp_path, strict=False, fallback=True) == tmp_path / "global_step10"


def test_damage_to_optimizer_state_matters_to_training_only(tmp_path: Path) -> None:
    state = "layer_00-model_00-optim_states.pt"
    checkpoint = make(tmp_path, 10, latest=True, other=[state])
    (checkpoint / state).unlink()
    assert find_checkpoint(tmp_path, strict=True, weights_only=True) == checkpoint
    with pytest.raises(CheckpointError, match=f"{state} is missing"):
        find_checkpoint(tmp_path, strict=True)


def test_damaged_steps_are_listed(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        make(tmp_path, step)
    for step in (10, 30):
        cut(tmp_path / f"global_step{step}" / LAYER)
    assert damaged_steps(tmp_path, after=10) == [30]
    assert damaged_steps(tmp_path / "absent", after=0) == []


def test_a_latest_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("global_step7")
    with pytest.raises(CheckpointError, match="names global_step7, which is missing"):
        find_checkpoint(tmp_path, strict=False)


@pytest.mark.parametrize("named", ["../../elsewhere", "../other/global_step10", "/etc", "\udcff", ""])
def test_a_latest_that_leads_elsewhere_is_not_followed(tmp_path: Path, named: str) -> None:
    folder = tmp_path / "run"
    make(folder, 10)
    make(tmp_path / "other", 10)
    (folder / "latest").write_text(named, errors="surrogateescape")
    shown = {"\udcff": "what cannot be read", "": "nothing"}.get(named, named)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(folder, strict=False)
    assert str(caught.value).startswith(f"{folder / 'latest'} names {shown}, which is missing\n")
    assert "give --iteration 10 to load it" in str(caught.value)


def test_a_folder_in_place_of_latest_is_one_message(tmp_path: Path) -> None:
    make(tmp_path, 10)
    (tmp_path / "latest").mkdir()
    with pytest.raises(CheckpointError, match="latest names what cannot be read, which is missing"):
        find_checkpoint(tmp_path, strict=False)


def test_an_absent_or_empty_folder_is_a_fresh_start_for_training_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").touch()
    (tmp_path / "empty" / "global_step5.tmp").mkdir()  # what a kill leaves behind
    for name in ("absent", "empty"):
        assert find_checkpoint(tmp_path / name, strict=False) is None
        with pytest.raises(CheckpointError, match=f"{name}"):
            find_checkpoint(tmp_path / name, strict=True)
    with pytest.raises(CheckpointError, match=r"\(global_step5.tmp was not written to its end\)"):
        find_checkpoint(tmp_path / "empty", strict=True)


def test_a_step_can_be_asked_for(tmp_path: Path) -> None:
    make(tmp_path, 10, latest=True)
    make(tmp_path, 20)
    assert find_checkpoint(tmp_path, iteration=20, strict=True) == tmp_path / "global_step20"
    for strict in (False, True):
        with pytest.raises(CheckpointError, match="holds no step 15; it holds 20, 10"):
            find_checkpoint(tmp_path, iteration=15, strict=strict)
        with pytest.raises(CheckpointError, match="holds no step 15; it holds none"):
            find_checkpoint(tmp_path / "absent", iteration=15, strict=strict)


def test_a_step_folder_itself_is_taken(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 10)
    assert find_checkpoint(checkpoint, strict=True) == checkpoint


def test_a_damaged_step_folder_itself_is_named_with_the_newest_intact_one_beside_it(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        make(tmp_path, step)
    for step in (20, 30):
        flip_a_bit(tmp_path / f"global_step{step}" / LAYER)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(tmp_path / "global_step30", strict=True, fallback=True)
    assert str(caught.value).startswith(f"{tmp_path / 'global_step30'} is damaged: {LAYER} has other content")
    assert f"beside it is global_step10: give load: {tmp_path / 'global_step10'}" in str(caught.value)
    flip_a_bit(tmp_path / "global_step10" / LAYER)
    with pytest.raises(CheckpointError, match="none beside it is intact; give another load folder"):
        find_checkpoint(tmp_path / "global_step30", strict=True)


def test_a_step_folder_without_the_manifest_that_those_beside_it_have_is_damaged(tmp_path: Path) -> None:
    make(tmp_path, 10)
    (make(tmp_path, 20) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"global_step20 is damaged: manifest\.json is missing"):
        find_checkpoint(tmp_path / "global_step20", strict=True)


def test_a_folder_of_gpt_neox_has_no_manifest(tmp_path: Path) -> None:
    make(tmp_path, 150000, latest=True, manifest=False)
    assert find_checkpoint(tmp_path, strict=True) == tmp_path / "global_step150000"


@pytest.mark.parametrize(
    ("latest", "keep", "removed"),
    [(100, 2, [10, 5]), (100, 1, [20, 10, 5]), (10, 1, [5]), (10, 2, []), (None, 3, [5]), (7, 3, [5])],
)
def test_pruning_keeps_the_newest_that_were_written_up_to_latest(
    tmp_path: Path, latest: int | None, keep: int, removed: list[int]
) -> None:
    """What stands behind `latest` is what a run went back from: it takes no place from what was written since."""
    for step in (5, 10, 20, 100):
        make(tmp_path, step)
    if latest is not None:
        (tmp_path / "latest").write_text(f"global_step{latest}\n")
    gone = prune_checkpoints(tmp_path, keep)
    assert [path.name for path in gone] == [f"global_step{step}" for step in removed]
    kept = {f"global_step{step}" for step in (5, 10, 20, 100) if step not in removed}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == kept


def test_what_cannot_be_removed_is_said_and_ends_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (5, 10, 20):
        make(tmp_path, step)
    (tmp_path / "global_step5.removed").touch()  # a name that a folder cannot take
    assert prune_checkpoints(tmp_path, 1) == [tmp_path / "global_step10"]
    assert f"cannot remove {tmp_path / 'global_step5'} (Not a directory)" in caplog.text
    assert (tmp_path / "global_step5").is_dir()


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


def test_a_checkpoint_one_folder_deeper_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "checkpoints-2-7B" / "global_step150000").mkdir(parents=True)
    with pytest.raises(
        CheckpointError, match=r"holds no checkpoint; give .* \(such as .*/checkpoints-2-7B\)"
    ):
        find_checkpoint(tmp_path, strict=True)
