from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.folders import lock_folder
from megatron.neox.corpus.stages.running import Step, run_stage
from megatron.neox.corpus.stages.shards import (
    escape_path,
    find_shards,
    read_shard,
    shard_name,
    unescape_path,
)
from megatron.neox.corpus.stages.stage import Phase, Stage
from megatron.neox.errors import InputError, OutputError, ResourceError
from tests.unit.corpus.stages.doubling import Numbers, contents, row


def fails(number: int) -> None:
    raise InputError(f"nothing to read in task {number}")


def note_process(folder: Path) -> None:
    (folder / str(os.getpid())).touch()


def waits_for_two(folder: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < deadline, number
        time.sleep(0.01)


def test_workers_that_prepare_start_with_the_first_phase(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    phases = [Phase("list", 1, partial(waits_for_two, seen)), Phase("work", 3, partial(waits_for_two, seen))]
    run_stage(Stage("s", tmp_path / "out", {}, phases, prepare=partial(note_process, seen)), workers=2)
    started = {int(path.name) for path in seen.iterdir()}
    assert len(started) == 2
    assert os.getpid() not in started


def note_begin(folder: Path, number: int) -> None:
    (folder / str(number)).write_text(str(time.monotonic_ns()))
    time.sleep(0.05)


def tenfold(number: int) -> int:
    return 10 * number


def test_the_longest_tasks_begin_first(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    phase = Phase("work", 8, partial(note_begin, begun), tenfold)
    run_stage(Stage("s", tmp_path / "out", {}, [phase]), workers=2)
    order = sorted(range(8), key=lambda number: int((begun / str(number)).read_text()))
    assert {*order[:2]} == {6, 7}
    assert {*order[-2:]} == {0, 1}


def test_what_cannot_be_prepared_is_told_by_the_task(tmp_path: Path) -> None:
    stage = Stage("s", tmp_path / "out", {}, [Phase("work", 2, fails)], prepare=partial(fails, 99))
    with pytest.raises(InputError, match=r"nothing to read in task [01]"):
        run_stage(stage, workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stage_runs_its_phases_and_counts(tmp_path: Path, workers: int) -> None:
    steps: list[Step] = []
    summary = run_stage(Numbers(tmp_path / "out").stage(), workers=workers, report=steps.append)
    assert [(step.phase, step.num_done, step.num_tasks) for step in steps] == [
        (phase, number, 10) for phase in ("double", "write") for number in range(1, 11)
    ]
    assert summary["numbers"] == {"tokens": 45}
    assert summary["kept"] == {"Python": {"num_files": 10, "num_bytes": 90}}
    assert summary["left_out"] == {"odd": {"Python": {"num_files": 5, "num_bytes": 5}}}
    assert summary["files"] == 10
    assert [next(read_shard(shard)) for shard in find_shards(tmp_path / "out")] == [
        row(2 * number) for number in range(10)
    ]
    assert sorted(contents(tmp_path / "out")) == [*map(shard_name, range(10)), "summary.json"]


def test_a_killed_stage_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    run_stage(Numbers(tmp_path / "straight").stage())
    with pytest.raises(ResourceError, match=r"one of 2 workers died.*--resume"):
        run_stage(Numbers(tmp_path / "killed", dies_at=6).stage(), workers=2)
    with pytest.raises(InputError, match="not finished"):
        find_shards(tmp_path / "killed")
    with pytest.raises(OutputError, match="holds a run that was not finished; --resume"):
        run_stage(Numbers(tmp_path / "killed").stage())
    with pytest.raises(OutputError, match="other settings: seed was 1 and is 2"):
        run_stage(Numbers(tmp_path / "killed").stage(seed=2), resume=True)
    run_stage(Numbers(tmp_path / "killed").stage(), resume=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


def test_a_finished_stage_is_neither_done_again_nor_lost(tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = run_stage(Numbers(output).stage())
    with pytest.raises(OutputError, match="is there; --resume goes on with it, --overwrite"):
        run_stage(Numbers(output).stage())
    assert run_stage(Numbers(output, dies_at=0).stage(), resume=True) == summary
    (output / "shard-00099.parquet").write_bytes(b"")
    run_stage(Numbers(output).stage(seed=2), overwrite=True)
    assert not (output / "shard-00099.parquet").exists()


def test_a_stage_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    stage = Stage("broken", tmp_path / "out", {}, [Phase("fail", 1, fails)])
    with pytest.raises(InputError, match="nothing to read"):
        run_stage(stage)
    assert not (tmp_path / "out").exists()


def test_a_stage_that_fails_at_once_leaves_the_users_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    stage = Stage("broken", tmp_path / "out", {}, [Phase("fail", 1, fails)])
    with pytest.raises(InputError, match="nothing to read"):
        run_stage(stage)
    assert (tmp_path / "out").is_symlink()
    assert not list((tmp_path / "real").iterdir())


@pytest.mark.parametrize(("place", "told"), [("in", "is the input"), (".", "holds the input")])
def test_no_output_replaces_its_input(tmp_path: Path, place: str, told: str) -> None:
    run_stage(Numbers(tmp_path / "in").stage())
    before = contents(tmp_path / "in")
    (tmp_path / "summary.json").write_text("{}")
    stage = Stage("same", tmp_path / place, {}, [Phase("fail", 1, fails)], inputs=[tmp_path / "in"])
    with pytest.raises(OutputError, match=told):
        run_stage(stage, overwrite=True)
    assert contents(tmp_path / "in") == before


def test_other_peoples_folders_and_running_ones_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="no stage wrote"):
        run_stage(Numbers(tmp_path / "mine").stage(), overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    (tmp_path / "out").mkdir()
    with lock_folder(tmp_path / "out"), pytest.raises(OutputError, match="another run is writing"):
        run_stage(Numbers(tmp_path / "out").stage())


def test_importing_a_stage_needs_no_torch() -> None:
    code = "import megatron.neox.corpus.stages.options, sys; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


@pytest.mark.parametrize(
    "path", [b"a/b.py", b"bad\xff.py", b"new\nline.py", b"tab\tname.py", "日本.py".encode(), b"back\\x41.py"]
)
def test_any_path_becomes_one_line_and_comes_back(path: bytes) -> None:
    text = escape_path(path)
    assert text.isprintable()
    assert unescape_path(text) == path


def test_counts_add_up_and_come_back() -> None:
    first, second = Counts(), Counts()
    first.keep("C", 10)
    second.keep("C", 5)
    second.leave_out("empty", "Go")
    second.leave_out("too_big", "C", 2_000_000)
    second.leave_out("too_big", "Go", 1_000_000)
    first.merge(Counts.from_json(json.loads(json.dumps(second.to_json()))))
    assert first.lines() == (
        "kept: 2 files, 0.00 MB\nleft out, too_big: 2 files, 3.00 MB\nleft out, empty: 1 files, 0.00 MB\n"
    )
