"""What saving leaves behind, and what loading refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.neox.engine.checkpoint import load_checkpoint, save_checkpoint
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.errors import CheckpointError, ResourceError
from tests.forked_ranks import run_ranks
from tests.numerics.tiny_run import engine_on, make_config, num_ranks, steps

LAYER_FILES = [f"layer_{number:02d}-model_00" for number in (0, 2, 3, 4, 5, 7, 8)]


def save(folder: Path, grid: dict[str, int], keys: dict[str, Any]) -> None:
    config = make_config(grid, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        steps(engine, 1)
        save_checkpoint(
            engine, folder, state={"step": 1}, config_keys={"b": 1, "a": [2]}, tokenizer={"type": "x"}
        )


def load_error(folder: Path, keys: dict[str, Any]) -> str:
    """The message with which loading global_step1 fails; "" where it does not."""
    config = make_config({}, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        try:
            load_checkpoint(engine, folder / "global_step1", weights_only=config.checkpoint.finetune)
        except CheckpointError as error:
            return str(error)
        return ""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    run_ranks(1, save, tmp_path, {}, {})
    return tmp_path


def test_a_checkpoint_is_files_of_layers_a_config_and_a_manifest(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["global_step1", "latest"]
    assert (saved / "latest").read_text() == "global_step1\n"
    checkpoint = saved / "global_step1"
    names = [f"{layer}-{kind}_states.pt" for layer in LAYER_FILES for kind in ("model", "optim")]
    assert sorted(path.name for path in checkpoint.iterdir()) == sorted([*names, "configs", "manifest.json"])
    assert (checkpoint / "configs" / "config.yml").read_text() == "a:\n- 2\nb: 1\n"
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert manifest["step"] == 1
    assert manifest["state"] == {"step": 1}
    assert manifest["tokenizer"] == {"type": "x"}
    assert sorted(manifest["files"]) == sorted([*names, "configs/config.yml"])
    assert manifest["plugins"] == []
    assert manifest["optimizer"] == {
        "name": "adam",
        "tensors": ["exp_avg", "exp_avg_sq"],
        "numbers": {"step": 1.0},
    }


def test_a_layer_file_holds_the_tensors_of_gpt_neox(saved: Path) -> None:
    weights = torch.load(saved / "global_step1" / f"{LAYER_FILES[1]}-model_states.pt", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {
        "input_layernorm.weight": (64,),
        "input_layernorm.bias": (64,),
        "post_attention_layernorm.weight": (64,),
        "post_attention_layernorm.bias": (64,),
        "attention.query_key_value.weight": (192, 64),
        "attention.query_key_value.bias": (192,),
        "attention.dense.weight": (64, 64),
        "attention.dense.bias": (64,),
        "mlp.dense_h_to_4h.weight": (256, 64),
        "mlp.dense_h_to_4h.bias": (256,),
        "mlp.dense_4h_to_h.weight": (64, 256),
        "mlp.dense_4h_to_h.bias": (64,),
    }


def test_tied_weights_have_one_file(tmp_path: Path) -> None:
    run_ranks(2, save, tmp_path, {"pp": 2}, {"no_weight_tying": False})
    names = {path.name[:8] for path in (tmp_path / "global_step1").glob("*model_states.pt")}
    assert names == {"layer_00", "layer_02", "layer_03", "layer_04", "layer_05", "layer_07"}


def test_bf16_weights_are_saved_in_bf16_beside_their_fp32_masters(tmp_path: Path) -> None:
    run_ranks(1, save, tmp_path, {}, {"precision": "bf16"})
    layer = tmp_path / "global_step1" / LAYER_FILES[-1]
    weights = torch.load(f"{layer}-model_states.pt", weights_only=True)
    state = torch.load(f"{layer}-optim_states.pt", weights_only=True)
    assert weights["final_linear.weight"].dtype == torch.bfloat16
    assert torch.equal(state["fp32"]["final_linear.weight"].bfloat16(), weights["final_linear.weight"])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("model", truncate, "cannot be read"),
        ("model", Path.unlink, "is missing"),
        ("optim", truncate, "cannot be read"),
        ("optim", Path.unlink, "is missing"),
    ],
)
def test_a_damaged_file_is_named(
    saved: Path, kind: str, damage: Callable[[Path], None], message: str
) -> None:
    name = f"{LAYER_FILES[2]}-{kind}_states.pt"
    damage(saved / "global_step1" / name)
    found = run_ranks(1, load_error, saved, {})[0]
    assert message in found
    assert name.replace("optim", "").split("-")[0] in found


def test_another_architecture_is_told_key_by_key(saved: Path) -> None:
    found = run_ranks(1, load_error, saved, {"hidden_size": 32, "norm": "rmsnorm", "hidden_dropout": 0.1})[0]
    assert "hidden_size: 64 in the checkpoint, 32 in the config" in found
    assert "norm: {'name': 'layernorm', 'options': {}} in the checkpoint" in found
    assert "dropout" not in found


def test_another_optimizer_is_told(saved: Path) -> None:
    found = run_ranks(1, load_error, saved, {"optimizer": {"type": "lion", "params": {"lr": 1e-3}}})[0]
    assert "holds the state of the optimizer adam, and the config asks for lion" in found
    assert run_ranks(1, load_error, saved, {"optimizer": {"type": "adamw", "params": {"lr": 1e-3}}}) == [""]


def test_a_checkpoint_of_weights_alone_is_not_resumed(tmp_path: Path) -> None:
    run_ranks(1, save, tmp_path, {}, {"no_save_optim": True})
    assert "holds weights only" in run_ranks(1, load_error, tmp_path, {})[0]


def finetuned_step(folder: Path, keys: dict[str, Any]) -> int:
    config = make_config({}, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        load_checkpoint(engine, folder / "global_step1", weights_only=True)
        return engine.step


def test_weights_alone_are_loaded_at_their_step_or_for_finetuning_at_0(saved: Path) -> None:
    other = {"optimizer": {"type": "lion", "params": {"lr": 1e-3}}}
    assert run_ranks(1, finetuned_step, saved, {"no_load_optim": True, **other}) == [1]
    assert run_ranks(1, finetuned_step, saved, {"finetune": True, **other}) == [0]


def test_a_folder_of_gpt_neox_can_be_finetuned_but_not_resumed(saved: Path) -> None:
    (saved / "global_step1" / "manifest.json").unlink()
    assert "give finetune: true" in run_ranks(1, load_error, saved, {})[0]
    assert run_ranks(1, finetuned_step, saved, {"finetune": True}) == [0]


def test_everything_that_a_folder_of_gpt_neox_lacks_is_told_before_finetuning(saved: Path) -> None:
    checkpoint = saved / "global_step1"
    (checkpoint / "manifest.json").unlink()
    for layer, name in (
        (LAYER_FILES[1], "mlp.dense_h_to_4h.bias"),
        (LAYER_FILES[3], "attention.dense.weight"),
    ):
        path = checkpoint / f"{layer}-model_states.pt"
        weights = torch.load(path, weights_only=True)
        del weights[name]
        torch.save(weights, path)
    found = run_ranks(1, load_error, saved, {"finetune": True, "no_load_optim": True})[0]
    assert "layer 2: mlp.dense_h_to_4h.bias is missing" in found
    assert "layer 4: attention.dense.weight is missing" in found
    (checkpoint / f"{LAYER_FILES[1]}-model_states.pt").unlink()
    assert "layer 2 is missing" in run_ranks(1, load_error, saved, {"finetune": True})[0]


def save_where_nothing_can_be_written(folder: Path, grid: dict[str, int]) -> str:
    config = make_config(grid)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        try:
            save_checkpoint(engine, folder, state={}, config_keys={}, tokenizer={})
        except ResourceError as error:
            return str(error)
        return ""


def test_a_failed_save_is_told_on_every_rank_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    grid = {"pp": 2}
    messages = run_ranks(num_ranks(grid), save_where_nothing_can_be_written, tmp_path / "file", grid)
    assert all(
        f"{tmp_path / 'file' / 'global_step0'} could not be written" in message for message in messages
    )
    assert all("see that the folder can be written" in message for message in messages)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
