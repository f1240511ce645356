from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from megatron.neox.corpus.filters.stage import choose, filter_stage, read_options
from megatron.neox.corpus.stages.shards import SourceFile, find_shards, new_shard, read_shard, shard_name
from megatron.neox.corpus.stages.stage import run_stage
from megatron.neox.errors import InputError, OutputError, UserError
from megatron.neox.reports.funnel import FunnelStep, draw_funnel, steps_of

CHOSEN = {"empty": {}, "long_line": {"max_characters": 40}, "license": {}}


def row(number: int, content: str, language: str = "Python", **more: object) -> SourceFile:
    size = len(content.encode()) + 3  # of a byte order mark, say: sizes are those of the file
    file = SourceFile(
        "o/p", language, f"{number}.py", f"{number:064}", size, 7, ["MIT"], None, False, content
    )
    return file._replace(**more)


def write(folder: Path, *shards: list[SourceFile]) -> Path:
    folder.mkdir(parents=True)
    for number, rows in enumerate(shards):
        with new_shard(folder / shard_name(number)) as shard:
            for file in rows:
                shard.write(file)
    return folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write(
        tmp_path / "in",
        [row(0, "a = 1\n"), row(1, ""), row(2, "x" * 41), row(3, "b\n", licenses=["GPL-3.0-only"])],
        [row(4, "", "C")],
        [row(5, "c = 'é'\n", "C")],
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_files_are_kept_as_they_are_or_counted_under_a_reason(
    shards: Path, tmp_path: Path, workers: int
) -> None:
    summary = run_stage(filter_stage(shards, tmp_path / "out", CHOSEN), workers=workers)
    assert summary["kept"] == {
        "C": {"num_files": 1, "num_bytes": 12},
        "Python": {"num_files": 1, "num_bytes": 9},
    }
    assert {reason: sorted(languages) for reason, languages in summary["left_out"].items()} == {
        "empty": ["C", "Python"],
        "license": ["Python"],
        "long_line": ["Python"],
    }
    assert summary["settings"]["filters"] == CHOSEN
    kept = [list(read_shard(shard)) for shard in find_shards(tmp_path / "out")]
    assert kept == [[row(0, "a = 1\n")], [], [row(5, "c = 'é'\n", "C")]]


def test_a_filter_must_exist_and_know_its_options(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no filter is chosen"):
        filter_stage(shards, tmp_path / "out", {})
    with pytest.raises(UserError, match="has no option max_character; did you mean max_characters"):
        filter_stage(shards, tmp_path / "out", {"long_line": {"max_character": 1}})
    with pytest.raises(InputError, match="is not a folder of shards"):
        filter_stage(tmp_path / "none", tmp_path / "out", CHOSEN)
    assert not (tmp_path / "out").exists()


def test_options_stand_over_those_of_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "filters.yml"
    path.write_text("long_line: {max_characters: 5}\nvendored:\n")
    assert choose({"empty": {}, "long_line": {"max_characters": 9}}, ["xml"], read_options(path)) == {
        "empty": {},
        "long_line": {"max_characters": 5},
        "xml": {},
        "vendored": {},
    }
    path.write_text("- long_line\n")
    with pytest.raises(InputError, match=r"filters\.yml: give filters and their options"):
        read_options(path)


def test_the_funnel_goes_through_all_stages(shards: Path, tmp_path: Path) -> None:
    first = run_stage(filter_stage(shards, tmp_path / "a", {"empty": {}}))
    second = run_stage(filter_stage(tmp_path / "a", tmp_path / "b", {"long_line": {"max_characters": 40}}))
    steps = steps_of([first, second])
    assert steps == [
        FunnelStep("found", 6, 76),
        FunnelStep("filter: empty", 4, 70),
        FunnelStep("filter: long_line", 3, 26),
    ]
    draw_funnel(steps, tmp_path / "funnel.png")
    assert (tmp_path / "funnel.png").read_bytes().startswith(b"\x89PNG")
    draw_funnel([], tmp_path / "empty.png")


def test_a_shard_that_goes_missing_is_told_and_shifts_no_other(shards: Path, tmp_path: Path) -> None:
    stage = filter_stage(shards, tmp_path / "out", {"empty": {}})
    (shards / shard_name(1)).unlink()
    with pytest.raises(InputError, match=r"shard-00001\.parquet is not a readable parquet file"):
        run_stage(stage)


def test_the_input_is_never_the_output(shards: Path) -> None:
    before = contents(shards)
    with pytest.raises(OutputError, match="is the input"):
        run_stage(filter_stage(shards, shards, {"empty": {}}), overwrite=True)
    assert contents(shards) == before


def test_shards_of_others_are_taken_in_their_types_or_refused(shards: Path, tmp_path: Path) -> None:
    shard = shards / shard_name(0)
    table = parquet.read_table(shard)

    def write_as(name: str, column: pa.Array) -> None:
        parquet.write_table(table.set_column(table.schema.get_field_index(name), name, column), shard)

    write_as("language", table["language"].combine_chunks().dictionary_encode())
    assert next(read_shard(shard)).language == "Python"
    write_as("content", table["content"].cast(pa.large_string()))
    assert next(read_shard(shard)).content == "a = 1\n"
    write_as("repository", pa.array([None, *["o/p"] * (len(table) - 1)], pa.string()))
    with pytest.raises(InputError, match=r"00000\.parquet is not a shard of ours: a row has no repository"):
        run_stage(filter_stage(shards, tmp_path / "out", {"empty": {}}))
    write_as("size", pa.array(["many"] * len(table)))
    with pytest.raises(InputError, match=r"00000\.parquet is not a shard of ours: .*'many'"):
        run_stage(filter_stage(shards, tmp_path / "out", {"empty": {}}))
    raw = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers(), null_count=0)
    write_as("content", pa.concat_arrays([raw] * len(table)))
    with pytest.raises(InputError, match=r"00000\.parquet is not a shard of ours: .*UTF8"):
        run_stage(filter_stage(shards, tmp_path / "out", {"empty": {}}))
