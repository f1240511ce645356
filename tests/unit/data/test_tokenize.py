from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from megatron.neox.config import TokenizerConfig
from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.stages.processes import worker_pool
from megatron.neox.corpus.stages.shards import SourceFile, new_shard, shard_name
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.data import encoding
from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.data.token_dataset import _chunks
from megatron.neox.data.tokenize import Progress, TokenizeSettings, tokenize
from megatron.neox.errors import DependencyError, InputError, OutputError, ResourceError, VocabularyError

CHARACTERS = TokenizerConfig(tokenizer_type="CharLevelTokenizer")


def run(source: Path, prefix: Path, **options: object) -> list[bytes]:
    """Tokenize to bytes and return the documents, end-of-document tokens included."""
    settings = TokenizeSettings(
        inputs=[source], output_prefix=str(prefix), **{"tokenizer": CHARACTERS, **options}
    )  # pyright: ignore[reportArgumentType]
    (written, *_) = tokenize(settings)
    return [bytes(document.astype("u1")) for document in IndexedDataset(written)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "a").mkdir(parents=True)
    (root / "a" / "crlf.py").write_bytes(b"x\r\ny\rz\n")
    (root / "mark.py").write_bytes(b"\xef\xbb\xbfm\n")
    (root / "white.py").write_bytes(b" \n")
    (root / "latin.py").write_bytes(b"\xe9\n")
    (root / "nul.py").write_bytes(b"a\0b\n")
    (root / "empty.py").touch()
    os.mkfifo(root / "pipe.py")
    return root


def test_a_folder_is_read_as_text_mode_does(source: Path, tmp_path: Path) -> None:
    documents = run(source, tmp_path / "out")
    assert sorted(documents) == [b" \n\0", b"m\n\0", b"x\ny\nz\n\0"]
    recorded = json.loads((tmp_path / "out_text_document.json").read_text())
    assert recorded == {
        "num_documents": 3,
        "num_tokens": 13,
        "dtype": "uint16",
        "tokenizer": {"type": "CharLevelTokenizer", "vocab_size": 512},
        "append_eod": True,
        "eod": 0,
        "num_source_bytes": 14,
        "num_bytes_replaced_by_eod": 0,
        "num_documents_with_end_text": 0,
        "skipped": {"binary": 1, "empty": 1, "not_utf8": 1, "special_file": 1},
        "inputs": ["source"],
        "input_bytes": [],
        "key": "text",
        "seed": 1234,
        "keep_byte_order_mark": False,
        "fix_text": False,
        "filters": [],
    }
    kept = run(source, tmp_path / "kept", keep_byte_order_mark=True, append_eod=False)
    assert sorted(kept) == [b" \n", b"x\ny\nz\n", b"\xef\xbb\xbfm\n"]


@pytest.mark.parametrize(
    ("given", "is_folder", "ends", "note"),
    [
        (None, True, True, "NOTE: end-of-document tokens are ON: an input is a folder of files"),
        (None, False, False, "NOTE: end-of-document tokens are OFF: GPT-NeoX's default for records"),
        (True, False, True, ""),
        (False, True, False, "end-of-document tokens are off"),
    ],
)
def test_when_documents_get_an_end(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    given: bool | None,
    is_folder: bool,
    ends: bool,
    note: str,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.py").write_text("x\n")
    (tmp_path / "a.jsonl").write_text('{"text": "x\\n"}\n')
    path = tmp_path / ("in" if is_folder else "a.jsonl")
    with caplog.at_level(logging.INFO):
        documents = run(path, tmp_path / "out", append_eod=given)
    assert documents == [b"x\n\0" if ends else b"x\n"]
    assert note in caplog.text
    assert ("NOTE" in caplog.text) == (given is None)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two megabytes of files, so that there are several chunks."""
    generator = random.Random(0)
    (tmp_path / "many").mkdir()
    for number in range(1500):
        words = " ".join(f"name_{generator.randrange(1000)}" for _ in range(generator.randrange(10, 300)))
        (tmp_path / "many" / f"{number}.py").write_text(words + "\n")
    return tmp_path / "many"


def test_the_number_of_workers_changes_nothing(many: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        run(many, tmp_path / str(workers), workers=workers)
    for ending in ("bin", "idx", "json"):
        one, three = (tmp_path / f"{workers}_text_document.{ending}" for workers in (1, 3))
        assert one.read_bytes() == three.read_bytes()


def test_the_seed_decides_the_order(many: Path, tmp_path: Path) -> None:
    documents = {seed: run(many, tmp_path / f"{name}", seed=seed) for name, seed in (("a", 1), ("b", 2))}
    assert documents[1] == run(many, tmp_path / "c", seed=1)
    assert documents[1] != documents[2]
    assert sorted(documents[1]) == sorted(documents[2])


def test_a_large_text_is_encoded_alone() -> None:
    tally, sizes = Tally(), [3, 300_000, 300_000, 2_500_000, 7, 8]
    documents = (Document("", b"x" * size, is_file=True) for size in sizes)
    chunks = [
        ([len(text) for text in chunk], size)
        for chunk, size in _chunks(usable_texts(documents, tally), tally)
    ]
    assert chunks == [([3, 300_000], 300_003), ([300_000], 300_000), ([2_500_000], 2_500_000), ([7, 8], 15)]


def test_chunks_read_ahead_are_bounded() -> None:
    taken = 0

    def chunks() -> Iterator[encoding.Chunk]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield ["x"], 1

    how = encoding.Encoding(CHARACTERS, append_eod=False, fix_text=False)
    results = encoding.encode_all(chunks(), how, workers=2)
    ahead = [taken - number for number, _ in enumerate(results)]
    assert len(ahead) == 100
    assert max(ahead) <= 2 * 2 + 2


@pytest.mark.timeout(60)
def test_a_worker_that_dies_is_told() -> None:
    how = encoding.Encoding(CHARACTERS, append_eod=False, fix_text=False)
    with worker_pool(2, encoding._start_worker, (how,)) as pool:
        pool.submit(os._exit, 9)
        results = encoding._in_order(pool, repeat((["x" * 10_000], 1)), workers=2)
        with pytest.raises(ResourceError, match="one of 2 workers died"):
            for _ in results:
                pass


def test_several_inputs_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n{"text": ""}\n{"text": "a\\r\\n\\u0000"}\n')
    settings = TokenizeSettings(
        inputs=[tmp_path / "a.txt", tmp_path / "b.jsonl"],
        output_prefix=str(tmp_path / "out"),
        tokenizer=CHARACTERS,
    )
    (prefix,) = tokenize(settings)
    assert [bytes(d.astype("u1")) for d in IndexedDataset(prefix)] == [b"one", b"two", b"a\r\n\0"]


def test_each_key_gives_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"code": "x", "doc": "yy"}\n{"code": "z"}\n')
    settings = TokenizeSettings(
        inputs=[tmp_path / "a.jsonl"],
        output_prefix=str(tmp_path / "out"),
        tokenizer=CHARACTERS,
        keys=["code", "doc"],
    )
    prefixes = tokenize(settings)
    assert [path.name for path in prefixes] == ["out_code_document", "out_doc_document"]
    assert [IndexedDataset(prefix).num_tokens for prefix in prefixes] == [2, 2]


def test_keys_belong_to_records(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"--jsonl-keys code: only \.jsonl files have keys"):
        run(source, tmp_path / "out", keys=["code"])
    (source / "shard.jsonl.zst").touch()
    run(source, tmp_path / "out")
    assert "shard.jsonl.zst and the like as text too" in caplog.text


def test_progress_is_reported_by_documents(many: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    settings = TokenizeSettings(
        inputs=[many],
        output_prefix=str(tmp_path / "out"),
        tokenizer=CHARACTERS,
        log_interval=100,
        num_documents=1500,
    )
    tokenize(settings, report=lambda progress: seen.append(progress.num_documents))
    assert seen[-1] == 1500
    assert len(seen) > 2
    progress = Progress(num_documents=50, num_bytes=2_500_000, num_tokens=800_000, expected_documents=100)
    progress.start -= 10
    assert progress.line().startswith("50 documents, 2.5 MB, 800,000 tokens, 0.25 MB/s, ")
    assert progress.line().endswith("50%, 10 s left")


def test_bytes_the_vocabulary_lacks_are_counted(
    polycoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x\\r\\ny\\r"}\n')
    section = TokenizerConfig(
        vocab_file=str(polycoder / "code-vocab.json"), merge_file=str(polycoder / "code-merges.txt")
    )
    prefix = TokenizeSettings(
        inputs=[tmp_path / "a.jsonl"], output_prefix=str(tmp_path / "out"), tokenizer=section, append_eod=True
    )
    (written,) = tokenize(prefix)
    assert IndexedDataset(written)[0].tolist() == [90, 0, 188, 91, 0, 0]
    assert "2 bytes that the vocabulary lacks became the end-of-document id" in caplog.text
    assert json.loads(Path(f"{written}.json").read_text())["num_bytes_replaced_by_eod"] == 2


def test_the_end_written_out_is_plain_text_and_counted(
    polycoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    texts = ["END = '<|endoftext|>'", "x", "<|endoftext|>" * 3]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    section = TokenizerConfig(
        vocab_file=str(polycoder / "code-vocab.json"), merge_file=str(polycoder / "code-merges.txt")
    )
    settings = TokenizeSettings(
        inputs=[tmp_path / "a.jsonl"], output_prefix=str(tmp_path / "out"), tokenizer=section, append_eod=True
    )
    (written,) = tokenize(settings)
    assert all(document.tolist().index(0) == len(document) - 1 for document in IndexedDataset(written))
    assert json.loads(Path(f"{written}.json").read_text())["num_documents_with_end_text"] == 2
    assert "2 documents have <|endoftext|> written out, which is plain text there" in caplog.text


def test_what_cannot_be_done_leaves_nothing(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (tmp_path / "bare" / "sub").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no document to tokenize in .*bare .*nothing was written"):
        run(tmp_path / "bare", output / "d")
    with pytest.raises(InputError, match="absent does not exist"):
        run(tmp_path / "absent", output / "d")
    (tmp_path / "a.jsonl").write_text('{"content": "x"}\n')
    with pytest.raises(InputError, match="under another key than text"):
        run(tmp_path / "a.jsonl", output / "d")
    with pytest.raises(VocabularyError, match="needs the key vocab_file"):
        run(source, output / "d", tokenizer=TokenizerConfig())
    with pytest.raises(
        OutputError, match=r"source/made/d lies inside the input .*source, and would be read as"
    ):
        run(source, source / "made" / "d")
    assert not (source / "made").exists()
    with pytest.raises(
        OutputError, match=r"cannot write .*d_text_document\.parts: .*; give another --output-prefix"
    ):
        run(source, Path("/proc/none/d"))
    with pytest.raises(DependencyError, match="--ftfy needs the package ftfy"):
        run(source, output / "d", fix_text=True)
    assert not output.exists() or os.listdir(output) == []
    run(source, output / "d")
    with pytest.raises(OutputError, match="exist already"):
        run(source, output / "d")
    assert run(source, output / "d", overwrite=True, append_eod=True)


def test_a_run_that_was_killed_goes_on_and_gives_the_same_bytes(many: Path, tmp_path: Path) -> None:
    run(many, tmp_path / "straight")
    _stop_at_first_report(many, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out_text_document.parts"))[-1] == "part-000000.sizes"
    with pytest.raises(OutputError, match="holds a run that was not finished; --resume goes on"):
        run(many, tmp_path / "out")
    with pytest.raises(OutputError, match="other settings: seed was 1234 and is 5"):
        run(many, tmp_path / "out", resume=True, seed=5)
    run(many, tmp_path / "out", resume=True)
    for ending in ("bin", "idx", "json"):
        straight, resumed = (tmp_path / f"{name}_text_document.{ending}" for name in ("straight", "out"))
        assert straight.read_bytes() == resumed.read_bytes()
    assert not (tmp_path / "out_text_document.parts").exists()
    run(many, tmp_path / "out", resume=True)
    with pytest.raises(OutputError, match="was made with another seed"):
        run(many, tmp_path / "out", resume=True, seed=5)


@pytest.mark.parametrize("name", ["edited", "touched", "new", "gone"])
def test_a_folder_that_changed_meanwhile_is_not_mixed_with_what_it_was(
    many: Path, tmp_path: Path, name: str
) -> None:
    _stop_at_first_report(many, tmp_path / "out")
    file = many / "77.py"
    if name == "edited":
        file.write_text(file.read_text().swapcase())
    elif name == "touched":
        os.utime(file)
    elif name == "new":
        file = many / "01.py"
        file.write_text("x = 1\n")
    else:
        file.unlink()
    with pytest.raises(OutputError, match=rf"{file} changed since the run began.*--overwrite begins anew"):
        run(many, tmp_path / "out", resume=True)
    assert run(many, tmp_path / "out", overwrite=True) == run(many, tmp_path / "straight")


def test_records_that_changed_meanwhile_are_not_mixed_with_what_they_were(tmp_path: Path) -> None:
    records = tmp_path / "a.jsonl"
    records.write_text('{"text": "x"}\n' * 200)
    _stop_at_first_report(records, tmp_path / "out")
    for text in ('{"text": "y"}\n' * 200, '{"text": "x"}\n' * 201):
        records.write_text(text)
        with pytest.raises(OutputError, match=r"a\.jsonl changed since the run began"):
            run(records, tmp_path / "out", resume=True)
    assert len(run(records, tmp_path / "out", overwrite=True)) == 201


def _stop_at_first_report(source: Path, prefix: Path) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    settings = TokenizeSettings(inputs=[source], output_prefix=str(prefix), tokenizer=CHARACTERS)
    with pytest.raises(KeyboardInterrupt):
        tokenize(settings, report=stop)


def test_a_dataset_of_an_older_input_is_not_taken_for_this_one(tmp_path: Path) -> None:
    records = tmp_path / "a.jsonl"
    records.write_text('{"text": "x"}\n')
    run(records, tmp_path / "out")
    run(records, tmp_path / "out", resume=True)
    records.write_text('{"text": "xyz"}\n')
    with pytest.raises(OutputError, match="was made with another input_bytes"):
        run(records, tmp_path / "out", resume=True)


def test_filters_leave_documents_out(source: Path, tmp_path: Path) -> None:
    (source / "generated.py").write_text("# Generated by a program\nx = 1\n")
    documents = run(source, tmp_path / "out", filters=["autogenerated", "empty"])
    assert sorted(documents) == [b"m\n\0", b"x\ny\nz\n\0"]
    recorded = json.loads((tmp_path / "out_text_document.json").read_text())
    assert recorded["filters"] == ["autogenerated", "empty"]
    assert recorded["skipped"]["autogenerated"] == 1


def test_shards_of_a_stage_are_read_by_their_content(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(3):
        with new_shard(shards / shard_name(number)) as shard:
            text = f"x = {number}\n"
            shard.write(SourceFile("o/p", "C", "a.c", "0" * 64, len(text), None, [], None, False, text))
    (shards / "summary.json").write_text("{}")
    assert run(shards, tmp_path / "out") == [b"x = 0\n", b"x = 1\n", b"x = 2\n"]
