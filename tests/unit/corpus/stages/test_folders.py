from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.folders import appearing_whole, lock_folder, put_back
from megatron.neox.data.pretokenize_folder import METADATA_NAME, folder_in_making
from megatron.neox.errors import OutputError
from tests.unit.corpus.killing import Run, contents, is_killed_before

OLD = {Path(METADATA_NAME): b"old", Path("dump-0.npy"): b"old", Path("below/mine"): b"old"}


def old(output: Path) -> None:
    for name, data in OLD.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(data)


def replaced_whole(folder: Path) -> None:
    output = folder / "out"
    with appearing_whole(output, overwrite=True, marker=METADATA_NAME) as new:
        (new / METADATA_NAME).write_bytes(b"new")


def replaced_in_pieces(folder: Path) -> None:
    output = folder / "out"
    with folder_in_making(output, "settings", resume=False, overwrite=True) as making:
        assert making is not None
        (making.staging / METADATA_NAME).write_bytes(b"new")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("run", [replaced_whole, replaced_in_pieces])
def test_a_kill_at_any_operation_leaves_the_old_folder_or_the_new(run: Run, tmp_path: Path) -> None:
    new, seen = {Path(METADATA_NAME): b"new"}, set[bool]()
    for instant in count():
        folder = tmp_path / f"killed{instant}"
        old(folder / "out")
        is_killed = is_killed_before(instant, run, folder)
        put_back(folder / "out")
        found = contents(folder / "out")
        found.pop(Path(".journal.jsonl"), None)
        assert found in (OLD, new), instant
        assert not [path for path in folder.iterdir() if path.name not in ("out", ".out.partial")]
        seen.add(found == OLD)
        if not is_killed:
            break
    assert seen == {True, False}


def test_a_folder_that_another_run_sets_aside_is_not_put_back(tmp_path: Path) -> None:
    old(tmp_path / ".out.replaced")
    with lock_folder(tmp_path / ".out.replaced"), pytest.raises(OutputError, match="another run is writing"):
        put_back(tmp_path / "out")
    put_back(tmp_path / "out")
    assert contents(tmp_path / "out") == OLD


def test_a_link_is_replaced_and_what_it_leads_to_is_not(tmp_path: Path) -> None:
    old(tmp_path / "elsewhere")
    (tmp_path / "out").symlink_to("elsewhere")
    replaced_whole(tmp_path)
    assert contents(tmp_path / "out") == {Path(METADATA_NAME): b"new"}
    assert contents(tmp_path / "elsewhere") == OLD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"]
