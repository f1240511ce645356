"""GPT-NeoX's own checkpoints: what is refused, and in which words."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.checkpoint import open_checkpoint
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.layouts.upstream import UpstreamCheckpoint, check_upstream, embedding_rows, is_upstream
from megatron.neox.models.plan import shard_layouts
from tests.neox_2022 import Miniature, write_checkpoint_of_neox

MINI = Miniature(rows=64, hidden_size=32)


def model_of(**keys: Any) -> ModelConfig:
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 16}
    more = {"max_position_embeddings": 16, "pos_emb": "rotary", "no_weight_tying": True}
    return ModelConfig(**{**sizes, **more, **keys})


def written(folder: Path, mini: Miniature = MINI) -> Path:
    write_checkpoint_of_neox(folder, mini)
    return folder / "global_step150000"


def opened(step: Path, **keys: Any) -> StoredModel:
    model = model_of(**keys)
    return open_checkpoint(step, model, None, shard_layouts(model))


def change(step: Path, number: int, rank: int, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    path = step / f"layer_{number:02d}-model_{rank:02d}-model_states.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)
    edit(state)
    torch.save(state, path)


def refusal(step: Path, number: int = 2, **keys: Any) -> str:
    """What is said when the checkpoint is opened, or else when a layer of it is read."""
    with pytest.raises(CheckpointError) as caught:
        opened(step, **keys).read_layer(number)
    return str(caught.value)


def test_it_says_what_it_found(tmp_path: Path) -> None:
    step = written(tmp_path / "a", replace(MINI, tensor_size=2))
    assert opened(step).kind == "GPT-NeoX checkpoint, layer files, 2 tensor ranks, step 150000"
    step = written(tmp_path / "b", replace(MINI, is_sequential=True))
    assert opened(step).kind == "GPT-NeoX checkpoint, a file for each rank, 1 tensor rank, step 150000"
    assert is_upstream(step)
    assert embedding_rows(step) == 64
    (step / "manifest.json").write_text("{}")
    assert not is_upstream(step)


@pytest.mark.parametrize("prefix", ["sequential.", "module.sequential.", "layers.", ""])
@pytest.mark.parametrize("outer", ["module", None])
def test_names_of_the_sequential_form_have_had_several_prefixes(
    tmp_path: Path, outer: str | None, prefix: str
) -> None:
    step = written(tmp_path, replace(MINI, is_sequential=True))
    expected = {name: tensor.clone() for name, tensor in opened(step).read_layer(3).items()}
    path = step / "mp_rank_00_model_states.pt"
    module = torch.load(path, map_location="cpu", weights_only=False)["module"]
    module = {prefix + name.removeprefix("sequential."): tensor for name, tensor in module.items()}
    torch.save({outer: module} if outer else module, path)
    found = opened(step).read_layer(3)
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)


def test_files_from_before_torch_1_6_are_read(tmp_path: Path) -> None:
    step = written(tmp_path)
    expected = {name: tensor.clone() for name, tensor in opened(step).read_layer(2).items()}
    for path in step.glob("*.pt"):
        state = torch.load(path, map_location="cpu", weights_only=False)
        torch.save(state, path, _use_new_zipfile_serialization=False)
    found = opened(step).read_layer(2)
    assert all(found[name].equal(expected[name]) for name in expected)


def test_a_tied_second_norm_is_left_out(tmp_path: Path) -> None:
    """GPT-NeoX makes both norms under gpt_j_tied, and uses the first."""
    step = written(tmp_path, replace(MINI, parallel_residual=True))
    found = opened(step, gpt_j_residual=True, gpt_j_tied=True).read_layer(2)
    assert not any("post_attention" in name for name in found)


def test_biases_of_a_parallel_residual_are_summed(tmp_path: Path) -> None:
    step = written(tmp_path, replace(MINI, tensor_size=2, parallel_residual=True))
    paths = [step / f"layer_02-model_{rank:02d}-model_states.pt" for rank in range(2)]
    first, second = (
        torch.load(path, map_location="cpu", weights_only=True)["attention.dense.bias"] for path in paths
    )
    assert not first.equal(second)
    found = opened(step, gpt_j_residual=True).read_layer(2)["attention.dense.bias"]
    assert found.equal(first + second)
    assert found.dtype == torch.float16


def test_different_biases_of_a_sequential_residual_are_refused(tmp_path: Path) -> None:
    step = written(tmp_path, replace(MINI, tensor_size=2, parallel_residual=True))
    told = refusal(step)
    assert "layer_02-model_00-model_states.pt and the files of the other ranks hold different" in told
    assert "may have been written with gpt_j_residual: true" in told


def test_replicas_that_drifted_are_averaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    step = written(tmp_path, replace(MINI, tensor_size=4, drift=0.002))
    paths = [step / f"layer_02-model_{rank:02d}-model_states.pt" for rank in range(4)]
    shards = [
        torch.load(path, map_location="cpu", weights_only=True)["input_layernorm.weight"].float()
        for path in paths
    ]
    assert not shards[0].equal(shards[1])
    found = opened(step).read_layer(2)["input_layernorm.weight"]
    assert found.equal((sum(shards) / 4).half())
    assert "should be replicas" not in caplog.text
    change(step, 2, 1, lambda state: state["input_layernorm.weight"].mul_(1.2))
    opened(step).read_layer(2)
    assert "hold different input_layernorm.weight" in caplog.text
    assert "should be replicas; their mean is taken" in caplog.text


def test_layers_of_transformer_engine_are_refused_by_name(tmp_path: Path) -> None:
    step = written(tmp_path)
    change(step, 2, 0, lambda state: state.update({"mlp.fc1_weight": state.pop("mlp.dense_h_to_4h.weight")}))
    told = refusal(step)
    assert "layer_02-model_00-model_states.pt holds layers of Transformer Engine (mlp.fc1_weight)" in told


def test_names_of_another_architecture_are_listed(tmp_path: Path) -> None:
    step = written(tmp_path)
    change(
        step, 3, 0, lambda state: state.update({"attention.rope.weight": state.pop("attention.dense.bias")})
    )
    told = refusal(step, 3)
    assert "layer_03-model_00-model_states.pt is of another architecture" in told
    assert "the model has attention.dense.bias, the file has not" in told
    assert "the file has attention.rope.weight, the model has not" in told


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"num_layers": 3}, "it has 2 transformer layers, and num_layers is 3"),
        ({"no_weight_tying": False}, "it has an output head of its own; give no_weight_tying: true"),
        ({"num_attention_heads": 2}, "rotary positions turn 8 features of a head, and 16 in the config"),
        ({"rotary_pct": 0.5}, "rotary positions turn 8 features of a head, and 4 in the config"),
        ({"rotary_emb_base": 500000}, "its rotary frequencies are not those of rotary_emb_base 500000"),
        ({"pos_emb": "alibi"}, "it has rotary positions, and pos_emb is alibi"),
    ],
)
def test_a_config_of_another_model_is_refused(tmp_path: Path, keys: dict[str, Any], told: str) -> None:
    step = written(tmp_path)
    lines = refusal(step, **keys).splitlines()
    assert lines[0] == f"{step} is not of the config's model"
    assert lines[1].startswith(f"  {told}")


@pytest.mark.parametrize(
    ("number", "name", "shape"),
    [
        (2, "mlp.dense_h_to_4h.weight", (127, 32)),
        (2, "attention.query_key_value.weight", (97,)),
        (0, "word_embeddings.weight", (33,)),
    ],
)
@pytest.mark.parametrize("tensor_size", [1, 2])
def test_shapes_that_cannot_be_divided_are_refused(
    tmp_path: Path, tensor_size: int, number: int, name: str, shape: tuple[int, ...]
) -> None:
    step = written(tmp_path, replace(MINI, tensor_size=tensor_size))
    change(step, number, tensor_size - 1, lambda state: state.update({name: torch.zeros(shape)}))
    model = model_of(activation="swiglu", num_kv_heads=2)
    layouts = shard_layouts(model)[number]
    with pytest.raises(CheckpointError, match=f"{name} is .*; the checkpoint is of another architecture"):
        UpstreamCheckpoint(step, sums_biases=False).read_shard(number, layouts, rank=1, size=2)


def test_a_missing_head_is_told(tmp_path: Path) -> None:
    step = written(tmp_path)
    (step / "layer_06-model_00-model_states.pt").unlink()
    assert "it has no output head; give no_weight_tying: false" in refusal(step)


def test_a_folder_of_one_layer_is_no_model(tmp_path: Path) -> None:
    step = written(tmp_path)
    for path in step.glob("layer_0[2-6]*"):
        path.unlink()
    assert "it holds the layers [0], and not those of a whole model" in refusal(step)


def test_the_recorded_sizes_of_the_sequential_form_are_compared(tmp_path: Path) -> None:
    step = written(tmp_path, replace(MINI, is_sequential=True, names="today"))
    assert "num_attention_heads: 4 in the checkpoint, 8 in the config" in refusal(step, num_attention_heads=8)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    step = written(tmp_path / "a", replace(MINI, tensor_size=2))
    (step / "layer_03-model_01-model_states.pt").unlink()
    assert "layer_03-model_01-model_states.pt is missing" in refusal(step)
    (step / "layer_00-model_01-model_states.pt").unlink()
    assert "layer_00-model_01-model_states.pt is missing" in refusal(step)
    step = written(tmp_path / "b", replace(MINI, tensor_size=4, is_sequential=True))
    (step / "mp_rank_02_model_states.pt").unlink()
    assert "mp_rank_02_model_states.pt is missing" in refusal(step)


def test_layer_files_that_were_lost_are_told(tmp_path: Path) -> None:
    step = written(tmp_path)
    for path in step.glob("layer_*"):
        path.unlink()
    told = refusal(step)
    assert "mp_rank_00_model_states.pt holds no weights" in told
    assert "has no layer files; give the folder of a whole checkpoint" in told


class Trap:
    """Pickles as a command that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("is_sequential", [False, True])
def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, is_sequential: bool) -> None:
    step = written(tmp_path, replace(MINI, is_sequential=is_sequential))
    name = "mp_rank_00_model_states.pt" if is_sequential else "layer_02-model_00-model_states.pt"
    state = torch.load(step / name, map_location="cpu", weights_only=False)
    torch.save({**state, "trap": Trap(tmp_path / "created")}, step / name)
    told = refusal(step)
    assert told.startswith(f"{step / name} wants to call posix.system, which is no part of a tensor")
    assert not (tmp_path / "created").exists()
    torch.load(step / name, map_location="cpu", weights_only=False)  # the trap is a real one
    assert (tmp_path / "created").exists()


@pytest.mark.parametrize(
    ("as_stored", "told"),
    [
        (lambda weight: weight.to(torch.int8), "is of type int8, and weights are floating-point numbers"),
        (lambda weight: weight.view(torch.int16), "is of type int16"),
        (lambda weight: weight.bool(), "is of type bool"),
        (lambda weight: weight.float().to(torch.complex64), "is of type complex64"),
        (lambda weight: weight.float().to_sparse(), "holds no values of its own (sparse_coo, cpu)"),
        (lambda weight: weight.to("meta"), "holds no values of its own (strided, meta)"),
    ],
    ids=["int8", "bits", "bool", "complex", "sparse", "meta"],
)
@pytest.mark.parametrize("is_sequential", [False, True])
def test_what_is_no_weight_is_never_taken_for_one(
    tmp_path: Path, as_stored: Callable[[Tensor], Tensor], told: str, is_sequential: bool
) -> None:
    step = written(tmp_path, replace(MINI, is_sequential=is_sequential))
    path = step / ("mp_rank_00_model_states.pt" if is_sequential else "layer_02-model_00-model_states.pt")
    content = torch.load(path, map_location="cpu", weights_only=False)
    state, name = (content["module"], "sequential.2.") if is_sequential else (content, "")
    state[f"{name}attention.dense.weight"] = as_stored(state[f"{name}attention.dense.weight"])
    torch.save(content, path)
    assert refusal(step).startswith(f"{path}: attention.dense.weight {told}")


def test_a_tensor_without_a_name_is_refused(tmp_path: Path) -> None:
    step = written(tmp_path)
    change(step, 2, 0, lambda state: state.update({3: torch.ones(1)}))  # pyright: ignore
    assert "3 has a number for a name" in refusal(step)


def test_fp16_tables_are_noted_unless_the_config_chose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step = written(tmp_path)
    caplog.set_level(logging.INFO)
    for table in ("fp32", "fp16_legacy"):
        check_upstream(step, model_of(rotary_table=table))
    assert caplog.text == ""
    check_upstream(step, model_of())
    assert "trained with rotary tables in fp16" in caplog.text
    assert "rotary_table: fp16_legacy reproduces" in caplog.text
