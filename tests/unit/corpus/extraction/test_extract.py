from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pytest

from megatron.neox.corpus.extraction.extract import extraction
from megatron.neox.corpus.extraction.flat_tree import INDEX, flat_names
from megatron.neox.corpus.extraction.source_files import LINKS_OUT, ExtractSettings
from megatron.neox.corpus.extraction.source_text import source_text
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.running import Step, run_stage
from megatron.neox.corpus.stages.shards import SourceFile, find_shards, read_shard
from megatron.neox.errors import InputError, OutputError

ROOT = Path(__file__).resolve().parents[4]
CODE = b"".join(b"def f%d(x):\n\treturn x + %d\n" % (number, number) for number in range(30))
C_CODE = b"".join(b"int f%d(int x)\n{\n\treturn x + %d;\n}\n" % (number, number) for number in range(30))


def write(root: Path, files: dict[str | bytes, bytes]) -> None:
    for name, data in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def extract(
    source: Path, output: Path, *, workers: int = 1, **options: Any
) -> tuple[list[SourceFile], Counts]:
    settings = ExtractSettings(input=source, output=output, **options)
    summary = run_stage(extraction(settings), workers=workers)
    return [row for shard in find_shards(output) for row in read_shard(shard)], Counts.from_json(summary)


def reasons(counts: Counts) -> dict[str, int]:
    return {reason: amount.num_files for reason, amount in counts.reasons().items()}


@pytest.fixture
def clones(tmp_path: Path) -> Path:
    root = tmp_path / "clones"
    write(
        root,
        {
            "Python/org/one/a.py": CODE,
            "Python/org/one/web/b.js": CODE,
            "Python/org/one/README.md": b"text",
            "Python/org/one/.git/config.py": CODE,
            "Python/org/one/vendor/v.py": CODE,
            "Python/org/one/module/.git": b"gitdir: elsewhere",
            "Python/org/one/module/deep/m.py": CODE,
            "C/org/two/a.c": C_CODE,
            "C/org/two/a.h": C_CODE,
            "C/org/two/cpp.h": b"namespace a {\nclass B {};\n}\n" + C_CODE,
            "C/org/two/guarded.h": b"#ifdef __cplusplus\nnamespace a {\n#endif\n" + C_CODE,
            ".partial/x/y/z.py": CODE,
        },
    )
    rows = [
        {"language": "Python", "name": "org/one", "url": "https://x/org/one", "stars": 70, "license": "MIT",
         "commit": "a" * 40, "outcome": "ok"},
        {"language": "C", "name": "org/two", "url": "https://x/org/two", "stars": 60, "license": "NOASSERTION"},
    ]  # fmt: skip
    (root / "clones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def test_files_in_the_language_of_the_tree_with_what_is_known(clones: Path, tmp_path: Path) -> None:
    rows, counts = extract(clones, tmp_path / "out")
    assert [(row.repository, row.language, row.path, row.vendored) for row in rows] == [
        ("org/two", "C", "a.c", False),
        ("org/two", "C", "a.h", False),
        ("org/two", "C", "guarded.h", False),
        ("org/one", "Python", "a.py", False),
        ("org/one", "Python", "module/deep/m.py", True),
        ("org/one", "Python", "vendor/v.py", True),
    ]
    assert rows[3]._replace(content="") == SourceFile(
        "org/one", "Python", "a.py", sha256(CODE).hexdigest(), len(CODE), 70, ["MIT"], "a" * 40, False, ""
    )
    assert (rows[0].stars, rows[0].licenses, rows[0].commit) == (60, [], None)
    assert rows[3].content.encode() == CODE
    assert reasons(counts) == {"other_language": 2, "version_control": 2, "other_extension": 1}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["repositories"] == {"C": 1, "Python": 1}
    assert summary["settings"]["rule"] == "the language that the tree names"


def test_all_languages_and_a_manifest_beside(clones: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    row = {"language": "C", "name": "org/two", "url": "https://x/u", "stars": 1, "license": "GPL-2.0"}
    manifest.write_text(json.dumps(row))
    rows, _ = extract(clones, tmp_path / "out", all_languages=True, manifests=(manifest,))
    assert {row.path: row.language for row in rows} == {
        "a.c": "C", "a.h": "C", "cpp.h": "C++", "guarded.h": "C",
        "a.py": "Python", "module/deep/m.py": "Python", "vendor/v.py": "Python", "web/b.js": "JavaScript",
    }  # fmt: skip
    # Where both say something, clones.jsonl has the last word; a licence that nobody asserts is none.
    assert {(row.stars, *row.licenses) for row in rows if row.repository == "org/two"} == {(60,)}


def test_one_folder_goes_by_its_majority(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(root, {"a.cpp": C_CODE, "b.h": C_CODE * 9, "c.py": CODE, "sub/d.CC": C_CODE, "e.c": C_CODE})
    rows, counts = extract(root, tmp_path / "out", repository="org/project")
    # The headers, most of the bytes, count for the language that has more files of its own.
    assert [(row.repository, row.language, row.path) for row in rows] == [
        ("org/project", "C++", "a.cpp"), ("org/project", "C++", "b.h"), ("org/project", "C++", "sub/d.CC"),
    ]  # fmt: skip
    assert reasons(counts) == {"other_language": 2}


def test_folders_without_a_source_file_are_a_mistake_unless_a_crawl_found_them(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(
        InputError, match=r"bare holds no source file .*\(there is no file\); --all-languages"
    ):
        extract(tmp_path / "bare", tmp_path / "none", repository="org/bare")
    write(tmp_path / "clones", {"Python/org/one/README.md": b"text", "Python/org/two/a.c": C_CODE})
    with pytest.raises(InputError, match=r"\(1 other_extension, 1 other_language\)"):
        extract(tmp_path / "clones", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "clones" / "clones.jsonl").touch()
    assert extract(tmp_path / "clones", tmp_path / "none")[0] == []


@pytest.mark.timeout(30)
def test_hostile_trees_are_read_without_harm(tmp_path: Path) -> None:
    root = tmp_path / "clones"
    cases = root / "Python" / "org" / "odd"
    names: list[str | bytes] = [
        b"bad\xff.py",
        "new\nline.py",
        "tab\t.py",
        "q'uote $(x).py",
        "-rf.py",
        "日本.py",
    ]
    write(cases, dict.fromkeys(names, CODE))
    write(
        cases, {"a/b.py": CODE, "a__b.py": CODE, "/".join(["d" * 60] * 5) + ".py": CODE, "SConstruct": CODE}
    )
    write(
        cases,
        {"UPPER.PY": CODE, "mysconstruct": CODE, "lfs.py": b"version https://git-lfs.github.com/spec/v1\n"},
    )
    write(
        cases,
        {"nul.py": CODE + b"\0", "latin.py": CODE + b"#\xe9", "empty.py": b"", "blank.py": b" \n\t\r\n"},
    )
    write(
        cases,
        {"utf16.py": CODE.decode().encode("utf-16"), "bom.py": b"\xef\xbb\xbf" + CODE, "short.py": b"x\n"},
    )
    write(cases, {"cr.py": CODE.replace(b"\n", b"\r"), "crlf.py": CODE.replace(b"\n", b"\r\n")})
    write(tmp_path, {"secret.py": CODE})
    for name, target in {
        "in": "a/b.py",
        "out": "../../../../secret.py",
        "abs": "/etc/passwd",
        "self": "self.py",
    }.items():
        (cases / f"{name}.py").symlink_to(target)
    (cases / "loop").symlink_to(".")
    (root / "Python" / "org" / "linked").symlink_to(tmp_path)
    os.mkfifo(cases / "pipe.py")
    (cases / "folder.py").mkdir()
    rows, counts = extract(root, tmp_path / "out")
    assert len(rows) == 15
    assert {row.content for row in rows} == {CODE.decode()}
    assert all(row.path.isprintable() for row in rows)
    assert reasons(counts) == {
        "symlink": 5, "empty": 2, "binary": 1, "lfs_pointer": 1, "not_utf8": 1, "other_extension": 1,
        "special_file": 1, "too_short": 1,
    }  # fmt: skip
    assert counts.numbers[LINKS_OUT] == 2
    flat = tmp_path / "Code"
    run_stage(extraction(ExtractSettings(input=root, output=flat, format="tree")))
    assert len(os.listdir(flat / "Python")) == len((flat / INDEX).read_bytes().splitlines()) == 15


def test_a_file_over_the_limit_is_never_read(tmp_path: Path) -> None:
    """A sparse file of a terabyte, which no memory holds; at the limit a file is kept."""
    root = tmp_path / "clones" / "Python" / "org" / "big"
    write(
        root, {"at.py": (CODE * 2000)[: 1 << 20], "over.py": (CODE * 2000)[: (1 << 20) + 1], "huge.py": b""}
    )
    os.truncate(root / "huge.py", 1 << 40)
    rows, counts = extract(tmp_path / "clones", tmp_path / "out")
    assert [row.path for row in rows] == ["at.py"]
    assert reasons(counts) == {"too_big": 2}
    rows, _ = extract(tmp_path / "clones", tmp_path / "small", max_bytes=100)
    assert rows == []


def test_fewest_tokens_are_an_option(tmp_path: Path) -> None:
    write(tmp_path / "clones", {"Go/o/p/a.go": b"package a\n", "Go/o/p/b.go": b"package b\n\nvar x = 1\n"})
    kept = {
        limit: [row.path for row in extract(tmp_path / "clones", tmp_path / str(limit), min_tokens=limit)[0]]
        for limit in (0, 4, 5, 100)
    }
    assert kept == {0: ["a.go", "b.go"], 4: ["a.go", "b.go"], 5: ["b.go"], 100: []}


def test_the_output_is_the_same_on_any_number_of_processes(clones: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        extract(clones, tmp_path / str(workers), workers=workers)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "12")
    assert one == two
    assert len(one) == 3


def test_a_task_takes_repositories_of_one_language_and_knows_about_how_long_it_takes(tmp_path: Path) -> None:
    names = [f"{language}/o/{name}" for language in ("Python", "Rust") for name in "abc"]
    write(tmp_path, {f"in/{name}/{number}.py": CODE for number, name in enumerate(names)})
    write(tmp_path, {"in/Rust/o/b/x/y.rs": CODE, "in/Rust/o/b/x/z.rs": CODE})
    settings = ExtractSettings(input=tmp_path / "in", output=tmp_path / "out", repositories_per_task=2)
    phase = extraction(settings).phases[0]
    assert [phase.weight(number) for number in range(phase.count())] == [2, 1, 4, 1]


def test_a_repository_that_is_gone_is_counted_and_ends_nothing(clones: Path, tmp_path: Path) -> None:
    stage = extraction(ExtractSettings(input=clones, output=tmp_path / "out"))
    rows, _ = extract(clones, tmp_path / "whole")
    (clones / "Python" / "org" / "one").rename(tmp_path / "one")
    counts = Counts.from_json(run_stage(stage))
    assert counts.reasons()["unreadable"].num_files == 1
    assert counts.total_kept().num_files == sum(row.repository != "org/one" for row in rows) > 0


def test_what_is_no_tree_of_repositories_is_told(clones: Path, tmp_path: Path) -> None:
    write(tmp_path / "tree", {"Pyhton/o/p/a.py": CODE})
    (tmp_path / "empty").mkdir()
    for source, message in {
        tmp_path / "absent": "absent is not a folder",
        tmp_path / "empty": "holds no LANGUAGE/ORGANIZATION/PROJECT .links are not followed.; --repository",
        tmp_path / "tree": "Pyhton is no language of the table; did you mean Python",
    }.items():
        with pytest.raises(InputError, match=message):
            extract(source, tmp_path / "out")
    with pytest.raises(
        OutputError, match=r"clones/out lies inside the input .*clones, and would be extracted"
    ):
        extract(clones, clones / "out")
    extract(clones, tmp_path / "out")
    with (clones / "clones.jsonl").open("a") as file:
        file.write('{"language": "Python", "name": "org/one", "url": "https://x/u", "stars": 71}\n')
    settings = ExtractSettings(input=clones, output=tmp_path / "out")
    with pytest.raises(OutputError, match="other settings: repositories was"):
        run_stage(extraction(settings), resume=True)


@pytest.mark.parametrize("form", ["parquet", "tree"])
def test_a_repository_that_changed_meanwhile_is_not_mixed_with_what_it_was(
    clones: Path, tmp_path: Path, form: Literal["parquet", "tree"]
) -> None:
    write(clones, {"Rust/org/three/a.rs": CODE})
    settings = ExtractSettings(input=clones, output=tmp_path / "out", format=form, repositories_per_task=1)

    def stop(step: Step) -> None:
        if step.num_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(extraction(settings), report=stop)
    os.utime(clones / "Rust/org/three/a.rs")  # it is read only now
    os.utime(clones / "Python/org/one/a.py")
    with pytest.raises(
        OutputError, match=r"Python/org/one changed since the run began.*--overwrite begins anew"
    ):
        run_stage(extraction(settings), resume=True)
    run_stage(extraction(settings), overwrite=True)


def test_flat_names_are_polycoders_where_they_say_which_file_it_is() -> None:
    assert flat_names(b"o/p", [b"a.py", b"x/y.py", b"x/__init__.py"]) == [
        b"o__p__a.py", b"o__p__x__y.py", b"o__p__x____init__.py",
    ]  # fmt: skip
    taken: set[bytes] = set()
    for repository in (b"o/p", b"o/p__x", b"o/p_", b"o_/p", b"o/_p", b"o__p/x"):
        paths = [b"a/b.c", b"a__b.c", b"_a.c", b"x/a.c", b"__x/a.c", b"d" * 200 + b"/" + b"e" * 99 + b".c"]
        paths += [b"d" * 200 + b"/" + b"e" * 98 + b"f.c", b"q~0123456789abcdef.c"]
        names = flat_names(repository, paths)
        assert all(len(name) <= 255 and name.endswith(b".c") and b"/" not in name for name in names)
        assert not taken & set(names)
        taken |= set(names)
        assert len(set(names)) == len(paths)


@pytest.mark.parametrize(
    ("data", "policy", "expected"),
    [
        (b"\xff\xfea\0\n\0", "skip", ("a\n", "")),
        (b"\xfe\xff\0a", "skip", ("a", "")),
        (b"\xff\xfe\0\0a\0\0\0", "skip", ("a", "")),
        (b"\xff\xfea\0\0\0", "skip", ("", "binary")),
        (b"\xff\xfea", "skip", ("", "not_utf8")),
        (b"\xef\xbb\xbf \n", "skip", ("", "empty")),
        ("\u2003\n".encode(), "skip", ("", "empty")),
        (b"G" + b"\x11\x99" * 2000, "replace", ("", "binary")),
        ((b"G" + b"\x99" * 187) * 5, "replace", ("", "binary")),
        (b"a\xe9", "replace", ("a\ufffd", "")),
        ("# 日本語の説明\n".encode("shift_jis") * 9, "detect", ("# 日本語の説明\n" * 9, "")),
    ],
)
def test_text_of_bytes_by_policy(data: bytes, policy: Any, expected: tuple[str, str]) -> None:
    assert source_text(data, policy) == expected


def _without_roots_rights() -> None:
    """Root may read everything: what is started keeps no capability to pass over permissions."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            libc.prctl(24, capability)  # PR_CAPBSET_DROP


def test_the_command_says_what_it_did_and_fails_beyond_the_errors_allowed(
    clones: Path, tmp_path: Path
) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "collect" / "extract_code.py"), "--input", str(clones)]
    hidden = clones / "Python" / "org" / "one" / "hidden.py"
    hidden.write_bytes(CODE)
    hidden.chmod(0)
    (clones / "C" / "org" / "two" / "out.c").symlink_to("/etc/passwd")
    ran = subprocess.run(
        [*tool, "--output", str(tmp_path / "out"), "--max-errors", "0", "--workers", "1"],
        capture_output=True, text=True, check=False, preexec_fn=_without_roots_rights,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    assert "ResourceError\n1 files or folders could not be read, and --max-errors allows 0" in ran.stderr
    assert "links that lead out of their repository, not followed: 1" in ran.stderr
    assert "kept: 6 files" in ran.stdout
    assert "repositories: 1 C, 1 Python; taken: the language that the tree names" in ran.stdout
