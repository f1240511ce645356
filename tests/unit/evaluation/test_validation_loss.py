"""What CodeParrot's validation loss refuses, each with one message, and what it streams."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import ConfigError, InputError, UserError
from megatron.neox.evaluation.task import TaskResult, build_tasks
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.tiny_models import TinyLanguageModel

LINE = json.dumps({"content": "x = 1\n" * 20}) + "\n"


def measure(path: Path | None, **options: Any) -> TaskResult:
    settings = EvaluationConfig(
        eval_tasks=["validation_loss"], eval_data_path=str(path) if path else None,
        eval_task_options={"validation_loss": {"seq_length": 24, **options}},
    )  # fmt: skip
    return build_tasks(settings)["validation_loss"].run(TinyLanguageModel(), CharLevelTokenizer(), Workers())


def _truncated_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress((LINE * 50).encode())[:-20])


def _other_column(path: Path) -> None:
    parquet.write_table(pyarrow.table({"contents": ["x = 1\n"]}), path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.jsonl", lambda path: path.write_text(LINE + LINE[:40]), r"a.jsonl:2: not JSON"),
        ("a.jsonl.gz", _truncated_gzip, "a.jsonl.gz is damaged or cut short"),
        ("a.jsonl", lambda path: path.write_text('{"text": "x = 1"}\n'),
         "no record has a text under 'content'; the option column names another key"),
        ("a.jsonl", lambda path: path.write_text('{"content": 5}\n'), r"a.jsonl:1: content holds int, not text"),
        ("a.parquet", _other_column, "has no column content; did you mean contents"),
        ("a.parquet", lambda path: path.write_bytes(b"PAR1"), "is not a readable parquet file"),
        ("a.jsonl", lambda path: path.write_text('{"content": "x = 1"}\n'),
         "holds 1 texts of 5 bytes together .* less than one sequence of 24 tokens"),
        ("a.jsonl", lambda path: path.touch(), "holds 0 texts of 0 bytes together"),
        ("a.jsonl", lambda path: None, "does not exist"),
        ("files", lambda path: path.mkdir(), "holds 0 texts of 0 bytes together"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_measured(
    tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as raised:
        measure(tmp_path / name)
    assert isinstance(raised.value, UserError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seq_length": 1}, "seq_length is 2 or more"),
        ({"max_sequences": -1}, "max_sequences and codeparrot_batch_size 0 or more"),
        ({"dataset": "a/b"}, "eval_data_path and dataset are both given"),
        ({"seq_length": 49}, "seq_length is 49, and the model has 48 positions"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (tmp_path / "a.jsonl").write_text(LINE)
    with pytest.raises(ConfigError, match=message):
        measure(tmp_path / "a.jsonl", **options)
    with pytest.raises(ConfigError, match="eval_data_path is missing: give it, or the option dataset"):
        measure(None)


def test_a_dataset_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library streams a folder of parquet files as it streams the hub's."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "some" / "code"
    folder.mkdir(parents=True)
    parquet.write_table(
        pyarrow.table({"content": ["x = 1\n" * 20, "y = 2\n" * 20]}), folder / "train.parquet"
    )
    local = measure(folder / "train.parquet")
    assert measure(None, dataset=str(folder)).metrics == local.metrics
    with pytest.raises(
        InputError, match=r"record 1: no text under 'text'; the option column takes one of: content"
    ):
        measure(None, dataset=str(folder), column="text")
    with pytest.raises(InputError, match=f"the dataset {tmp_path}/absent cannot be read"):
        measure(None, dataset=str(tmp_path / "absent"))
