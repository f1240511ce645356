"""Whole runs in one process: where they begin, what they save, and what they refuse."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepspeed.pipe  # noqa: F401  imported before the ranks are forked, so that they need not
import pytest

import megatron.neox.models.gpt_neox  # noqa: F401
from megatron.neox.config import Config
from megatron.neox.errors import NeoXError
from megatron.neox.layouts.manifest import Manifest
from megatron.neox.plugins import load_plugins
from megatron.neox.training.run import run
from tests.forked_ranks import run_ranks
from tests.integration.training_case import TINY, metrics, write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "code_text_document")


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save folder of a run of 6 steps with checkpoints at 3 and 6."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train(data, save=str(folder), train_iters=6, checkpoint_factor=3)[0] == 0
    return folder


def _run(keys: dict[str, Any]) -> tuple[int, str]:
    """The exit code, and the log or the error."""
    try:
        code = run(Config.from_flat(keys))
    except NeoXError as error:
        logging.shutdown()
        return error.exit_code, f"{type(error).__name__}: {error}"
    return code, (Path(keys["log_dir"]) / "rank_0.log").read_text()


def train(data: str, *, num_ranks: int = 1, **keys: Any) -> tuple[int, str]:
    """Run the tiny config with `keys` put over it; what rank 0 returned."""
    given = {**TINY, "data_path": data, "eval_interval": 0, "log_dir": f"{data}_log", **keys}
    log = Path(given["log_dir"]) / "rank_0.log"
    log.unlink(missing_ok=True)
    given = {key: value for key, value in given.items() if value is not None}
    return run_ranks(num_ranks, _run, given)[0]


def manifest(folder: Path, step: int) -> dict[str, Any]:
    return json.loads((folder / f"global_step{step}" / "manifest.json").read_text())


def tensors(folder: Path, step: int) -> dict[str, Any]:
    """Checksums of a checkpoint's weights and optimizer state."""
    return {name: found for name, found in manifest(folder, step)["files"].items() if name.endswith(".pt")}


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("global_step*"))


def test_a_run_from_an_earlier_step_ends_the_same(trained: Path, data: str, tmp_path: Path) -> None:
    save = tmp_path / "run"
    code, log = train(data, load=str(trained), iteration=3, save=str(save), train_iters=6)
    assert code == 0
    assert f"resumed from {trained}/global_step3" in log
    assert [line["step"] for line in metrics(save)] == [4, 5, 6]
    assert tensors(save, 6) == tensors(trained, 6)


def test_another_number_of_ranks_reads_the_same_batches(trained: Path, data: str, tmp_path: Path) -> None:
    save = tmp_path / "run"
    keys = {"load": str(trained), "iteration": 3, "hidden_dropout": 0.0, "train_iters": 4}
    assert train(data, save=str(save / "1"), **keys)[0] == 0
    assert train(data, save=str(save / "2"), num_ranks=2, **keys)[0] == 0
    (alone,), (together,) = metrics(save / "1"), metrics(save / "2")
    assert alone["loss"] == pytest.approx(together["loss"], abs=1e-5)
    assert alone["grad_norm"] == pytest.approx(together["grad_norm"], abs=1e-4)


def test_another_batch_size_goes_on_behind_the_samples_read(trained: Path, data: str, tmp_path: Path) -> None:
    save = tmp_path / "run"
    train(data, load=str(trained), iteration=3, save=str(save), train_iters=5, train_batch_size=4)
    assert manifest(save, 5)["state"]["num_samples"] == 3 * 8 + 2 * 4


def test_finetuning_begins_at_step_0_with_the_weights(trained: Path, data: str, tmp_path: Path) -> None:
    save = tmp_path / "run"
    code, log = train(
        data, load=str(trained), finetune=True, save=str(save), train_iters=1, hidden_dropout=0.0
    )
    assert code == 0
    assert f"step 0 begins with the weights of {trained}/global_step6" in log
    assert [line["step"] for line in metrics(save)] == [1]
    assert metrics(save)[0]["loss"] < metrics(trained)[2]["loss"]


def test_a_run_does_not_go_back_in_its_own_folder(trained: Path, data: str) -> None:
    code, error = train(data, load=str(trained), save=str(trained), iteration=3, train_iters=6)
    assert code == 2
    assert "holds global_step6, but this run begins at step 3; else give another save folder" in error
    assert steps(trained) == ["global_step3", "global_step6"]


def test_another_order_of_samples_is_said(trained: Path, data: str) -> None:
    _, log = train(data, load=str(trained), train_iters=7, split="50,50")
    assert "the order of training samples is not the one that the checkpoint counted in" in log


def test_without_a_save_folder_nothing_is_written_and_that_is_said(data: str) -> None:
    code, log = train(data, train_iters=1)
    assert code == 0
    assert log.count("nothing will be saved: the key save names no folder") == 1


def test_an_absent_load_folder_is_a_fresh_start(data: str, tmp_path: Path) -> None:
    code, log = train(data, load=str(tmp_path / "absent"), train_iters=1)
    assert code == 0
    assert f"fresh start: there is no checkpoint in {tmp_path / 'absent'}" in log


def test_a_finished_run_is_left_as_it_is(trained: Path, data: str) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    code, log = train(data, load=str(trained), save=str(trained), train_iters=6)
    assert code == 0
    assert "nothing to do: step 6 of 6 is reached; a larger train_iters goes on" in log
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_exit_interval_and_old_checkpoints(data: str, tmp_path: Path) -> None:
    save = tmp_path / "run"
    keys = {"checkpoint_factor": 1, "keep_last_n_checkpoints": 2, "exit_interval": 3, "train_iters": 9}
    code, log = train(data, save=str(save), **keys)
    assert code == 0
    assert "exit_interval: the run stops after step 3" in log
    assert steps(save) == ["global_step2", "global_step3"]


def test_losses_that_are_no_numbers_end_the_run(data: str, tmp_path: Path) -> None:
    save = tmp_path / "run"
    optimizer = {"type": "sgd", "params": {"lr": 1e30}}
    keys = {"optimizer": optimizer, "train_iters": 9, "stop_after_bad_losses": 2, "gradient_clipping": 0.0}
    code, error = train(data, save=str(save), checkpoint_factor=2, **keys)
    assert code == 1
    assert "ResourceError: the loss was not a number for 2 steps in a row" in error
    assert "a lower learning rate" in error
    assert not steps(save)[1:]
    assert metrics(save)[-1]["loss"] is None


def test_a_padded_vocabulary_is_enough_to_train(data: str) -> None:
    keys = {"tokenizer_type": None, "padded_vocab_size": 512}
    assert train(data, train_iters=1, **keys)[0] == 0
    code, error = train(data, train_iters=1, tokenizer_type=None, padded_vocab_size=256)
    assert code == 2
    assert "holds ids of a vocabulary of 512, but padded_vocab_size is 256" in error
    code, error = train(data, train_iters=1, tokenizer_type=None)
    assert code == 2
    assert "vocab_file is missing" in error


def test_hooks_of_the_config_are_called(data: str, tmp_path: Path) -> None:
    chosen = [
        {"type": "memory", "interval": 2},
        {"type": "profile", "folder": str(tmp_path), "start": 1, "steps": 1},
    ]
    code, log = train(data, train_iters=3, hooks=chosen)
    assert code == 0
    assert "step 2 memory: " in log
    assert json.loads((tmp_path / "rank_0.json").read_text())["traceEvents"]


STOP_AFTER_2 = """
from megatron.neox.plugins import hooks
from megatron.neox.training.hook import Hook, Stop


@hooks.register("stop_for_test")
class StopAfter(Hook):
    '''Stop after some steps.'''

    def __init__(self, *, steps: int) -> None:
        self.steps = steps

    def on_step(self, run, result):
        if run.step == self.steps:
            run.stop = Stop("enough", 7)
"""


def test_a_hook_that_stops_the_run_still_gets_its_checkpoint(data: str, tmp_path: Path) -> None:
    plugin = tmp_path / "stop.py"
    plugin.write_text(STOP_AFTER_2)
    load_plugins([str(plugin)])
    hooks = [{"type": "stop_for_test", "steps": 2}]
    assert train(data, train_iters=5, save=str(tmp_path / "run"), hooks=hooks)[0] == 7
    assert steps(tmp_path / "run") == ["global_step2"]


def test_leftovers_of_a_killed_run_are_cleared(data: str, tmp_path: Path) -> None:
    for name in ("global_step7.tmp", "global_step1.removed"):
        (tmp_path / "run" / name).mkdir(parents=True)
    assert train(data, train_iters=1, save=str(tmp_path / "run"))[0] == 0
    assert steps(tmp_path / "run") == ["global_step1"]


def test_the_untrained_model_can_be_saved(data: str, tmp_path: Path) -> None:
    keys = {"train_iters": 1, "extra_save_iters": [0], "save": str(tmp_path / "run")}
    assert train(data, **keys)[0] == 0
    assert steps(tmp_path / "run") == ["global_step0", "global_step1"]
    code, log = train(data, train_iters=1, load=str(tmp_path / "run"), iteration=0)
    assert code == 0
    assert f"resumed from {tmp_path / 'run' / 'global_step0'}" in log


def test_a_load_folder_of_something_else_is_an_error(data: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    code, error = train(data, load=str(tmp_path), train_iters=1)
    assert code == 2
    assert f"load: {tmp_path} holds no checkpoint, but other files (notes.txt)" in error


def test_finetuning_needs_weights(data: str, tmp_path: Path) -> None:
    code, error = train(data, load=str(tmp_path / "absent"), finetune=True, train_iters=1)
    assert code == 2
    assert f"load: {tmp_path / 'absent'} does not exist; give a folder that holds global_step*" in error


# The 512 ids of the tokenizer are padded to 600 rows for one tensor rank and to 800 for two.
PADDED = {"make_vocab_size_divisible_by": 200, "hidden_dropout": 0.0}


@pytest.mark.parametrize(("old", "new", "rows", "computed"), [(1, 2, 600, 800), (2, 1, 800, 600)])
def test_a_run_keeps_the_rows_of_its_vocabulary_on_other_tensor_ranks(
    data: str, tmp_path: Path, old: int, new: int, rows: int, computed: int
) -> None:
    keys = {"save": str(tmp_path / "run"), "load": str(tmp_path / "run"), **PADDED}
    assert train(data, num_ranks=old, model_parallel_size=old, train_iters=2, **keys)[0] == 0
    straight = {**keys, "save": str(tmp_path / "straight")}
    assert train(data, num_ranks=old, model_parallel_size=old, train_iters=4, **straight)[0] == 0
    code, log = train(data, num_ranks=new, model_parallel_size=new, train_iters=4, **keys)
    assert code == 0
    checkpoint = tmp_path / "run" / "global_step2"
    said = f"the embedding has {rows} rows, as {checkpoint} has, and not the {computed} that 512 ids are padded to"
    assert log.count(said) == 1
    assert f"resharding: from pp 1, tp {old}, dp 1, ZeRO 1 to pp 1, tp {new}, dp 1, ZeRO 1" in log
    assert manifest(tmp_path / "run", 4)["architecture"]["padded_vocab_size"] == rows
    losses = [line["loss"] for line in metrics(tmp_path / "run")[2:]]
    assert losses == pytest.approx([line["loss"] for line in metrics(tmp_path / "straight")], abs=1e-5)


def test_rows_that_the_tensor_ranks_cannot_share_are_refused_with_what_can(data: str, tmp_path: Path) -> None:
    keys = {"save": str(tmp_path), "load": str(tmp_path), "make_vocab_size_divisible_by": 171}
    assert train(data, train_iters=1, **keys)[0] == 0
    code, error = train(data, num_ranks=2, model_parallel_size=2, train_iters=2, **keys)
    assert code == 2
    assert (
        f"the embedding of {tmp_path / 'global_step1'} has 513 rows, which 2 tensor ranks cannot share"
        in error
    )
    assert "give model_parallel_size 1" in error


def test_finetuning_takes_the_rows_of_a_folder_of_gpt_neox(data: str, tmp_path: Path) -> None:
    assert train(data, train_iters=1, save=str(tmp_path), **PADDED)[0] == 0
    (tmp_path / "global_step1" / "manifest.json").unlink()
    keys = {"load": str(tmp_path), "finetune": True, "save": str(tmp_path / "new"), **PADDED}
    assert train(data, num_ranks=2, model_parallel_size=2, train_iters=1, **keys)[0] == 0
    assert manifest(tmp_path / "new", 1)["architecture"]["padded_vocab_size"] == 600


def test_another_padded_vocab_size_than_the_checkpoints_is_told(trained: Path, data: str) -> None:
    code, error = train(data, load=str(trained), train_iters=7, padded_vocab_size=640)
    assert code == 2
    assert f"padded_vocab_size is 640, and the embedding of {trained / 'global_step6'} has 512 rows" in error


def test_another_tokenizer_is_refused_unless_allowed(data: str, tmp_path: Path) -> None:
    folder = tmp_path / "global_step1"
    assert train(data, train_iters=1, save=str(tmp_path))[0] == 0
    other = {"type": "GPT2BPETokenizer", "vocab_size": 512}
    replace(Manifest.read(folder), tokenizer=other).write(folder)
    for keys in ({}, {"finetune": True}):
        code, error = train(data, load=str(tmp_path), train_iters=2, **keys)
        assert code == 2
        assert f"{folder} was trained with another tokenizer" in error
        assert "  type: GPT2BPETokenizer then, CharLevelTokenizer now\n" in error
        assert "allow_tokenizer_mismatch: true" in error
    code, log = train(data, load=str(tmp_path), train_iters=2, allow_tokenizer_mismatch=True)
    assert code == 0
    assert log.count("allow_tokenizer_mismatch: going on with it") == 1


def test_a_run_without_vocabulary_files_records_the_tokenizer_of_its_data(
    trained: Path, data: str, tmp_path: Path
) -> None:
    keys = {"load": str(trained), "save": str(tmp_path), "tokenizer_type": None}
    assert train(data, train_iters=7, **keys)[0] == 0
    assert manifest(tmp_path, 7)["tokenizer"] == manifest(trained, 6)["tokenizer"]


def test_a_damaged_checkpoint_is_passed_over_only_when_that_is_asked_for(data: str, tmp_path: Path) -> None:
    run, straight = tmp_path / "run", tmp_path / "straight"
    keys = {"checkpoint_factor": 2, "train_iters": 4}
    assert train(data, save=str(straight), **keys)[0] == 0
    for fallback in ({"iteration": 2}, {"load_fallback": True}):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(straight, run)
        damaged = run / "global_step4" / "layer_02-model_00-optim_states.pt"
        damaged.write_bytes(damaged.read_bytes()[:-10])
        code, error = train(data, save=str(run), load=str(run), **keys)
        assert code == 2
        assert f"{run / 'global_step4'} is damaged: {damaged.name} has " in error
        assert "the newest intact checkpoint is global_step2: give --iteration 2 to load it" in error
        code, log = train(data, save=str(run), load=str(run), **keys, **fallback)
        assert code == 0
        assert f"resumed from {run / 'global_step2'}" in log
        assert tensors(run, 4) == tensors(straight, 4)
        assert (run / "latest").read_text() == "global_step4\n"
        assert train(data, save=str(run), load=str(run), **keys)[0] == 0
