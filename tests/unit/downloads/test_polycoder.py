"""The table of released files, and the places that unpacked ones take."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from megatron.neox.downloads.polycoder import NAMES, RELEASES, VOCABULARY_FILES, next_command, release_named
from megatron.neox.downloads.unpacked import root_of, settle
from megatron.neox.errors import InputError, OutputError


def test_the_released_names() -> None:
    assert NAMES == ("2-7B-150K", "2-7B-100K", "0-4B-150K", "0-4B-100K", "160M-150K", "vocab")
    assert {name: (one.num_layers, one.step_folder) for name, one in RELEASES.items()} == {
        "2-7B-150K": (32, "global_step150000"),
        "2-7B-100K": (32, "global_step100000"),
        "0-4B-150K": (24, "global_step150000"),
        "0-4B-100K": (24, "global_step100000"),
        "160M-150K": (12, "global_step150000"),
    }
    with pytest.raises(
        InputError, match=r"2-7B-150; did you mean 2-7B-150K\?\n  known: 2-7B-150K, .*, vocab"
    ):
        release_named("2-7B-150")


def test_the_files_of_a_step(tmp_path: Path) -> None:
    release = RELEASES["2-7B-150K"]
    numbers = sorted(int(name[6:8]) for name in release.weight_files)
    assert numbers == [0, *range(2, 34), 35, 36]
    assert release.difference(tmp_path) == (
        "35 of its files are absent or empty (layer_00-model_00-model_states.pt first)"
    )
    weights = tmp_path / "global_step150000"
    weights.mkdir()
    for name in release.weight_files:
        (weights / name).write_bytes(b"x")
    assert release.difference(tmp_path) is None
    assert RELEASES["160M-150K"].difference(tmp_path) == (
        "it has 20 files more (layer_14-model_00-model_states.pt first)"
    )
    (weights / "layer_07-model_00-model_states.pt").write_bytes(b"")
    assert release.difference(tmp_path) == (
        "1 of its files are absent or empty (layer_07-model_00-model_states.pt first)"
    )


def test_the_pinned_vocabulary_is_the_one_at_hand(polycoder: Path) -> None:
    for name, (size, checksum) in VOCABULARY_FILES.items():
        content = (polycoder / name).read_bytes()
        assert (len(content), f"sha256:{sha256(content).hexdigest()}") == (size, checksum)


def place(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_files_settle_beside_what_is_there(tmp_path: Path) -> None:
    unpacked = place(
        tmp_path / "new", "x/y/global_step3/a", "x/y/configs/a.yml", "x/y/configs/b.yml", "x/y/latest"
    )
    assert root_of(unpacked) == unpacked / "x" / "y"
    output = place(tmp_path / "out", "configs/a.yml", "latest")
    (output / "configs" / "a.yml").write_text("mine")
    settle(unpacked, output)
    assert (output / "configs" / "a.yml").read_text() == "mine"
    assert (output / "configs" / "b.yml").read_text() == "x/y/configs/b.yml"
    assert (output / "latest").read_text() == "latest"
    assert (output / "global_step3" / "a").is_file()
    assert not unpacked.exists()


def test_a_step_is_never_replaced_nor_mixed(tmp_path: Path) -> None:
    unpacked = place(tmp_path / "new", "global_step3/a", "latest")
    output = place(tmp_path / "out", "global_step3/b")
    with pytest.raises(OutputError, match="global_step3 is there already"):
        settle(unpacked, output)
    assert [path.name for path in (output / "global_step3").iterdir()] == ["b"]
    assert (unpacked / "global_step3" / "a").is_file()
    assert not (output / "latest").exists()


def test_an_archive_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no folder global_stepN; it holds a, b"):
        root_of(place(tmp_path, "a/c", "b/c"))


def test_the_next_command_names_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert next_command(Path("small")).endswith("text_generation.yml YOUR_CONFIG --set load=small")
    place(Path("checkpoints"), "configs/local_setup.yml", "configs/2-7B.yml", "configs/text_generation.yml")
    assert next_command(Path("checkpoints")) == (
        "next: ./deepy.py generate.py configs/text_generation.yml checkpoints/configs/local_setup.yml "
        "checkpoints/configs/2-7B.yml"
    )
