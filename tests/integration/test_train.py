"""`./deepy.py train.py` as a user runs it, on real source code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.training_case import metrics, train, write_config, write_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "code_text_document")


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The save folder of a run on one rank, and what it printed."""
    folder = tmp_path_factory.mktemp("one_rank")
    done = train(
        write_config(folder / "tiny.yml", data_path=data, save=str(folder / "run"), load=str(folder / "run"))
    )
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stderr


def test_one_rank_trains_and_logs_every_number(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    lines = metrics(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert {"loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu"} <= line.keys()
        assert all(isinstance(value, float | int) for value in line.values())
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["tokens"] == 4 * 8 * 32
    assert "fresh start: there is no checkpoint in" in printed
    assert "step 4/4 loss" in printed
    assert (folder / "latest").read_text().strip() == "global_step4"
    manifest = json.loads((folder / "global_step4" / "manifest.json").read_text())
    assert manifest["state"].items() >= {"step": 4, "num_samples": 32}.items()


@pytest.mark.long
def test_four_ranks_train_alike(trained: tuple[Path, str], data: str, tmp_path: Path) -> None:
    keys = {"pipe_parallel_size": 2, "model_parallel_size": 2, "hidden_dropout": 0.0}
    save = str(tmp_path / "run")
    done = train(write_config(tmp_path / "tiny.yml", data_path=data, save=save, **keys))
    assert done.returncode == 0, done.stderr
    lines, alone = metrics(tmp_path / "run"), metrics(trained[0])
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    # The other run has dropout, so that the first losses are only near each other.
    assert lines[0]["loss"] == pytest.approx(alone[0]["loss"], abs=0.2)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert done.stderr.count("step 1/4") == 1


def test_a_finished_run_has_nothing_to_do_and_a_save_folder_is_not_written_over(
    trained: tuple[Path, str], data: str, tmp_path: Path
) -> None:
    before = (trained[0] / "metrics.jsonl").read_bytes()
    done = train(write_config(tmp_path / "tiny.yml", data_path=data, save=str(trained[0])))
    assert done.returncode == 2
    assert (
        f"OutputError\nthe save folder {trained[0]} holds global_step4, but this run begins at step 0; "
        f"give load: {trained[0]} to go on from there"
    ) in done.stderr
    assert (trained[0] / "metrics.jsonl").read_bytes() == before


def vocabulary_mismatch(folder: Path, data: str) -> dict[str, Any]:
    return {"data_path": write_dataset(folder / "other", type="HFTokenizer", sha256="ab")}


def truncated_index(folder: Path, data: str) -> dict[str, Any]:
    for kind in ("bin", "json", "idx"):
        content = Path(f"{data}.{kind}").read_bytes()
        (folder / f"cut.{kind}").write_bytes(content[:-10] if kind == "idx" else content)
    return {"data_path": str(folder / "cut")}


def no_intact_checkpoint(folder: Path, data: str) -> dict[str, Any]:
    (folder / "old" / "global_step7").mkdir(parents=True)
    (folder / "old" / "latest").write_text("global_step7")
    return {"data_path": data, "load": str(folder / "old")}


def too_short(folder: Path, data: str) -> dict[str, Any]:
    return {"data_path": data, "split": "999999,1", "seq_length": 10**7, "max_position_embeddings": 10**7}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (vocabulary_mismatch, ["VocabularyError", "another tokenizer than this run's", "preprocess_data.py"]),
        (truncated_index, ["DatasetError", "cut.idx is cut short"]),
        (
            no_intact_checkpoint,
            ["CheckpointError", "holds no intact checkpoint", "remove it to start afresh"],
        ),
        (too_short, ["DatasetError", "one sample needs seq_length + 1 = 10000001", "a smaller seq_length"]),
    ],
)
def test_bad_input_is_told_once_without_a_traceback(
    case: Any, words: list[str], data: str, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "tiny.yml", **{"save": str(tmp_path / "run"), **case(tmp_path, data)})
    done = train(config)
    assert done.returncode == 2, done.stderr
    for word in words:
        assert done.stderr.count(word) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").glob("global_step*"))


def test_missing_data_keys_are_told_before_anything_starts(tmp_path: Path) -> None:
    done = train(write_config(tmp_path / "tiny.yml"))
    assert done.returncode == 2
    assert "data_path" in done.stderr
    assert "tools/preprocess_data.py" in done.stderr
