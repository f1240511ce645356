from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.parquet_files import batches_of, open_parquet, rows_at_once
from megatron.neox.corpus.readers import (
    inputs_of,
    parts_of,
    read_directory,
    read_jsonl,
    read_parquet,
    read_text,
    reader_name,
)
from megatron.neox.corpus.readers.text_column import holds_text
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.data.pretokenize_pieces import Reading, read_pieces
from megatron.neox.errors import InputError
from megatron.neox.plugins import readers

LINES = (
    b'{"text": "a\\r\\n", "id": 1}\n\n{"text": null}\n'
    b'{"text": "\\ud800"}\n{"other": "b"}\n{"text": "\xc3\xa9"}'
)


def zstd(data: bytes) -> bytes:
    # Two frames: what `cat a.zst b.zst` gives must be read to its end.
    middle = data.index(b"\n") + 1
    packer = zstandard.ZstdCompressor()
    return packer.compress(data[:middle]) + packer.compress(data[middle:])


@pytest.mark.parametrize(
    ("name", "pack"), [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)]
)
def test_json_lines_plain_and_packed(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    path.write_bytes(pack(LINES))
    tally = Tally()
    assert list(read_jsonl(path, tally)) == [
        Document(f"{path}:1", b"a\r\n", is_file=False),
        Document(f"{path}:6", "é".encode(), is_file=False),
    ]
    assert tally.skipped == {"no_text": 2, "blank_line": 1, "not_utf8": 1}
    assert [document.data for document in read_jsonl(path, Tally(), key="other")] == [b"b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"text": "a"}\n{"text"\n', r"a\.jsonl:2: not JSON"),
        (b"[1]\n", r"a\.jsonl:1: a record is an object"),
        (b'{"text": 3, "code": ""}\n', r"a\.jsonl:1: text holds int, not text.*this record has: text, code"),
        (b'{"text": "\xff"}\n', r"a\.jsonl:1: not JSON"),
    ],
)
def test_bad_records_are_named_by_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=message):
        list(read_jsonl(tmp_path / "a.jsonl", Tally()))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(LINES)[:-9]),
        ("a.jsonl.gz", LINES),
        ("a.jsonl.zst", LINES),
        ("a.jsonl.zst", zstd(LINES)[:-3]),
    ],
    # Not the data: gzip writes the time into it, and every worker must find the same names.
    ids=["gzip cut short", "no gzip", "no zstd", "zstd cut short"],
)
def test_damaged_archives_are_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name} is damaged or cut short"):
        list(read_jsonl(tmp_path / name, Tally()))


ARROW_TYPES = [
    pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(), pyarrow.binary(), pyarrow.large_binary(),
    pyarrow.binary_view(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.binary()),
]  # fmt: skip


@pytest.mark.parametrize("kind", ARROW_TYPES, ids=str)
def test_parquet_columns_of_every_type_of_text(tmp_path: Path, kind: pyarrow.DataType) -> None:
    path, texts = tmp_path / "a.parquet", ["é", None, "", "b" * 100, "é"]
    table = pyarrow.table({"text": pyarrow.array(texts).cast(kind)})
    parquet.write_table(table, path, row_group_size=2)
    assert parquet.read_schema(path).field("text").type == kind
    tally = Tally()
    read = [document.data.decode() for document in read_parquet(path, tally)]
    assert read == ["é", "", "b" * 100, "é"]
    assert tally.skipped == {"no_text": 1}
    if holds_text(kind):
        pieces = list(read_pieces(path, column="text", start=0, stop=10**6, size=10**6, reading=Reading()))
        assert pieces == [["é", "", "b" * 100, "é"]]


def test_rows_of_megabytes_are_read_a_few_at_once(tmp_path: Path) -> None:
    path, long = tmp_path / "a.parquet", [os.urandom(1 << 17).hex() for _ in range(12)]
    table = pyarrow.table({"text": [*["short"] * 1000, *long], "other": ["x" * 1000] * 1012})
    parquet.write_table(table, path, row_group_size=1000)
    with open_parquet(path) as file:
        assert [rows_at_once(file, ["text"], group, 256) for group in (0, 1)] == [256, 3]
        assert rows_at_once(file, ["other"], 1, 256) == 256
        sizes = [batch.num_rows for batch in batches_of(file, ["text"], num_rows=256)]
        assert sizes == [256, 256, 256, 232, 3, 3, 3, 3]
    assert [document.data.decode() for document in read_parquet(path, Tally())] == table["text"].to_pylist()


def test_a_row_group_of_large_texts_is_not_held_whole(tmp_path: Path) -> None:
    path, texts = tmp_path / "a.parquet", [f"{number} " * (1 << 17) for number in range(40)]
    parquet.write_table(pyarrow.table({"text": texts}), path, write_batch_size=1, use_dictionary=False)
    before, most, read = pyarrow.total_allocated_bytes(), 0, []
    for document in read_parquet(path, Tally()):
        read.append(document.data.decode())
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert read == texts
    assert most < 3 << 20, most  # of 14 MiB


def test_views_of_what_is_no_text(tmp_path: Path) -> None:
    views = pyarrow.array([b"\xff", b"b"], pyarrow.binary_view())
    bad = pyarrow.Array.from_buffers(pyarrow.string_view(), 2, views.buffers())
    parquet.write_table(pyarrow.table({"text": bad}), tmp_path / "a.parquet")
    tally = Tally()
    assert list(usable_texts(read_parquet(tmp_path / "a.parquet", tally), tally)) == ["b"]
    assert tally.skipped == {"not_utf8": 1}


def test_parquet_columns_of_text_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "content": ["é", None, ""],
        "raw": [b"\xff", b"b", None],
        "stars": [1, 2, 3],
        "big": pyarrow.array(["x"] * 3, pyarrow.large_string()),
    }
    parquet.write_table(pyarrow.table(columns), path)
    tally = Tally()
    read = [(d.name, d.data) for d in read_parquet(path, tally, column="content")]
    assert read == [(f"{path}:1", "é".encode()), (f"{path}:3", b"")]
    assert tally.skipped == {"no_text": 1}
    assert [d.data for d in read_parquet(path, tally, column="big")] == [b"x"] * 3
    assert list(usable_texts(read_parquet(path, tally, column="raw"), tally)) == ["b"]
    assert tally.skipped == {"no_text": 2, "not_utf8": 1}
    with pytest.raises(InputError, match="has no column contents; did you mean content"):
        list(read_parquet(path, tally, column="contents"))
    with pytest.raises(InputError, match="the column stars holds int64, not text"):
        list(read_parquet(path, tally, column="stars"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.parquet is not a readable parquet file"):
        list(read_parquet(path, tally, column="content"))


def test_text_mode_of_files_and_not_of_records(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    (document,) = read_text(path, Tally())
    assert document.text() == "a\nb\nc\n"
    assert document.text(keep_byte_order_mark=True) == "\ufeffa\nb\nc\n"
    assert document.num_bytes == 10
    assert Document("r", document.data, is_file=False).text() == "\ufeffa\r\nb\rc\n"
    with pytest.raises(InputError, match=r"cannot read .*absent"):
        list(read_text(tmp_path / "absent", Tally()))


def test_what_cannot_be_used_as_text_is_counted() -> None:
    tally = Tally()
    sources = {"ok": b" \n", "nul": b"a\0", "latin": b"\xe9", "none": b"", "mark": b"\xef\xbb\xbf"}
    documents = [Document(name, data, is_file=True) for name, data in sources.items()]
    assert list(usable_texts(documents, tally)) == [" \n"]
    assert (tally.num_documents, tally.num_bytes) == (1, 2)
    assert tally.reasons() == "2 empty, 1 binary, 1 not_utf8"


def test_a_path_finds_its_reader(tmp_path: Path) -> None:
    names = ["a.jsonl", "b.JSONL.ZST", "c.parquet", "d.py", "e.json.gz"]
    for name in names:
        (tmp_path / name).touch()
    assert [reader_name(tmp_path / name) for name in names] == ["jsonl", "jsonl", "parquet", "text", "jsonl"]
    assert reader_name(tmp_path) == "directory"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        reader_name(tmp_path / "pipe")
    with pytest.raises(InputError, match="absent does not exist"):
        reader_name(tmp_path / "absent")


def test_a_folder_that_a_stage_wrote_is_its_shards(tmp_path: Path) -> None:
    for name in ("shard-00001.parquet", "shard-00000.parquet"):
        (tmp_path / name).touch()
    assert inputs_of(tmp_path) == [("directory", tmp_path)]
    (tmp_path / ".stage").mkdir()
    with pytest.raises(InputError, match="is not finished; the command that writes it goes on with --resume"):
        inputs_of(tmp_path)
    (tmp_path / "summary.json").touch()
    assert inputs_of(tmp_path) == [
        ("parquet", tmp_path / "shard-00000.parquet"), ("parquet", tmp_path / "shard-00001.parquet"),
    ]  # fmt: skip


def test_pieces_of_an_input_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron.neox.corpus.readers.directory._FILES_AT_ONCE", 2)
    monkeypatch.setattr("megatron.neox.corpus.readers.jsonl._PART_BYTES", 40)
    monkeypatch.setattr("megatron.neox.corpus.readers.parquet._PART_BYTES", 1)
    texts = [f"text {number}" * (number % 4) for number in range(1, 12)]
    (tmp_path / "tree").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "tree" / f"{number:02d}.py").write_text(text)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", row_group_size=3)
    for path, num_parts in ((tmp_path / "tree", 6), (tmp_path / "a.jsonl", 6), (tmp_path / "a.parquet", 4)):
        name = reader_name(path)
        parts = list(parts_of(name, path, Tally()))
        assert len(parts) == num_parts
        found = [
            document.data.decode()
            for part in json.loads(json.dumps(parts))
            for document in readers.build(name, path, Tally(), options={"part": part})
        ]
        assert found == texts


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_line_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr("megatron.neox.corpus.readers.jsonl._LINE_BYTES", 1 << 20)
    monkeypatch.setattr("megatron.neox.corpus.readers.jsonl._PART_BYTES", 100)
    path = tmp_path / f"a.jsonl{ending}"
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[ending]
    path.write_bytes(pack(b'{"text": "a"}\n' * 20 + b" " * (120 << 20) + b'{"text": "b"}\n'))
    tracemalloc.start()
    with pytest.raises(
        InputError, match=r"a\.jsonl.*:21: a line of more than 1 MiB; a \.jsonl file has one object"
    ):
        list(read_jsonl(path, Tally()))
    assert tracemalloc.get_traced_memory()[1] < 80 << 20
    tracemalloc.stop()
    if not ending:
        with pytest.raises(InputError, match=r"a\.jsonl:21: a line of more than 1 MiB"):
            list(parts_of("jsonl", path, Tally()))


def test_a_file_that_would_fill_the_memory_is_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    for name in ("a.txt", "tree/a.py"):
        with (tmp_path / name).open("wb") as file:
            file.truncate((1 << 30) + 1)  # of holes
    monkeypatch.setattr("megatron.neox.corpus.readers.text.MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"a\.txt is one document of more than 1 MiB; divide it"):
        list(read_text(tmp_path / "a.txt", Tally()))
    tally = Tally()
    assert not list(read_directory(tmp_path / "tree", tally))
    assert tally.skipped == {"too_big": 1}


def test_a_bad_line_of_a_later_piece_has_its_number_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron.neox.corpus.readers.jsonl._PART_BYTES", 30)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 9 + "{\n")
    *_, last = parts_of("jsonl", tmp_path / "a.jsonl", Tally())
    with pytest.raises(InputError, match=r"a\.jsonl:10: not JSON"):
        list(read_jsonl(tmp_path / "a.jsonl", Tally(), part=last))
