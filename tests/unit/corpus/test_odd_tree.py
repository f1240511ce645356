"""The thirty-five kinds of bad input of the data reference, each with the stage that meets it.

The odd tree is made by ../shared/corpus/odd_corpus.py where that is there (ODD_CORPUS names another place); what is
essential of it is built in test_extract.py too, so that it is tested everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from megatron.neox.corpus.counts import Counts
from megatron.neox.corpus.extract import extraction
from megatron.neox.corpus.flat_tree import INDEX
from megatron.neox.corpus.shards import SourceFile, escape_path, find_shards, read_shard, unescape_path
from megatron.neox.corpus.source_files import LINKS_OUT, ExtractSettings
from megatron.neox.corpus.stage import run_stage

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

# Rows whose outcome is another stage's, and those that no file of the tree shows: where each is tested.
ELSEWHERE: dict[int, str] = {
    10: "tests/unit/corpus/test_readers.py::test_text_mode_of_files_and_not_of_records (to keep the mark)",
    11: "tests/unit/corpus/test_readers.py::test_text_mode_of_files_and_not_of_records (before tokens)",
    12: "tests/unit/corpus/test_extract.py::test_a_file_over_the_limit_is_never_read",
    13: "tests/unit/corpus/test_filters.py::test_monstrous_lines_take_bounded_time (the longest line)",
    17: "tests/unit/corpus/test_tree.py::test_links_pipes_sockets_and_version_control_are_left_out",
    18: "tests/unit/corpus/test_tree.py::test_what_may_not_be_read_is_counted",
    30: "tests/unit/corpus/test_extract_kills.py::test_a_killed_extraction_goes_on_and_gives_the_same_bytes",
    32: "tests/unit/corpus/test_import_dataset.py::test_what_cannot_be_imported_is_named",
    34: "tests/unit/corpus/test_stage.py::test_a_killed_stage_goes_on_and_gives_the_same_bytes",
    35: "tests/unit/corpus/test_stage.py::test_other_peoples_folders_and_running_ones_are_left_alone",
}

# Rows that these tests leave to those of the stages they belong to.
TO_OTHER_STAGES = {
    14: "tokenizing", 26: "exact duplicates", 27: "near duplicates", 28: "clone", 29: "crawl", 31: "vocabularies",
    33: "tokenize_data.py",
}  # fmt: skip


def test_every_row_has_its_place() -> None:
    assert set(ROWS) | set(ELSEWHERE) | set(TO_OTHER_STAGES) == set(range(1, 36))
    for place in ELSEWHERE.values():
        file, _, name = place.partition(" (")[0].partition("::")
        assert (ROOT / file).is_file(), place
        assert f"def {name}" in (ROOT / file).read_text("utf-8"), place


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
