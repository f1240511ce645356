"""The thirty-five kinds of bad input of the data reference, each with the stage that meets it.

The odd tree is made by ../shared/corpus/odd_corpus.py where that is there (ODD_CORPUS names another place); what is
essential of it is built in test_extract.py too, so that it is tested everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from megatron.neox.corpus.extraction.extract import extraction
from megatron.neox.corpus.extraction.flat_tree import INDEX
from megatron.neox.corpus.extraction.source_files import LINKS_OUT, ExtractSettings
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.folders import lock_folder
from megatron.neox.corpus.stages.running import run_stage
from megatron.neox.corpus.stages.shards import SourceFile, escape_path, find_shards, read_shard, unescape_path
from megatron.neox.corpus.stages.stage import Phase, Stage

ROOT = Path(__file__).resolve().parents[3]
KEPT = "kept"
LONG = "/".join(["d" * 60] * 4 + ["f" * 60 + ".py"])

# Row of the reference: the paths that show it, below Python/odd/cases unless a language stands before, and what
# extraction does with each.
ROWS: dict[int, dict[str | bytes, str]] = {
    1: {"empty.py": "empty"},
    2: {"whitespace.py": "empty"},
    3: {"short.py": "too_short"},
    4: {"exact_1MiB.py": KEPT, "over_1MiB.py": "too_big"},
    5: {"latin1.py": "not_utf8", "shift_jis.py": "not_utf8", "ff_bytes.py": "not_utf8"},
    6: {"utf16.py": KEPT},
    7: {"utf8_truncated.py": "not_utf8"},
    8: {"surrogate.py": "not_utf8"},
    9: {"nul.py": "binary", "binary.py": "binary"},
    10: {"bom.py": KEPT},
    11: {"crlf.py": KEPT, "cr_only.py": KEPT, "mixed_eol.py": KEPT},
    13: {
        "one_line_500k.py": KEPT, "brackets.py": KEPT, "spaces_300k.py": "too_short", "base64.py": "too_short",
        "JavaScript:minified.js": KEPT,
    },
    14: {"eot.py": KEPT},
    15: dict.fromkeys(("link_in.py", "link_out.py", "broken.py", "self.py", "loop"), "symlink"),
    16: {"pipe.py": "special_file"},
    18: {"noperm.py": KEPT if os.geteuid() == 0 else "unreadable"},
    19: dict.fromkeys(
        (b"bad\xff.py", "new\nline.py", "tab\tname.py", "q'uote $(x).py", "-rf.py", "日本.py"), KEPT
    ),
    20: {"a__b.py": KEPT, "a/b.py": KEPT, "x__y/z__w.py": KEPT},
    21: {LONG: KEPT},
    22: {".git": "version_control", "node_modules/v/v.py": KEPT},
    23: {"lfs.py": "lfs_pointer"},
    24: {
        "TypeScript:qt.ts": "other_language", "TypeScript:video.ts": "not_utf8", "C:header.h": KEPT,
        "C++:header.h": KEPT,
    },
    25: {"UPPER.PY": KEPT, "SConstruct": KEPT, "mysconstruct": "other_extension"},
    26: {"ok.py": KEPT, "dup_of_ok.py": KEPT},
    27: {"near_dup_of_ok.py": KEPT, "ws_dup_of_ok.py": KEPT},
}  # fmt: skip

# Cases of no row, for the stages that follow.
OTHERS = dict.fromkeys(("autogen.py", "secret.py", "humaneval.py"), KEPT)

# What other tests show: outcomes of later stages, and of what no file of the tree can show.
CORPUS, DATA, INTEGRATION = "tests/unit/corpus", "tests/unit/data", "tests/integration"
NEAR, EXACT = f"{CORPUS}/deduplication/test_near.py", f"{CORPUS}/deduplication/test_exact.py"
TOKENIZER, PRETOKENIZE = "tests/unit/tokenizers/test_gpt2_bpe.py", f"{DATA}/test_pretokenize.py"
HERE = f"{CORPUS}/test_odd_tree.py"
ELSEWHERE: dict[int, list[str]] = {
    5: [f"{HERE}::test_encodings_are_replaced_or_guessed_where_asked"],
    10: [f"{CORPUS}/test_readers.py::test_text_mode_of_files_and_not_of_records"],
    11: [f"{CORPUS}/test_readers.py::test_text_mode_of_files_and_not_of_records",
         f"{INTEGRATION}/test_preprocess.py::test_polycoders_own_command_works_to_the_letter"],
    12: [f"{CORPUS}/extraction/test_extract.py::test_a_file_over_the_limit_is_never_read"],
    13: [f"{CORPUS}/filters/test_filters.py::test_monstrous_lines_take_bounded_time",
         f"{CORPUS}/extraction/test_lexing.py::test_monstrous_lines_take_bounded_time"],
    14: [f"{DATA}/test_tokenize.py::test_the_end_written_out_is_plain_text_and_counted",
         f"{TOKENIZER}::test_a_special_token_in_the_text_is_plain_text",
         "tests/unit/tokenizers/test_train.py::test_special_tokens_in_a_text_are_plain_text"],
    17: [f"{CORPUS}/test_tree.py::test_links_pipes_sockets_and_version_control_are_left_out"],
    18: [f"{CORPUS}/test_tree.py::test_what_may_not_be_read_is_counted",
         f"{CORPUS}/extraction/test_extract.py::test_the_command_says_what_it_did_and_fails_beyond_the_errors_allowed"],
    19: [f"{CORPUS}/stages/test_stage.py::test_any_path_becomes_one_line_and_comes_back",
         f"{CORPUS}/index/test_index.py::test_every_path_has_a_name_of_its_own"],
    20: [f"{HERE}::test_the_flat_tree_loses_no_file_to_a_name",
         f"{CORPUS}/index/test_index.py::test_every_path_has_a_name_of_its_own"],
    25: [f"{CORPUS}/extraction/test_languages.py::test_names_by_the_table"],
    26: [f"{EXACT}::test_of_copies_in_any_language_and_repository_the_most_starred_stays",
         f"{NEAR}::test_copies_of_the_crafted_tree"],
    27: [f"{NEAR}::test_a_chain_is_one_cluster", f"{NEAR}::test_of_each_cluster_the_most_starred_stays",
         f"{NEAR}::test_copies_of_the_crafted_tree"],
    28: [f"{INTEGRATION}/test_clone_repo.py::test_what_becomes_of_a_clone"],
    29: [f"{INTEGRATION}/test_gh_crawler.py::test_what_the_api_does",
         f"{INTEGRATION}/test_gh_crawler.py::test_every_repository_is_found_once",
         f"{INTEGRATION}/test_gh_crawler.py::test_failures_lose_nothing"],
    30: [f"{HERE}::test_a_full_disk_in_the_middle_of_a_shard",
         f"{CORPUS}/extraction/test_extract_kills.py::test_a_killed_extraction_goes_on_and_gives_the_same_bytes",
         f"{INTEGRATION}/test_preprocess.py::test_a_full_disk_is_no_users_mistake",
         f"{INTEGRATION}/test_preprocess.py::test_a_stopped_run_goes_on_where_it_was"],
    31: [f"{TOKENIZER}::test_wrong_files_are_named", f"{TOKENIZER}::test_how_the_first_and_last_lines_are_read",
         f"{TOKENIZER}::test_extended_vocabulary_is_lossless_on_any_bytes",
         f"{DATA}/test_indexed.py::test_types_follow_the_vocabulary"],
    32: [f"{CORPUS}/importing/test_import_dataset.py::test_what_cannot_be_imported_is_named",
         f"{CORPUS}/importing/test_import_dataset.py::test_bytes_nested_licences_and_columns_by_name",
         f"{PRETOKENIZE}::test_files_that_are_no_parquet_are_named",
         f"{PRETOKENIZE}::test_nulls_and_odd_columns_beside_do_no_harm"],
    33: [f"{PRETOKENIZE}::test_what_gives_no_sample_is_refused"],
    34: [f"{HERE}::test_an_output_that_exists_and_a_second_run",
         f"{INTEGRATION}/test_preprocess.py::test_an_output_that_exists_is_kept",
         f"{INTEGRATION}/test_deduplicate.py::test_of_shards_exact_copies_then_near_ones_are_left_out"],
    35: [f"{HERE}::test_an_output_that_exists_and_a_second_run",
         f"{DATA}/test_indexed_writer.py::test_two_runs_do_not_write_one_dataset",
         f"{PRETOKENIZE}::test_two_runs_at_once", f"{INTEGRATION}/test_gh_crawler.py::test_two_crawls_at_once",
         f"{INTEGRATION}/test_clone_repo.py::test_two_runs_at_once"],
}  # fmt: skip


def test_every_row_has_its_place() -> None:
    assert set(ROWS) | set(ELSEWHERE) == set(range(1, 36))
    for place in [place for places in ELSEWHERE.values() for place in places]:
        file, _, name = place.partition("::")
        assert (ROOT / file).is_file(), place
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), place


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = Path(os.environ.get("ODD_CORPUS", ROOT.parent / "shared" / "corpus" / "odd_corpus.py"))
    if not script.is_file():
        pytest.skip(f"the maker of the odd tree is not at {script}; ODD_CORPUS names another place")
    folder = tmp_path_factory.mktemp("odd") / "tree"
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    return folder


def extract(source: Path, output: Path, **options: object) -> tuple[dict[str, SourceFile], Counts]:
    """Rows by `LANGUAGE:path`, and the counts."""
    settings = ExtractSettings(input=source, output=output, **options)  # pyright: ignore[reportArgumentType]
    summary = run_stage(extraction(settings))
    rows = [row for shard in find_shards(output) for row in read_shard(shard)]
    return {f"{row.language}:{row.path}": row for row in rows}, Counts.from_json(summary)


def key_of(name: str | bytes) -> str:
    """`LANGUAGE:path` as a row has it."""
    if isinstance(name, str) and ":" in name:
        return name
    return f"Python:{escape_path(os.fsencode(name))}"


@pytest.mark.timeout(60)
def test_each_case_of_the_odd_tree_has_its_outcome(odd: Path, tmp_path: Path) -> None:
    rows, counts = extract(odd, tmp_path / "out")
    cases = {key_of(name): outcome for row in ROWS.values() for name, outcome in row.items()}
    cases |= {key_of(name): outcome for name, outcome in OTHERS.items()}
    assert set(rows) == {name for name, outcome in cases.items() if outcome == KEPT}
    expected = Counter(outcome for outcome in cases.values() if outcome != KEPT)
    assert {reason: amount.num_files for reason, amount in counts.reasons().items()} == expected
    assert counts.numbers[LINKS_OUT] == 1
    assert len(cases) == 57  # entries of the tree

    plain = rows["Python:ok.py"]
    assert plain.repository == "odd/cases"
    for name in ("bom.py", "crlf.py", "cr_only.py", "mixed_eol.py", "utf16.py"):
        assert rows[f"Python:{name}"].content == plain.content, name
        raw = (odd / "Python" / "odd" / "cases" / name).read_bytes()
        assert rows[f"Python:{name}"].size == len(raw)
        assert rows[f"Python:{name}"].sha256 != plain.sha256
    assert [name for name, row in rows.items() if row.vendored] == ["Python:node_modules/v/v.py"]
    assert "<|endoftext|>" in rows["Python:eot.py"].content
    for row in rows.values():
        path = os.path.join(os.fsencode(odd / row.language / "odd" / "cases"), unescape_path(row.path))
        assert os.path.getsize(path) == row.size


@pytest.mark.timeout(60)
def test_encodings_are_replaced_or_guessed_where_asked(odd: Path, tmp_path: Path) -> None:
    replaced, counts = extract(odd, tmp_path / "replaced", encoding="replace")
    strange = ["latin1", "shift_jis", "ff_bytes", "utf8_truncated", "surrogate"]
    for name in strange:
        assert "\ufffd" in replaced[f"Python:{name}.py"].content
    assert counts.reasons()["binary"].num_files == 3  # the video too
    assert "not_utf8" not in counts.reasons()
    guessed, _ = extract(odd, tmp_path / "guessed", encoding="detect")
    assert "café" in guessed["Python:latin1.py"].content
    assert "# 日本語" in guessed["Python:shift_jis.py"].content


@pytest.mark.timeout(60)
def test_the_flat_tree_loses_no_file_to_a_name(odd: Path, tmp_path: Path) -> None:
    rows, _ = extract(odd, tmp_path / "shards")
    output = tmp_path / "Code"
    run_stage(extraction(ExtractSettings(input=odd, output=output, format="tree")))
    lines = [line.split("\t") for line in (output / INDEX).read_text("utf-8").splitlines()]
    assert len(lines) == len(rows)
    for key, digest, path, file in lines:
        language, _, name = file.partition("/")
        written = os.path.join(os.fsencode(output / language), unescape_path(name))
        original = os.path.join(os.fsencode(odd), unescape_path(path))
        with open(written, "rb") as ours, open(original, "rb") as theirs:
            assert ours.read() == theirs.read()
        row = rows[f"{language}:{path.removeprefix(f'{language}/odd/cases/')}"]
        assert row.sha256 == digest
        assert key == path.replace("/", "__")
    files = sum(len(names) for _, _, names in os.walk(os.fsencode(output)))
    assert files == len(rows) + 2  # index.txt and summary.json
    keys = Counter(key for key, *_ in lines)
    assert [key for key, count in keys.items() if count > 1] == ["Python__odd__cases__a__b.py"]
    assert {key: key == file.replace("/", "__") for key, _, _, file in lines if "~" in file} == {
        "Python__odd__cases__a__b.py": False,
        "Python__odd__cases__" + LONG.replace("/", "__"): False,
    }


def command(source: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """tools/collect/extract_code.py, a task a repository, one at a time."""
    tool = ROOT / "tools" / "collect" / "extract_code.py"
    words = ["--input", source, "--output", output, "--repositories-per-task", "1", "--workers", "1", *more]
    done = subprocess.run(
        [sys.executable, tool, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Four repositories of a file each."""
    for number in range(4):
        folder = tmp_path / "Code" / "Python" / "org" / f"project{number}"
        folder.mkdir(parents=True)
        (folder / "a.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 30)
    return tmp_path / "Code"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def two_tasks(stage: Stage, phase: Phase, pending: Sequence[int], workers: int) -> Iterator[Counts]:
    """Stops as a user does, after two of the tasks."""
    del workers
    for number in pending[:2]:
        yield stage.run_task(phase, number)
    raise KeyboardInterrupt


def test_a_full_disk_in_the_middle_of_a_shard(four: Path, tmp_path: Path) -> None:
    """Row 30, on a device that is always full where the third shard is to be written."""
    assert command(four, tmp_path / "straight").returncode == 0
    output = tmp_path / "out"
    stage = extraction(ExtractSettings(input=four, output=output, repositories_per_task=1))
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, run_tasks=two_tasks)
    before = contents(output)
    (output / ".shard-00002.parquet.partial").symlink_to("/dev/full")
    full = command(four, output, "--resume")
    assert (full.returncode, "ResourceError\nno space left on the disk" in full.stderr) == (1, True), (
        full.stderr
    )
    assert contents(output) == before
    assert sorted(before) == ["shard-00000.parquet", "shard-00001.parquet"]
    assert command(four, output, "--resume").returncode == 0
    assert contents(output) == contents(tmp_path / "straight")


def test_an_output_that_exists_and_a_second_run(four: Path, tmp_path: Path) -> None:
    """Rows 34 and 35."""
    output = tmp_path / "out"
    output.mkdir()
    with lock_folder(output):
        second = command(four, output)
    assert (second.returncode, f"OutputError\nanother run is writing {output}" in second.stderr) == (2, True)
    assert list(output.iterdir()) == []
    assert command(four, output).returncode == 0
    before = contents(output)
    for more, message in (
        ([], f"{output} is there; --resume goes on with it, --overwrite begins anew"),
        (
            ["--resume", "--min-tokens", "5000"],
            "was begun with other settings: min_tokens was 100 and is 5000",
        ),
    ):
        refused = command(four, output, *more)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr
        assert contents(output) == before
    again = command(four, output, "--resume")
    assert (again.returncode, contents(output)) == (0, before)
    fewer = command(four, output, "--overwrite", "--min-tokens", "5000")
    assert (fewer.returncode, "left out, too_short: 4 files" in fewer.stdout) == (0, True)
