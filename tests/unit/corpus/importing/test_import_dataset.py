from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from megatron.neox.corpus.importing.import_dataset import ImportSettings, columns_of, importing
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.running import Step, run_stage
from megatron.neox.corpus.stages.shards import SourceFile, find_shards, read_shard
from megatron.neox.errors import InputError, OutputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path, **options)
    return path


def run(
    *inputs: str | Path, output: Path, preset: str | None = None, **columns: str
) -> tuple[list[SourceFile], Counts]:
    settings = ImportSettings(
        inputs=tuple(map(str, inputs)), output=output, columns=columns_of(preset, columns)
    )
    summary = run_stage(importing(settings))
    return [row for shard in find_shards(output) for row in read_shard(shard)], Counts.from_json(summary)


def reasons(counts: Counts) -> dict[str, int]:
    return {reason: amount.num_files for reason, amount in counts.reasons().items()}


def the_stack(folder: Path) -> Path:
    columns = {
        "hexsha": ["0" * 40] * 4, "size": [6, 2, 0, 9], "lang": ["Python", "c-sharp", "Nim", "python"],
        "max_stars_repo_path": ["node_modules/a.py", "b\n.cs", "c.nim", "d.py"],
        "max_stars_repo_name": ["o/p", "q/r", None, "s/t"],
        "max_stars_repo_licenses": [["MIT", "Apache-2.0"], [], None, ["MIT"]],
        "max_stars_count": pa.array([7.0, None, 1.0, float("nan")]),
        "content": ["\ufeffa\r\nb", "é", None, " \n"],
    }  # fmt: skip
    return write_parquet(folder / "data" / "train-00000.parquet", columns)


def test_the_stack_row_by_row(tmp_path: Path) -> None:
    the_stack(tmp_path)
    rows, counts = run(tmp_path, output=tmp_path / "out", preset="the-stack")
    data = "\ufeffa\r\nb".encode()
    assert rows == [
        SourceFile("o/p", "Python", "node_modules/a.py", sha256(data).hexdigest(), 7, 7, ["MIT", "Apache-2.0"], None,
                   True, "a\nb"),
        SourceFile("q/r", "C#", "b\\x0a.cs", sha256("é".encode()).hexdigest(), 2, None, [], None, False, "é"),
    ]  # fmt: skip
    assert reasons(counts) == {"empty": 1, "null": 1}
    assert counts.kept["Python"].num_bytes == 7


def test_codeparrot_in_packed_json_lines(tmp_path: Path) -> None:
    lines = [
        {
            "repo_name": "o/p",
            "path": "a.py",
            "copies": "1",
            "size": "4",
            "content": "x=1\n",
            "license": "mit",
        },
        {"repo_name": "o/q", "path": "b.py", "content": "\ud800", "license": None},
        {"repo_name": "o/q", "path": "c.py"},
    ]
    packed = "\n".join(json.dumps(line) for line in lines).encode() + b"\n\n"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json.gz").write_bytes(gzip.compress(packed))
    # Two frames, as `cat` makes them.
    first, rest = packed.split(b"\n", 1)
    frames = [zstandard.compress(first + b"\n"), zstandard.compress(rest)]
    (tmp_path / "in" / "b.jsonl.zst").write_bytes(b"".join(frames))
    (tmp_path / "in" / "notes.txt").write_text("no data")
    rows, counts = run(tmp_path / "in", output=tmp_path / "out", preset="codeparrot")
    assert [(row.repository, row.language, row.path, row.licenses, row.content) for row in rows] == [
        ("o/p", "Python", "a.py", ["mit"], "x=1\n")
    ] * 2
    assert reasons(counts) == {"not_utf8": 2, "null": 2}


def test_bytes_nested_licences_and_columns_by_name(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet",
        {
            "code": [b"\xff\xfex\0", b"\xe9", b"a\0"],
            "where": ["x/y.go", "z.rs", "w.c"],
            "rights": [[["MIT"], ["BSD", None]], [None], None],
            "sha": [COMMIT, None, None],
        },
    )
    rows, counts = run(
        path, output=tmp_path / "out", content="code", path="where", licenses="rights", commit="sha"
    )
    assert rows == [
        SourceFile("unknown/unknown", "Go", "x/y.go", sha256(b"\xff\xfex\0").hexdigest(), 4, None, ["MIT", "BSD"],
                   COMMIT, False, "x"),
    ]  # fmt: skip
    assert reasons(counts) == {"binary": 1, "not_utf8": 1}


def bad_files(folder: Path) -> dict[Path, str]:
    """Files that cannot be imported, and what is said of each."""
    whole = write_parquet(folder / "whole.parquet", {"content": ["x = 1\n" * 500]})
    cut = folder / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-9])
    middle = folder / "middle.parquet"
    middle.write_bytes(whole.read_bytes()[:20] + bytes(40) + whole.read_bytes()[60:])
    texts = {
        "object.jsonl": b"[1]\n", "syntax.jsonl": b'{"content": "a"}\n{"content"\n', "other.jsonl": b'{"text": "a"}\n',
        "type.jsonl": b'{"content": 3}\n', "short.json.gz": gzip.compress(b'{"content": "a"}\n' * 99)[:-9],
        "none.zip": b"PK", "empty.jsonl": b"",
        "short.jsonl.zst": zstandard.compress(b"".join(b'{"content": "%d"}\n' % n for n in range(99_999)))[:-9],
    }  # fmt: skip
    for name, data in texts.items():
        (folder / name).write_bytes(data)
    return {
        write_parquet(
            folder / "text.parquet", {"contents": ["a"]}
        ): r"text\.parquet has no column content; did you mean "
        "contents",
        write_parquet(
            folder / "zero.parquet", {"content": pa.array([], pa.string())}
        ): r"zero\.parquet has no row",
        write_parquet(
            folder / "numbers.parquet", {"content": [1]}
        ): r"numbers\.parquet:1: content holds int, not text",
        cut: r"cut\.parquet is not a readable parquet file",
        middle: r"middle\.parquet is not a readable parquet file",
        folder / "object.jsonl": r"object\.jsonl:1: not an object",
        folder / "syntax.jsonl": r"syntax\.jsonl:2: not JSON",
        folder / "other.jsonl": r"other\.jsonl has no column content",
        folder / "type.jsonl": r"type\.jsonl:1: content holds int, not text",
        folder / "short.json.gz": r"short\.json\.gz is damaged or cut short",
        folder / "short.jsonl.zst": r"short\.jsonl\.zst is damaged or cut short",
        folder / "none.zip": r"none\.zip ends with none of \.parquet",
        folder / "empty.jsonl": r"empty\.jsonl has no row",
        folder / "absent": "absent does not exist",
    }


def test_what_cannot_be_imported_is_named(tmp_path: Path) -> None:
    for number, (path, message) in enumerate(bad_files(tmp_path).items()):
        output = tmp_path / f"out{number}"
        with pytest.raises(InputError, match=message):
            run(path, output=output)
        assert not (output / "summary.json").exists()
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"holds no file that ends with \.parquet"):
        run(tmp_path / "none", output=tmp_path / "out")
    dictionary = write_parquet(tmp_path / "d.parquet", {"content": ["a"], "license": [{"name": "MIT"}]})
    with pytest.raises(InputError, match=r"d\.parquet:1: license holds dict, not text or lists of texts"):
        run(dictionary, output=tmp_path / "out", licenses="license")
    stars = write_parquet(tmp_path / "s.parquet", {"content": ["a"], "stars": ["many"]})
    with pytest.raises(InputError, match=r"s\.parquet:1: stars holds 'many', not a number"):
        run(stars, output=tmp_path / "out2", stars="stars")
    many = write_parquet(tmp_path / "m.parquet", {"content": ["a"], "stars": [1 << 40]})
    with pytest.raises(InputError, match=r"m\.parquet:1: stars holds 1099511627776, not a number"):
        run(many, output=tmp_path / "out3", stars="stars")


def test_names_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    row = {"content": "a", "lang": "\ud800", "license": ["MIT\n|", "\udfff"], "commit": "\ud800"}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n", "ascii")
    columns = {"language": "lang", "licenses": "license", "commit": "commit"}
    rows, _ = run(tmp_path / "in.jsonl", output=tmp_path / "out", **columns)
    assert rows[0].language == r"\xed\xa0\x80"
    assert rows[0].licenses == [r"MIT\x0a|", r"\xed\xbf\xbf"]
    assert rows[0].commit == r"\xed\xa0\x80"


def test_an_empty_file_among_others_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", {"content": pa.array([], pa.string())})
    write_parquet(tmp_path / "in" / "b.parquet", {"content": ["x"]})
    rows, _ = run(tmp_path / "in", output=tmp_path / "out")
    assert [row.path for row in rows] == ["b.parquet:1"]
    assert "a.parquet has no row" in caplog.text


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A server that gives a gated dataset of two files to who has the token."""
    folder = tmp_path / "hub"
    the_stack(folder)
    write_parquet(folder / "other" / "x.parquet", {"content": ["x"]})
    asked: dict[str, Any] = {"paths": [], "folder": folder}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked["paths"].append(self.path)
            code, data = 200, b""
            if self.headers.get("Authorization") != "Bearer hf_secret":
                code = 401
            elif "/resolve/" in self.path:
                data = (folder / self.path.partition(f"/resolve/{COMMIT}/")[2]).read_bytes()
            else:
                files = [str(file.relative_to(folder)) for file in folder.rglob("*.parquet")]
                siblings = [{"rfilename": name} for name in [*files, "README.md"]]
                data = json.dumps({"id": "me/code", "sha": COMMIT, "siblings": siblings}).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield asked
    server.shutdown()
    server.server_close()


def test_a_dataset_of_the_hub_file_by_file(
    tmp_path: Path, hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    rows, _ = run("hf://datasets/me/code/data", output=output, preset="the-stack")
    local, _ = run(hub["folder"] / "data", output=tmp_path / "local", preset="the-stack")
    assert rows == local
    assert sorted(path.name for path in output.iterdir()) == ["shard-00000.parquet", "summary.json"]
    summary = json.loads((output / "summary.json").read_text())
    assert summary["settings"]["inputs"] == [f"hf://datasets/me/code@{COMMIT}/data/train-00000.parquet"]
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(InputError, match=r"hf://datasets/me/code cannot be read: .*accept the terms"):
        run("hf://datasets/me/code", output=tmp_path / "none")
    with pytest.raises(InputError, match=r"hf://datasets/code is not hf://datasets/USER/NAME"):
        run("hf://datasets/code", output=tmp_path / "none")


def test_a_file_that_changed_meanwhile_is_not_mixed_with_what_it_was(tmp_path: Path) -> None:
    before = json.dumps({"content": "x = 1\n" * 40_000}) + "\n"
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text(before)
    settings = ImportSettings(inputs=(str(tmp_path),), output=tmp_path / "out")

    def stop(step: Step) -> None:
        if step.num_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(importing(settings), report=stop)
    middle = len(before) // 2  # which no glance at a file's ends shows
    (tmp_path / "b.jsonl").write_text(before[:middle] + before[middle:].replace("1", "2", 1))
    with pytest.raises(OutputError, match=r"b\.jsonl changed since the run began.*--overwrite begins anew"):
        run_stage(importing(settings), resume=True)
    (tmp_path / "b.jsonl").write_text(before + before)
    with pytest.raises(OutputError, match=r"inputs was 'b\.jsonl [0-9a-f]+' and is 'b\.jsonl "):
        run_stage(importing(settings), resume=True)
    assert Counts.from_json(run_stage(importing(settings), overwrite=True)).total_kept().num_files == 4


def test_texts_that_are_no_text_are_counted_or_replaced(tmp_path: Path) -> None:
    bad = pa.array([b"x = 1  # \xe9\n", b"y = 2\n", None]).view(pa.string())
    write_parquet(tmp_path / "in" / "a.parquet", {"content": bad})
    rows, counts = run(tmp_path / "in", output=tmp_path / "out")
    assert [row.content for row in rows] == ["y = 2\n"]
    assert reasons(counts) == {"not_utf8": 1, "null": 1}
    settings = ImportSettings(
        inputs=(str(tmp_path / "in"),), output=tmp_path / "replaced", encoding="replace"
    )
    run_stage(importing(settings))
    (shard,) = find_shards(tmp_path / "replaced")
    assert [row.content for row in read_shard(shard)] == ["x = 1  # \ufffd\n", "y = 2\n"]
