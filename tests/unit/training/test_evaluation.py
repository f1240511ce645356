"""Evaluation of the model in training: it changes nothing in the run, and says what evaluate.py would."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import deepspeed.pipe  # noqa: F401  imported before the ranks are forked, so that they need not
import numpy as np
import pytest
import torch

import megatron.neox.models.gpt_neox  # noqa: F401
from megatron.neox.config import Config
from megatron.neox.engine.build import build_training_engine
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.live import live_model
from megatron.neox.errors import ConfigError
from megatron.neox.evaluation.in_training import prepare
from megatron.neox.training.run import run
from tests.forked_ranks import run_ranks
from tests.integration.training_case import TINY, metrics, write_dataset

FILES = {
    "Python/u/r/a.py": "import os\nprint(os.name)\n" * 9,
    "Python/u/r/b.py": "x = 1\n" * 20,
    "Go/u/r/a.go": "package main\nfunc main() {}\n" * 5,
}
TASKS: dict[str, Any] = {"eval_tasks_interval": 2, "eval_tasks": ["code_python", "code_go"], "train_iters": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, and files in two languages."""
    folder = tmp_path_factory.mktemp("evaluation")
    for name in ("python_text_document", "go_text_document"):
        write_dataset(folder / name)
    for name, text in FILES.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def train(folder: Path, name: str, *, num_ranks: int = 1, **keys: Any) -> list[dict[str, Any]]:
    save = folder / name
    given = {
        **TINY, "data_path": str(folder / "python_text_document"), "eval_interval": 0, "save": str(save),
        "log_dir": str(folder / "log"), "eval_data_path": str(folder / "files"), **keys,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    assert run_ranks(num_ranks, run, Config.from_flat(given), prepare) == [0] * num_ranks
    return metrics(save)


@pytest.mark.parametrize(
    ("num_ranks", "keys"),
    [
        (1, {}),
        (2, {"zero_optimization": {"stage": 2}}),
        (2, {"model_parallel_size": 2}),
    ],
    ids=["one rank", "dp 2 ZeRO 2", "tp 2"],
)
def test_the_run_goes_on_to_the_bit_as_if_nothing_had_been_measured(
    folder: Path, tmp_path: Path, num_ranks: int, keys: dict[str, Any]
) -> None:
    plain = train(folder, f"{tmp_path.name}_plain", num_ranks=num_ranks, **keys, train_iters=3)
    measured = train(folder, f"{tmp_path.name}_measured", num_ranks=num_ranks, **keys, **TASKS)
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [line[name] for line in measured] == [line[name] for line in plain]
    found = {line["step"]: line for line in measured if "eval/code_python/bits_per_byte" in line}
    assert [*found] == [2, 3]
    assert found[2]["eval/code_python/bits_per_byte"] == found[3]["eval/code_python/bits_per_byte"]  # rate 0
    assert found[3]["eval/code_go/token_perplexity"] > 1
    assert not any("num_" in name for name in found[3])


def test_ranks_share_the_work_and_find_the_same(folder: Path) -> None:
    """Every metric and interval, after steps that moved the weights; dropout would draw others on other ranks."""
    keys = {**TASKS, "train_iters": 4, "hidden_dropout": 0.0}
    alone = [measured(line) for line in train(folder, "alone", **keys)]
    assert [len(line) for line in alone] == [0, 26, 0, 26]
    for name, split in (("dp", {}), ("tp", {"model_parallel_size": 2})):
        together = [measured(line) for line in train(folder, name, num_ranks=2, **keys, **split)]
        for one, two in zip(alone, together, strict=True):
            assert {key for key in one if one[key] is None} == {key for key in two if two[key] is None}
            assert numbers(two) == pytest.approx(numbers(one), rel=1e-6)


def measured(line: dict[str, Any]) -> dict[str, float | None]:
    """What a logged step says of the tasks."""
    return {key: value for key, value in line.items() if key.startswith("eval/")}


def numbers(values: dict[str, float | None]) -> dict[str, float]:
    """Without intervals that a single file has none of."""
    return {key: value for key, value in values.items() if value is not None}


def test_several_validation_datasets_have_losses_of_their_own(folder: Path) -> None:
    paths = [str(folder / f"{name}_text_document") for name in ("python", "go")]
    keys = {
        "data_path": None,
        "train_data_paths": paths,
        "valid_data_paths": paths,
        "eval_interval": 2,
        "train_iters": 2,
    }
    lines = train(folder, "several", num_ranks=2, **keys, eval_iters=3)
    assert [line["step"] for line in lines if "validation_loss" in line] == [2]
    # The same files in both: each alone is as all together.
    assert lines[1]["validation_loss/python"] == pytest.approx(lines[1]["validation_loss/go"], rel=1e-6)
    assert lines[1]["validation_loss/python"] == pytest.approx(lines[1]["validation_loss"], rel=0.2)
    blended = train(folder, "one", **{**keys, "valid_data_paths": paths[:1]})
    assert not any(key.startswith("validation_loss/") for line in blended for key in line)


def test_a_model_too_short_for_a_task_is_refused_before_it_is_trained(folder: Path) -> None:
    keys = {**TINY, **TASKS, "eval_tasks": ["validation_loss"], "eval_data_path": str(folder / "files")}
    with pytest.raises(ConfigError, match="seq_length is 1024, and the model has 32 positions"):
        prepare(Config.from_flat({**keys, "data_path": "unread"}), cast(ProcessGrid, None))


def test_what_ends_an_evaluation_does_not_take_the_checkpoint_along(folder: Path, tmp_path: Path) -> None:
    """A damaged record is met when a task comes to it; the steps before are on disk, and the run goes on from there."""
    records = tmp_path / "records.jsonl"
    records.write_text(json.dumps({"content": "x = 1\n" * 40}) + "\nno record\n")
    keys: dict[str, Any] = {
        **TASKS, "eval_tasks": ["validation_loss"], "eval_data_path": str(records), "checkpoint_factor": 1,
        "eval_task_options": {"validation_loss": {"seq_length": 32}},
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=r"records\.jsonl:2"):
        train(folder, "ended", **keys)
    assert (folder / "ended" / "latest").read_text().strip() == "global_step2"
    lines = train(folder, "ended", **{**keys, "eval_tasks_interval": 0}, load=str(folder / "ended"))
    assert lines[-1]["step"] == 3


def generators(config: Config) -> list[Any]:
    """What each generator draws next, before and after an evaluation that uses and seeds them; and the mode."""

    def states() -> list[Any]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[index]

    with ProcessGrid.build(config.parallelism) as grid:
        engine = build_training_engine(config, grid, padded_vocab_size=512)
        before = states()
        with live_model(engine, vocab_size=512) as model:
            modes = [module.training for module in model.model.modules()]
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
        return [states() == before, any(modes), all(module.training for module in engine.module.modules())]


def test_generators_and_dropout_are_as_they_were() -> None:
    assert run_ranks(1, generators, Config.from_flat(TINY)) == [[True, False, True]]
