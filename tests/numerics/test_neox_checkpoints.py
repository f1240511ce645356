"""GPT-NeoX's checkpoints compute here what the same weights compute in transformers, whoever wrote and reads them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepspeed.pipe  # noqa: F401  imported before the ranks are forked, so that they need not
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

import megatron.neox.models.gpt_neox
from megatron.neox.config import Config, ModelConfig
from megatron.neox.engine.build import build_training_engine
from megatron.neox.engine.checkpoint import load_checkpoint
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.inference import load_model
from megatron.neox.engine.weights import read_weights
from megatron.neox.layouts.checkpoint import open_checkpoint, write_checkpoint
from megatron.neox.models.plan import plain_model, shard_layouts
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.tokenizers import build_tokenizer
from tests.forked_ranks import run_ranks
from tests.neox_2022 import Layers, Miniature, write_checkpoint_of_neox

LENGTH = 48
SMALL = Miniature(rows=640)
TOLERANCE = 1e-5


def keys_of(mini: Miniature) -> dict[str, Any]:
    """YAML keys of a miniature."""
    keys: dict[str, Any] = {
        "num_layers": mini.num_layers,
        "hidden_size": mini.hidden_size,
        "num_attention_heads": mini.num_heads,
        "seq_length": LENGTH,
        "max_position_embeddings": LENGTH,
        "pos_emb": "rotary",
        "no_weight_tying": True,
        "gpt_j_residual": mini.parallel_residual,
    }
    if mini.is_llama:
        keys |= {"norm": "rmsnorm", "rms_norm_epsilon": 1e-6, "num_kv_heads": mini.num_kv_heads}
        keys |= {"activation": "swiglu", "intermediate_size": mini.mlp_size}
        keys |= {"use_bias_in_attn_linear": False, "use_bias_in_mlp": False}
    else:
        keys |= {"activation": "gelu", "bias_gelu_fusion": True}
    return keys


def token_ids() -> Tensor:
    return torch.randint(0, 512, (2, LENGTH), generator=torch.Generator().manual_seed(3))


def logits_here(folder: Path, mini: Miniature) -> Tensor:
    """Logits of the layers that one rank fills from the checkpoint, [b, s, V]."""
    model, parallel = ModelConfig(**keys_of(mini)), TensorParallel.single()
    plans = megatron.neox.models.gpt_neox.build_layers(model, padded_vocab_size=mini.rows, parallel=parallel)
    step = folder / f"global_step{mini.step}"
    net = plain_model(plans, weights=lambda number, layer: read_weights(step, number, layer, rank=0, size=1))
    with torch.inference_mode():
        return net.eval()(token_ids()).transpose(0, 1)


def logits_there(layers: Layers, mini: Miniature) -> Tensor:
    """Logits of transformers' model with the whole tensors, in fp32."""
    twin = llama_twin(layers, mini) if mini.is_llama else neox_twin(layers, mini)
    with torch.inference_mode():
        logits = twin.eval()(token_ids()).logits
    assert logits.abs().max() > 1
    return logits


def neox_twin(layers: Layers, mini: Miniature) -> Any:
    """transformers' GPT-NeoX, its weights those of `layers`."""
    config = GPTNeoXConfig(
        vocab_size=mini.rows,
        hidden_size=mini.hidden_size,
        num_hidden_layers=mini.num_layers,
        num_attention_heads=mini.num_heads,
        intermediate_size=mini.mlp_size,
        max_position_embeddings=LENGTH,
        rotary_pct=1.0,
        use_parallel_residual=mini.parallel_residual,
        hidden_act="gelu_pytorch_tanh",
        tie_word_embeddings=False,
    )
    names = {"mlp.linear1": "mlp.dense_h_to_4h", "mlp.linear2": "mlp.dense_4h_to_h"}
    state = {}
    for number in range(2, mini.num_layers + 2):
        for name, tensor in layers[number].items():
            module = name.rpartition(".")[0]
            state[f"gpt_neox.layers.{number - 2}.{name.replace(module, names.get(module, module))}"] = tensor
    norm = layers[mini.num_layers + 3]
    state |= {f"gpt_neox.final_layer_norm.{part}": norm[f"norm.{part}"] for part in ("weight", "bias")}
    state["gpt_neox.embed_in.weight"] = layers[0]["word_embeddings.weight"]
    state["lm_head.weight"] = layers[mini.num_layers + 4]["final_linear.weight"]
    twin = GPTNeoXForCausalLM(config)
    twin.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
    return twin


def llama_twin(layers: Layers, mini: Miniature) -> Any:
    """transformers' Llama, its weights those of `layers`."""
    groups = mini.num_kv_heads or mini.num_heads
    config = LlamaConfig(
        vocab_size=mini.rows,
        hidden_size=mini.hidden_size,
        num_hidden_layers=mini.num_layers,
        num_attention_heads=mini.num_heads,
        num_key_value_heads=groups,
        intermediate_size=mini.mlp_size,
        max_position_embeddings=LENGTH,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    state = {
        "model.embed_tokens.weight": layers[0]["word_embeddings.weight"],
        "model.norm.weight": layers[mini.num_layers + 3]["norm.scale"],
        "lm_head.weight": layers[mini.num_layers + 4]["final_linear.weight"],
    }
    for number in range(2, mini.num_layers + 2):
        layer, prefix = layers[number], f"model.layers.{number - 2}"
        fused = layer["attention.query_key_value.weight"]
        if mini.num_kv_heads is None:  # heads of queries, keys, values
            parts = fused.view(mini.num_heads, 3, mini.head_size, -1).unbind(1)
            q, k, v = (part.reshape(-1, mini.hidden_size) for part in parts)
        else:
            q, k, v = fused.split([count * mini.head_size for count in (mini.num_heads, groups, groups)])
        for name, tensor in (("q", q), ("k", k), ("v", v), ("o", layer["attention.dense.weight"])):
            state[f"{prefix}.self_attn.{name}_proj.weight"] = tensor
        for name, key in (("up", "value"), ("gate", "gate"), ("down", "mlp.linear2.weight")):
            state[f"{prefix}.mlp.{name}_proj.weight"] = layer[key]
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{prefix}.{name}.weight"] = layer[f"{name}.scale"]
    twin = LlamaForCausalLM(config)
    twin.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
    return twin


@pytest.mark.parametrize("tensor_size", [1, 2, 4])
@pytest.mark.parametrize("parallel_residual", [False, True], ids=["sequential", "parallel"])
@pytest.mark.parametrize("names", ["2022", "today"])
@pytest.mark.parametrize("is_sequential", [False, True], ids=["layer files", "rank files"])
def test_logits_equal_transformers(
    tmp_path: Path, is_sequential: bool, names: str, parallel_residual: bool, tensor_size: int
) -> None:
    mini = replace(
        SMALL,
        is_sequential=is_sequential,
        names=names,
        parallel_residual=parallel_residual,
        tensor_size=tensor_size,
    )
    layers = write_checkpoint_of_neox(tmp_path, mini)
    torch.testing.assert_close(
        logits_here(tmp_path, mini), logits_there(layers, mini), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("tensor_size", [1, 2])
@pytest.mark.parametrize("num_kv_heads", [None, 2])
@pytest.mark.parametrize("names", ["llama", "today"])
def test_logits_equal_transformers_llama(
    tmp_path: Path, names: str, num_kv_heads: int | None, tensor_size: int
) -> None:
    """Grouped queries of both layouts; without them only the names of old are a llama's here."""
    names = "llama" if num_kv_heads is None else names
    mini = replace(SMALL, names=names, num_kv_heads=num_kv_heads, tensor_size=tensor_size)
    layers = write_checkpoint_of_neox(tmp_path, mini)
    torch.testing.assert_close(
        logits_here(tmp_path, mini), logits_there(layers, mini), rtol=0, atol=TOLERANCE
    )


def test_a_head_split_by_hidden_size_is_joined(tmp_path: Path) -> None:
    """output_layer_parallelism "row", which was the default in 2022."""
    mini = replace(SMALL, tensor_size=2, row_head=True)
    layers = write_checkpoint_of_neox(tmp_path, mini)
    torch.testing.assert_close(
        logits_here(tmp_path, mini), logits_there(layers, mini), rtol=0, atol=TOLERANCE
    )


# --- on our grids -------------------------------------------------------------------------------------------


def make_config(mini: Miniature, folder: Path, grid: dict[str, int]) -> Config:
    return Config.from_flat(
        keys_of(mini)
        | {
            "tokenizer_type": "CharLevelTokenizer",
            "pipe_parallel_size": grid.get("pp", 0),
            "model_parallel_size": grid.get("tp", 1),
            "train_micro_batch_size_per_gpu": 2,
            "gradient_accumulation_steps": 1,
            "train_iters": 1,
            "optimizer": {"type": "adam", "params": {"lr": 1e-3}},
            "load": str(folder),
            "finetune": True,
        }
    )


def infer(mini: Miniature, folder: Path, grid: dict[str, int]) -> Any:
    config = make_config(mini, folder, grid)
    with ProcessGrid.build(config.parallelism, fold_pipeline=True) as process_grid:
        model = load_model(config, process_grid, tokenizer=build_tokenizer(config.tokenizer))
        return model.logits(token_ids())[..., :512].numpy()  # an array, which travels between processes


def first_loss(mini: Miniature, folder: Path, grid: dict[str, int]) -> float:
    """Loss of the first step after finetune: true, before any update."""
    config = make_config(mini, folder, grid)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = build_training_engine(config, process_grid, padded_vocab_size=mini.rows)
        load_checkpoint(engine, folder / f"global_step{mini.step}", weights_only=True)
        ids = token_ids()
        return engine.train_step(iter([(ids, ids.roll(-1, 1))])).loss


GRIDS = [{"tp": 2}, {"pp": 2}, {"pp": 2, "tp": 2}, {"dp": 2}]


@pytest.mark.parametrize("is_sequential", [False, True], ids=["layer files", "rank files"])
@pytest.mark.parametrize("parallel_residual", [False, True], ids=["sequential", "parallel"])
def test_tensor_ranks_fill_themselves(tmp_path: Path, parallel_residual: bool, is_sequential: bool) -> None:
    mini = replace(SMALL, tensor_size=4, parallel_residual=parallel_residual, is_sequential=is_sequential)
    expected = logits_there(write_checkpoint_of_neox(tmp_path, mini), mini)[..., :512]
    for logits in run_ranks(2, infer, mini, tmp_path, {"tp": 2}):
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("tensor_size", [1, 2])
def test_training_goes_on_from_one_under_any_grid(
    tmp_path: Path, grid: dict[str, int], tensor_size: int
) -> None:
    mini = replace(SMALL, tensor_size=tensor_size)
    logits = logits_there(write_checkpoint_of_neox(tmp_path, mini), mini)
    labels = token_ids().roll(-1, 1)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    losses = run_ranks(math.prod(grid.values()), first_loss, mini, tmp_path, grid)
    assert losses == [pytest.approx(expected, abs=1e-5)] * len(losses)


@pytest.mark.parametrize("tensor_size", [1, 4])
def test_one_of_theirs_becomes_one_of_ours_bit_by_bit(tmp_path: Path, tensor_size: int) -> None:
    mini = replace(SMALL, tensor_size=tensor_size, parallel_residual=True)
    layers = write_checkpoint_of_neox(tmp_path / "theirs", mini)
    model = ModelConfig(**keys_of(mini))
    theirs = open_checkpoint(tmp_path / "theirs" / "global_step150000", model, None, shard_layouts(model))
    assert theirs.step == 150000
    assert theirs.model.padded_vocab_size == mini.rows
    folder = write_checkpoint(theirs, tmp_path / "ours")
    ours = open_checkpoint(folder, model, None, shard_layouts(model))
    names = {"linear1": "dense_h_to_4h", "linear2": "dense_4h_to_h"}
    for number, tensors in layers.items():
        found = ours.read_layer(number)
        for name, tensor in tensors.items():
            for old, new in names.items():
                name = name.replace(old, new)
            assert found.pop(name).equal(tensor), name
        assert not found
