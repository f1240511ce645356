"""Layers split over two tensor ranks compute what whole ones do, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.neox.config import ModelConfig, ParallelismConfig
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import plain_model
from megatron.neox.nn.loss import cross_entropy
from megatron.neox.nn.parallel import ShardLayout, TensorParallel, shard_layout
from tests.forked_ranks import run_ranks

VOCAB_SIZE = 64
KINDS: dict[str, dict[str, Any]] = {
    "neox": {"pos_emb": "rotary", "rotary_pct": 0.5, "gpt_j_residual": True, "no_weight_tying": True},
    "gpt2": {"pos_emb": "learned"},
    "llama": {
        "pos_emb": "rotary", "norm": "rmsnorm", "activation": "swiglu", "intermediate_size": 48,
        "num_kv_heads": 2, "use_bias_in_mlp": False, "use_bias_in_attn_linear": False,
    },
    "alibi": {"pos_emb": "alibi", "norm": "scalenorm", "activation": "geglu", "intermediate_size": 48},
}  # fmt: skip


def model_config(keys: dict[str, Any]) -> ModelConfig:
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 16}
    return ModelConfig(**{**sizes, "max_position_embeddings": 16, "init_method_std": 0.2, **keys})


def logits_and_gradients(keys: dict[str, Any], parallel: TensorParallel) -> dict[str, Tensor]:
    """Whole logits, the loss and whole gradients, on every rank."""
    torch.manual_seed(0)
    plans = build_layers(model_config(keys), padded_vocab_size=VOCAB_SIZE, parallel=parallel)
    net = plain_model(plans)
    token_ids = torch.randint(0, VOCAB_SIZE, (2, 17), generator=torch.Generator().manual_seed(1))
    logits = net(token_ids[:, :-1])
    whole = {"logits": parallel.gather(logits.detach().clone())}
    loss = cross_entropy(logits, token_ids[:, 1:], parallel=parallel)
    loss.backward()
    whole["loss"] = loss.detach()
    for name, parameter in net.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        layout = shard_layout(parameter)
        if layout.dim is not None and parallel.size > 1:
            shards = [torch.empty_like(gradient) for _ in range(parallel.size)]
            torch.distributed.all_gather(shards, gradient.contiguous(), group=parallel.group)
            gradient = layout.merge(shards)
        elif getattr(parameter, "sequence_parallel", False):
            gradient = parallel.sum(gradient)  # as the engine does
        whole[name] = gradient
    return whole


def on_a_rank(keys: dict[str, Any], sequence_parallel: bool) -> dict[str, Any]:
    sizes = {"model_parallel_size": 2, "sequence_parallel": sequence_parallel}
    with ProcessGrid.build(ParallelismConfig(**sizes)) as grid:
        results = logits_and_gradients(keys, grid.tensor_parallel("fp32"))
        return {name: tensor.numpy() for name, tensor in results.items()}


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_equal_one(kind: str, sequence_parallel: bool) -> None:
    expected = logits_and_gradients(KINDS[kind], TensorParallel.single())
    ranks = run_ranks(2, on_a_rank, KINDS[kind], sequence_parallel)
    assert expected["logits"].abs().max() > 0.5
    for results in ranks:
        assert set(results) == set(expected)
        for name, tensor in expected.items():
            torch.testing.assert_close(torch.from_numpy(results[name]), tensor, rtol=1e-5, atol=1e-5)


def dropped(sequence_parallel: bool) -> tuple[Any, Any, int]:
    """What hidden and attention dropout do to ones, and the shared stream's next number."""
    sizes = {"model_parallel_size": 2, "sequence_parallel": sequence_parallel}
    with ProcessGrid.build(ParallelismConfig(**sizes)) as grid:
        from megatron.neox.nn.dropout import HiddenDropout

        parallel = grid.tensor_parallel("fp32")
        torch.manual_seed(7)
        hidden = HiddenDropout(0.5, parallel)(torch.ones(64))
        with parallel.own_random_stream(torch.device("cpu")):
            attention = torch.nn.functional.dropout(torch.ones(64))
        return hidden.tolist(), attention.tolist(), int(torch.randint(1000, ()))


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_dropout_agrees_between_ranks_where_the_tensors_do(sequence_parallel: bool) -> None:
    first, second = run_ranks(2, dropped, sequence_parallel)
    assert (first[0] == second[0]) is not sequence_parallel
    assert first[1] != second[1]
    assert first[2] == second[2]


def test_sections_are_split_one_by_one() -> None:
    layout = ShardLayout(0, (2, 1, 1))
    shards = layout.split(torch.arange(8), 2)
    assert [shard.tolist() for shard in shards] == [[0, 1, 4, 6], [2, 3, 5, 7]]
    assert layout.merge(shards).tolist() == list(range(8))


def test_a_replicated_parameter_is_its_own_shard() -> None:
    layout = shard_layout(torch.ones(3))
    assert layout == ShardLayout(None)
    assert [shard.tolist() for shard in layout.split(torch.ones(1), 2)] == [[1.0], [1.0]]


def test_grouped_queries_and_gated_mlps_carry_their_sections() -> None:
    plans = build_layers(model_config(KINDS["llama"]), padded_vocab_size=64, parallel=TensorParallel.single())
    layer = plans[1].build()
    assert shard_layout(layer.get_parameter("attention.query_key_value.weight")) == ShardLayout(0, (4, 2, 2))
    assert shard_layout(layer.get_parameter("mlp.dense_h_to_4h.weight")) == ShardLayout(0, (1, 1))
    assert shard_layout(layer.get_parameter("mlp.dense_4h_to_h.weight")) == ShardLayout(1)
