"""Training on a stream, by the command: from parquet to losses, stopped and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.integration.dataset_hub import serve_dataset
from tests.integration.training_case import ROOT, metrics, train, write_config

pytestmark = pytest.mark.slow


@pytest.fixture
def streams(tmp_path: Path) -> dict[str, Any]:
    """Keys that train on four files, and validate on one of them."""
    folder = tmp_path / "source"
    folder.mkdir()
    texts = [path.read_text() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("a*.py"))[:4]]
    for number, text in enumerate(texts):
        parts = [text[at : at + 300] for at in range(0, 3000, 300)]
        parquet.write_table(pa.table({"content": parts}), folder / f"{number}.parquet")
    return {
        "train_data_paths": [f"stream:{folder}"], "valid_data_paths": [f"stream:{folder / '0.parquet'}"],
        "stream_shuffle_buffer": 12,
    }  # fmt: skip


def test_training_reads_a_stream_and_writes_nothing_beside_it(
    streams: dict[str, Any], tmp_path: Path
) -> None:
    done = train(write_config(tmp_path / "a.yml", save=str(tmp_path / "a"), **streams))
    assert done.returncode == 0, done.stderr
    found = metrics(tmp_path / "a")
    assert 0 < found[-1]["loss"] < found[0]["loss"]
    assert 0 < found[-1]["validation_loss"] < found[0]["loss"]
    assert len(list((tmp_path / "source").iterdir())) == 4


@pytest.mark.long
def test_a_streamed_run_resumes_exactly(streams: dict[str, Any], tmp_path: Path) -> None:
    straight = train(write_config(tmp_path / "a.yml", save=str(tmp_path / "a"), **streams))
    assert straight.returncode == 0, straight.stderr
    save = str(tmp_path / "b")
    for name, half in (("b.yml", {"exit_interval": 2}), ("c.yml", {"load": save})):
        ran = train(write_config(tmp_path / name, save=save, **half, **streams))
        assert ran.returncode == 0, ran.stderr
    expected, found = metrics(tmp_path / "a"), metrics(tmp_path / "b")
    assert [record["loss"] for record in found] == [record["loss"] for record in expected]
    assert found[-1]["validation_loss"] == expected[-1]["validation_loss"]


READ = """
import json, sys
from itertools import islice
from megatron.neox.data.stream import StreamBatches, Streaming
from megatron.neox.data.stream_source import open_source
from megatron.neox.errors import run_door
from megatron.neox.tokenizers import CharLevelTokenizer

def batches(**keys):
    stream = Streaming(open_source(sys.argv[1], "content"), CharLevelTokenizer(), eod=0, seq_length=8, seed=1,
                       shuffle_buffer=5)
    return StreamBatches(stream, micro_batch_size=1, data_rank=0, data_size=1, **keys)

def rows(read, count):
    return [ids.tolist()[0] for ids, labels in islice(read, count)]

def main(arguments):
    straight = batches()
    first = rows(straight, 28)
    state = json.loads(json.dumps(straight.state(28)))
    after = rows(straight, 60)
    assert rows(batches(first_sample=28, state=state), 60) == after
    print(json.dumps(first + after))

sys.exit(run_door(main, sys.argv))
"""


def test_a_dataset_of_the_hub_is_streamed_and_resumed(tmp_path: Path) -> None:
    """Equal to the same files here, over more than one pass; the hub's own library keeps the place."""
    folder = tmp_path / "dataset"
    for language in ("c", "python"):
        (folder / "data" / language).mkdir(parents=True)
        for number in range(2):
            texts = [f"{language} {number} {row}\n" for row in range(10)]
            name = f"train-{number:05d}-of-00002.parquet"
            parquet.write_table(
                pa.table({"content": texts, "size": [1] * 10}), folder / "data" / language / name
            )
    seen: list[str] = []

    def read(path: str, address: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT),
                       "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip
        command = [sys.executable, "-c", READ, path]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=300
        )

    with serve_dataset("me/code", folder, seen) as address:
        streamed = read("stream:hf://datasets/me/code/data/c", address)
        assert streamed.returncode == 0, streamed.stderr
        absent = read("stream:hf://datasets/me/none", address)
    assert {file.split("/")[1] for file in seen if file.startswith("data/")} == {"c"}
    here = read(f"stream:{folder / 'data' / 'c'}", "http://127.0.0.1:9")
    assert here.returncode == 0, here.stderr
    assert json.loads(streamed.stdout) == json.loads(here.stdout)
    assert absent.returncode == 2
    assert "hf://datasets/me/none cannot be streamed" in absent.stderr
    assert not list(tmp_path.joinpath("home").rglob("*.arrow"))
