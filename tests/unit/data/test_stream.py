"""Samples of a stream: those of the same documents tokenized beforehand, dealt out to ranks, resumed to the bit."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from megatron.neox.config import DataConfig, TokenizerConfig
from megatron.neox.data.indexed import IndexedDataset
from megatron.neox.data.samples import build_datasets, stream_of
from megatron.neox.data.stream import BEGINNING, SampleLine, StreamBatches, Streaming
from megatron.neox.data.stream_source import FileSource, open_source
from megatron.neox.data.tokenize import TokenizeSettings, tokenize
from megatron.neox.errors import ConfigError, DatasetError, InputError, VocabularyError
from megatron.neox.tokenizers import CharLevelTokenizer

DOCUMENTS = [f"document {number}: " + "code\n" * (number % 5) for number in range(40)]
LENGTH = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of two kinds; nulls and empty texts are no documents."""
    folder = tmp_path / "source"
    (folder / "b").mkdir(parents=True)
    parquet.write_table(pa.table({"content": [*DOCUMENTS[:15], None, ""]}), folder / "a.parquet")
    parquet.write_table(pa.table({"content": DOCUMENTS[15:20]}), folder / "b" / "a.parquet")
    with gzip.open(folder / "c.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"content": text}) + "\n" for text in DOCUMENTS[20:])
    (folder / "README").touch()
    return folder


def streaming(folder: Path, **keys: Any) -> Streaming:
    source = open_source(f"stream:{folder}", "content")
    defaults: dict[str, Any] = {"eod": 0, "seq_length": LENGTH, "seed": 3, "shuffle_buffer": 1}
    return Streaming(source, CharLevelTokenizer(), **{**defaults, **keys})


def batches(stream: Streaming, *, rank: int = 0, ranks: int = 1, size: int = 2, **keys: Any) -> StreamBatches:
    return StreamBatches(stream, micro_batch_size=size, data_rank=rank, data_size=ranks, **keys)


def rows(read: StreamBatches, count: int) -> list[list[int]]:
    """Inputs and last label of the next batches."""
    taken = list(islice(read, count))
    return [[*a, b[-1]] for ids, labels in taken for a, b in zip(ids.tolist(), labels.tolist())]


def line(count: int) -> list[int]:
    once = [token for text in DOCUMENTS for token in [*text.encode(), 0]]
    return (once * (count // len(once) + 1))[:count]


def test_samples_are_the_line_cut_as_datasets_are(folder: Path) -> None:
    """Over more than two passes; the last label of one is the first input of the next."""
    found = rows(batches(streaming(folder)), 60)
    ids = line(121 * LENGTH)
    assert found == [ids[at : at + LENGTH + 1] for at in range(0, 120 * LENGTH, LENGTH)]


def test_they_are_those_of_a_dataset_made_of_the_same_document(tmp_path: Path) -> None:
    text = "".join(DOCUMENTS)
    parquet.write_table(pa.table({"content": [text]}), tmp_path / "a.parquet")
    settings = TokenizeSettings(
        inputs=[tmp_path / "a.parquet"], output_prefix=str(tmp_path / "a"), text_column="content", append_eod=True,
        tokenizer=TokenizerConfig(tokenizer_type="CharLevelTokenizer"),
    )  # fmt: skip
    (prefix,) = tokenize(settings)
    count = (len(text) + 1 - 1) // LENGTH
    dataset = build_datasets(
        DataConfig(train_data_paths=[str(prefix)]), seq_length=LENGTH, seed=1, num_samples={"train": count}, rank=0,
        barrier=lambda: None,
    )["train"]  # fmt: skip
    assert dataset is not None
    assert IndexedDataset(prefix).num_tokens == len(text) + 1
    streamed = rows(batches(streaming(tmp_path / "a.parquet", shuffle_buffer=7), size=1), count)
    cut = [dataset[index].tolist() for index in range(count)]
    in_blocks = count - count % 7
    line_order = sorted(cut, key=lambda sample: text.encode().find(bytes(sample).rstrip(b"\0")))
    assert sorted(streamed[:in_blocks]) == sorted(line_order[:in_blocks])


def test_blocks_are_shuffled_by_the_seed(folder: Path) -> None:
    plain = rows(batches(streaming(folder)), 10)
    shuffled = rows(batches(streaming(folder, shuffle_buffer=5)), 10)
    assert shuffled != plain
    for at in range(0, 20, 5):
        assert sorted(shuffled[at : at + 5]) == sorted(plain[at : at + 5])
    assert shuffled == rows(batches(streaming(folder, shuffle_buffer=5)), 10)
    assert shuffled != rows(batches(streaming(folder, shuffle_buffer=5, seed=4)), 10)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_one_order(folder: Path, ranks: int) -> None:
    stream = streaming(folder, shuffle_buffer=5)
    alone = rows(batches(stream), 6 * ranks)
    parts = [rows(batches(stream, rank=rank, ranks=ranks), 6) for rank in range(ranks)]
    dealt = [parts[rank][2 * step + i] for step in range(6) for rank in range(ranks) for i in range(2)]
    assert dealt == alone


@pytest.mark.parametrize("buffer", [1, 4, 7, 64])
@pytest.mark.parametrize("num_samples", [0, 2, 8, 28, 150])
def test_a_resumed_stream_goes_on_to_the_bit(folder: Path, buffer: int, num_samples: int) -> None:
    stream = streaming(folder, shuffle_buffer=buffer)
    straight = batches(stream)
    rows(straight, num_samples // 2)
    state = json.loads(json.dumps(straight.state(num_samples)))
    again = batches(stream, first_sample=num_samples, state=state)
    assert rows(again, 30) == rows(straight, 30)
    further = num_samples + 60
    assert again.state(further) == straight.state(further)
    other_ranks = [
        batches(stream, rank=rank, ranks=2, first_sample=num_samples, state=state) for rank in (0, 1)
    ]
    assert [read.state(num_samples) for read in other_ranks] == [state, state]


def test_resuming_reads_no_document_before_the_block(folder: Path) -> None:
    stream = streaming(folder, shuffle_buffer=4)
    straight = batches(stream)
    rows(straight, 8)
    place = straight.state(16)["place"]
    assert place["document"][0] == 0
    assert place["document"][1] > 5
    documents = [content for _, content in stream.source.read(place["document"])]
    assert documents == DOCUMENTS[place["document"][1] :]
    first = next(SampleLine(stream, place)).tolist()
    assert first == line(1000)[16 * LENGTH : 17 * LENGTH + 1]


def test_another_stream_begins_anew_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    straight = batches(streaming(folder, shuffle_buffer=4))
    rows(straight, 5)
    state = straight.state(10)
    changed = batches(streaming(folder, shuffle_buffer=8), first_sample=10, state=state)
    assert "the stream is not the one that the checkpoint read" in caplog.text
    assert rows(changed, 4) == rows(batches(streaming(folder, shuffle_buffer=8)), 4)
    resumed = batches(streaming(folder, shuffle_buffer=8), first_sample=18, state=changed.state(18))
    assert rows(resumed, 4) == rows(changed, 4)
    batches(streaming(folder), first_sample=10)
    assert "the checkpoint does not say how far the stream was read" in caplog.text


def test_shards_that_hold_ids_need_no_tokenizer(tmp_path: Path) -> None:
    rows_of_ids = [[*text.encode()] + [0] * (number % 2) for number, text in enumerate(DOCUMENTS)]
    parquet.write_table(pa.table({"input_ids": rows_of_ids, "ratio": [1.0] * 40}), tmp_path / "a.parquet")
    source = open_source(f"stream:{tmp_path}", "input_ids")
    stream = Streaming(source, None, eod=0, seq_length=LENGTH, seed=3, shuffle_buffer=1)
    assert rows(batches(stream), 10) == [
        line(900)[at : at + LENGTH + 1] for at in range(0, 20 * LENGTH, LENGTH)
    ]
    assert next(SampleLine(stream, BEGINNING)).dtype == np.int64


def test_labels_after_an_end_may_be_left_out_and_ids_are_checked(folder: Path) -> None:
    ids, labels = next(batches(streaming(folder), size=20, masked_eod=0))
    assert torch.equal(labels == -100, ids == 0)
    assert (ids == 0).sum() > 3
    with pytest.raises(
        VocabularyError, match=r"samples 0 to 1 hold token id 1.., but the model's vocabulary has 100"
    ):
        next(batches(streaming(folder), vocab_size=100))


def test_what_cannot_be_streamed_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stream:.*none: there is nothing \(looked at"):
        open_source(f"stream:{tmp_path}/none", "content")
    with pytest.raises(InputError, match=r"README: there is no \.parquet and no \.jsonl file"):
        open_source(f"stream:{folder}/README", "content")
    with pytest.raises(
        DatasetError, match=r"a\.parquet has no column contents; did you mean content\?; stream_column"
    ):
        FileSource(folder, "contents")
    (folder / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"a\.parquet is not a readable parquet file"):
        FileSource(folder, "content")
    parquet.write_table(pa.table({"content": pa.array([None], pa.string())}), folder / "a.parquet")
    with pytest.raises(DatasetError, match="the stream holds no documents"):
        next(batches(streaming(folder / "a.parquet")))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data_path": "stream:a"}, "data_path stream:a is a stream, which cannot be divided"),
        (
            {"train_data_paths": ["stream:a", "b"]},
            "train_data_paths holds a stream and other data, stream:a, b; a",
        ),
        ({"train_data_paths": ["stream:a"], "transforms": ["x"]}, r"transforms need \.bin/\.idx datasets"),
    ],
    ids=str,
)
def test_configs_that_cannot_be_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stream_of(DataConfig.model_validate(keys), "train")
    assert stream_of(DataConfig(train_data_paths=["a", "b"]), "train") is None


def ids_stream(path: Path) -> Streaming:
    source = open_source(f"stream:{path}", "input_ids")
    return Streaming(source, None, eod=0, seq_length=2, seed=1, shuffle_buffer=1)


@pytest.mark.parametrize(
    "second",
    [[1, None], [1.5], "abc", [-1], [1 << 31], [[1], [2, 3]]],
    ids=["null", "float", "text", "negative", "huge", "nested"],
)
def test_what_is_no_list_of_ids_is_named(tmp_path: Path, second: Any) -> None:
    ids = pa.concat_tables([pa.table({"input_ids": pa.array([None], pa.array([second]).type)}),
                            pa.table({"input_ids": [second]})])  # fmt: skip
    parquet.write_table(ids, tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match=r"a\.parquet: document 1 holds no list of token ids in input_ids"):
        next(SampleLine(ids_stream(tmp_path), BEGINNING))


def test_shards_of_ids_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"input_ids": [[1, 2, 3] * 500] * 5000}), path)
    stream = ids_stream(path)
    data = bytearray(path.read_bytes())
    data[200:400] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet is not a readable parquet file"):
        list(islice(SampleLine(stream, BEGINNING), 9999))
    (tmp_path / "b.jsonl").write_text('{"input_ids": [1]}\n')
    with pytest.raises(InputError, match=r"b\.jsonl: documents that are ids already are read from parquet"):
        ids_stream(tmp_path)
    (tmp_path / ".stage").mkdir()
    with pytest.raises(InputError, match="is not finished; the command that writes it goes on with --resume"):
        ids_stream(tmp_path)
