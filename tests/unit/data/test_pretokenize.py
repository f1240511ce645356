"""One parquet file to samples of a fixed length: the original's cuts, what bad files say, and what is kept."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from megatron.neox.config import TokenizerConfig
from megatron.neox.data import pretokenize as module
from megatron.neox.data.pretokenize import PretokenizeSettings, pretokenize
from megatron.neox.data.pretokenize_pieces import Reading, read_pieces
from megatron.neox.errors import InputError, OutputError
from megatron.neox.tokenizers import GPT2BPETokenizer

BYTES = TokenizerConfig(tokenizer_type="CharLevelTokenizer")
LIBRARY = Path(sysconfig.get_path("stdlib"))
DOCUMENTS = [
    "int main(void)\n{\n\treturn 0;\n}\n",
    "",
    "/* \u00e9 \U0001f600 */",
    "x" * 90,
    "\n" * 7,
    "y = 1;\n" * 9,
]


def write(path: Path, documents: list[Any], column: str = "content", **more: Any) -> Path:
    parquet.write_table(pa.table({column: documents, **more}), path)
    return path


def settings(folder: Path, **keys: Any) -> PretokenizeSettings:
    defaults: dict[str, Any] = {
        "data_file": folder / "a.parquet", "tokenization_folder": folder / "out", "tokenizer": BYTES, "pad_token": 500,
        "chars_to_tokenize": 1000, "chunk_size": 50, "seq_length": 8, "min_sample_length": 3, "max_dump_size": 4,
    }  # fmt: skip
    return PretokenizeSettings(**{**defaults, **keys})


def read(folder: Path) -> dict[str, list[list[int]]]:
    return {path.name: pickle.loads(path.read_bytes()) for path in sorted(folder.glob("*.pkl"))}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected(text: str, chosen: PretokenizeSettings) -> tuple[dict[str, list[list[int]]], dict[str, Any]]:
    """The rules of the original, applied to the whole text at once."""
    text = text[chosen.starting_character :][: chosen.chars_to_tokenize]
    dumps: dict[str, list[list[int]]] = {}
    for at in range(0, len(text), chosen.chunk_size):
        ids, samples = list(text[at : at + chosen.chunk_size].encode()), []
        while len(ids) > chosen.min_sample_length:
            sample, ids = ids[: chosen.seq_length], ids[chosen.seq_length :]
            samples.append(sample + [chosen.pad_token] * (chosen.seq_length - len(sample)))
        while samples:
            dumps[f"dump-{len(dumps)}.pkl"] = samples[: chosen.max_dump_size]
            samples = samples[chosen.max_dump_size :]
    counts = {
        name: {"num_samples": len(rows), "num_tokens": sum(map(len, rows))} for name, rows in dumps.items()
    }
    return dumps, counts


@pytest.mark.parametrize(
    "keys",
    [{}, {"starting_character": 31}, {"chunk_size": 9, "min_sample_length": 0}, {"chars_to_tokenize": 77},
     {"min_sample_length": 20}, {"starting_character": 30, "chars_to_tokenize": 8, "chunk_size": 8}],
    ids=str,
)  # fmt: skip
def test_the_cuts_are_the_originals(tmp_path: Path, keys: dict[str, Any]) -> None:
    write(tmp_path / "a.parquet", DOCUMENTS)
    chosen = settings(tmp_path, **keys)
    done = pretokenize(chosen)
    dumps, counts = expected(" ".join(DOCUMENTS), chosen)
    assert read(tmp_path / "out") == dumps
    for name, rows in dumps.items():
        assert (tmp_path / "out" / name).read_bytes() == pickle.dumps(rows, protocol=4)
    assert (tmp_path / "out" / "dump-meta_data.json").read_text() == json.dumps(counts)
    assert done.num_samples == sum(map(len, dumps.values()))
    assert done.num_padding == sum(row.count(500) for rows in dumps.values() for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "out"]


def test_pieces_are_the_line_cut_anywhere(tmp_path: Path) -> None:
    """Many rows, several row groups, any range and size: the same as slices of the whole line."""
    source = random.Random(3)
    documents = ["\u00e9\n"[: source.randrange(3)] * source.randrange(9) for _ in range(300)]
    table = pa.table({"content": [None if number % 7 == 0 else d for number, d in enumerate(documents)]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=40)
    line = " ".join(d for number, d in enumerate(documents) if number % 7)
    for _ in range(60):
        start, length, size = source.randrange(1000), source.randrange(1, 900), source.randrange(1, 120)
        reading = Reading()
        stop = start + length
        pieces = [
            " ".join(piece)
            for piece in read_pieces(
                tmp_path / "a.parquet", column="content", start=start, stop=stop, size=size, reading=reading
            )
        ]
        part = line[start:stop]
        assert pieces == [part[at : at + size] for at in range(0, len(part), size)]
        assert reading.num_characters == min(stop, len(line))


def test_documents_joined_by_their_end(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", ["abc", "de", "", "f" * 12])
    pretokenize(settings(tmp_path, join="eod", bos=301, chunk_size=10, min_sample_length=0))
    rows = [row for rows in read(tmp_path / "out").values() for row in rows]
    assert rows == [
        [301, *b"abc", 0, *b"de", 0],
        [0, *b"ff", 500, 500, 500, 500, 500],
        [301, *b"fffffff"],
        [*b"fff", 500, 500, 500, 500, 500],
    ]


def test_arrays_hold_the_same_in_two_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", DOCUMENTS)
    pretokenize(settings(tmp_path))
    pretokenize(settings(tmp_path, form="mmap", tokenization_folder=tmp_path / "mapped"))
    for name, rows in read(tmp_path / "out").items():
        array = np.load(tmp_path / "mapped" / name.replace(".pkl", ".npy"), mmap_mode="r", allow_pickle=False)
        assert array.dtype == np.uint16
        assert array.tolist() == rows


def test_more_workers_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", DOCUMENTS * 20)
    pretokenize(settings(tmp_path))
    pretokenize(settings(tmp_path, workers=2, tokenization_folder=tmp_path / "two"))
    assert files_of(tmp_path / "two") == files_of(tmp_path / "out")


def test_a_text_is_divided_where_its_ids_stay(polycoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = GPT2BPETokenizer(
        vocab_file=str(polycoder / "code-vocab.json"), merge_file=str(polycoder / "code-merges.txt")
    )
    monkeypatch.setattr(module, "_CHUNK_CHARACTERS", 300)
    texts = [(LIBRARY / name).read_text() for name in ("ast.py", "tokenize.py", "opcode.py", "stat.py")]
    divided = [module._divided(text) for text in texts]
    assert sum(map(len, divided)) > 30
    for text, parts in zip(texts, divided, strict=True):
        assert "".join(parts) == text
        assert [token for part in parts for token in tokenizer.encode(part)] == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (["a"], {"chars_to_tokenize": 7}, "--chars_to_tokenize 7 is less than --seq_length 8: no sample"),
        (["a"], {"pad_token": 1 << 31}, "--pad_token 2147483648 is no id: ids are 0 to 2147483647"),
        (["a"], {"chunk_size": 7}, "--chunk_size 7 is less than --seq_length 8: no sample"),
        (["abc", "d"], {"starting_character": 5},
         r"a\.parquet: --starting_character 5 is past the end: its 2 rows hold 5 characters"),
        (["a"], {"column": "contents"}, r"a\.parquet has no column contents; did you mean content\?; --column takes "
         "one of: content"),
        (["a"], {}, r"no sample came out of 1 characters of .*a\.parquet: no piece has more than --min_sample"),
        ([], {}, r"a\.parquet has no rows"),
        ([None, None], {}, r"a\.parquet: no row has a text in the column content \(2 rows, 2 of them null\)"),
    ],
    ids=str,
)  # fmt: skip
def test_what_gives_no_sample_is_refused(
    tmp_path: Path, rows: list[Any], keys: dict[str, Any], message: str
) -> None:
    write(tmp_path / "a.parquet", pa.array(rows, pa.string()))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=message):
        pretokenize(settings(tmp_path, **keys))
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_files_that_are_no_parquet_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the data file .*a\.parquet: No such file"):
        pretokenize(settings(tmp_path))
    write(tmp_path / "a.parquet", ["text"] * 1000)
    whole = (tmp_path / "a.parquet").read_bytes()
    for content in (b"", b"PAR1", whole[:-9] + b"\xff" * 9, whole[: len(whole) // 2]):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(
            InputError, match=r"a\.parquet is not a readable parquet file: .*fetch or write it again"
        ):
            pretokenize(settings(tmp_path))


@pytest.mark.parametrize("path", [Path("/dev/zero"), Path("/")])
def test_a_device_or_folder_is_no_data_file(tmp_path: Path, path: Path) -> None:
    with pytest.raises(InputError, match="no file but a folder, a pipe or a device"):
        pretokenize(settings(tmp_path, data_file=path))


def test_a_column_of_bytes_is_no_text(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [b"abc"])
    with pytest.raises(
        InputError, match=r"a\.parquet: the column content holds binary, not text; --column names"
    ):
        pretokenize(settings(tmp_path))


def test_nulls_and_odd_columns_beside_do_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    licences = [["MIT", "BSD"], [], None, ["GPL"]]
    write(tmp_path / "a.parquet", ["a" * 20, None, "b" * 20, None], licenses=licences)
    done = pretokenize(settings(tmp_path))
    assert done.num_samples == 5
    assert "rows left out: 2 null" in caplog.text
    assert "ends at character 41: 41 of the 1000 characters asked for" in caplog.text
    assert json.loads((tmp_path / "out" / "dump-origin.yml").read_text())["skipped"] == {"null": 2}


def test_bytes_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    bad = pa.array([b"a" * 20, b"\xff\xfe", b"b" * 20]).view(pa.string())
    write(tmp_path / "a.parquet", bad)  # pyright: ignore[reportArgumentType]
    assert pretokenize(settings(tmp_path)).num_samples == 5
    assert json.loads((tmp_path / "out" / "dump-origin.yml").read_text())["skipped"] == {"not_utf8": 1}


def test_a_sample_shorter_than_the_least_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.parquet", ["a" * 45])
    done = pretokenize(settings(tmp_path, min_sample_length=20))
    assert (done.num_samples, done.num_padding) == (4, 0)  # 45 ids: a fifth sample would leave 13
    assert "up to 20 ids at the end of each piece are left out" in caplog.text


def test_a_folder_is_never_mixed_with_another(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", DOCUMENTS)
    pretokenize(settings(tmp_path))
    before = files_of(tmp_path / "out")
    with pytest.raises(
        OutputError, match="out exists already; give another --tokenization_folder, or --overwrite"
    ):
        pretokenize(settings(tmp_path))
    with pytest.raises(OutputError, match="out exists already with other settings or of another data file"):
        pretokenize(settings(tmp_path, seq_length=9, resume=True))
    assert files_of(tmp_path / "out") == before
    assert pretokenize(settings(tmp_path, resume=True)).was_complete
    pretokenize(settings(tmp_path, seq_length=9, overwrite=True))
    assert files_of(tmp_path / "out") != before
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").touch()
    with pytest.raises(OutputError, match=r"has no dump-meta_data\.json, so it is not one of ours"):
        pretokenize(settings(tmp_path, tokenization_folder=tmp_path / "home", overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "home", "out"]


class Broken(Exception):
    pass


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_run_that_broke_off_goes_on(tmp_path: Path, pieces: int) -> None:
    write(tmp_path / "a.parquet", DOCUMENTS * 2)
    pretokenize(settings(tmp_path, tokenization_folder=tmp_path / "whole"))

    def stop(done: int, total: int) -> None:
        if done == pieces:
            raise Broken

    with pytest.raises(Broken):
        pretokenize(settings(tmp_path), report=stop)
    assert not (tmp_path / "out").exists()
    (tmp_path / ".out.partial" / ".dump-9.pkl.partial").write_bytes(b"half")
    with (tmp_path / ".out.partial" / ".journal.jsonl").open("a") as journal:
        journal.write('{"files": {"dump-')
    with pytest.raises(
        OutputError, match=r"was not finished .*--resume goes on with it, --overwrite starts anew"
    ):
        pretokenize(settings(tmp_path))
    with pytest.raises(OutputError, match="was begun with other settings or another data file"):
        pretokenize(settings(tmp_path, seq_length=9, resume=True))
    seen: list[int] = []
    pretokenize(settings(tmp_path, resume=True), report=lambda done, total: seen.append(done))
    assert seen[0] == pieces + 1
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_folder_needs_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.parquet", DOCUMENTS)
    with pytest.raises(OutputError, match=r"is no name for a new folder; give another --tokenization_folder"):
        pretokenize(settings(tmp_path, tokenization_folder=Path(name)))


def test_two_runs_at_once(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", DOCUMENTS)

    def second(done: int, total: int) -> None:
        for keys in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match="another run is writing"):
                pretokenize(settings(tmp_path, **keys))

    pretokenize(settings(tmp_path), report=second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "out"]


def test_validation_cannot_hold_what_training_holds(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", DOCUMENTS)
    pretokenize(settings(tmp_path, chars_to_tokenize=100))
    valid = {"tokenization_folder": tmp_path / "valid", "valid_of": tmp_path / "out"}
    message = r"characters 99 to 1099 of .*a\.parquet overlap those of .*out, 0 to 100; --starting_character 100 begins"
    with pytest.raises(InputError, match=message):
        pretokenize(settings(tmp_path, starting_character=99, **valid))
    pretokenize(settings(tmp_path, starting_character=100, **valid))
    (tmp_path / "out" / "dump-origin.yml").unlink()
    with pytest.raises(
        InputError, match=r"there is no dump-origin\.yml, so which characters it holds is not known"
    ):
        pretokenize(settings(tmp_path, starting_character=100, overwrite=True, **valid))


@pytest.mark.long
def test_memory_follows_the_piece_and_not_the_file(tmp_path: Path) -> None:
    """A file of 200 MB in one row group takes what one of 20 MB takes, to a tenth."""
    code = (
        "import re, sys; from pathlib import Path; from megatron.neox.config import TokenizerConfig\n"
        "from megatron.neox.data.pretokenize import PretokenizeSettings, pretokenize\n"
        "pretokenize(PretokenizeSettings(data_file=Path(sys.argv[1]), tokenization_folder=Path(sys.argv[1] + '-out'),\n"
        "    tokenizer=TokenizerConfig(tokenizer_type='CharLevelTokenizer'), pad_token=300, chunk_size=1_000_000,\n"
        "    chars_to_tokenize=10**9))\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
    )
    peaks = []
    for num_megabytes in (20, 200):
        path = tmp_path / f"{num_megabytes}.parquet"
        random_words = np.random.default_rng(num_megabytes)
        rows = [random_words.bytes(2500).hex() for _ in range(200 * num_megabytes)]
        write(path, rows)
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(ran.stdout))
    assert peaks[1] == pytest.approx(peaks[0], rel=0.1)
