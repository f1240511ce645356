"""Decoding with a cache equals the full forward pass, whatever stands in the other rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.neox.config import ModelConfig
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import PlainModel, plain_model
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.parallel import TensorParallel

PARALLEL = TensorParallel.single()
KINDS: list[dict[str, Any]] = [
    {"pos_emb": "rotary", "rotary_pct": 0.5},
    {"pos_emb": "learned"},
    {"pos_emb": "sinusoidal"},
    {"pos_emb": "alibi"},
    {"pos_emb": "none"},
    {"pos_emb": "rotary", "num_kv_heads": 2},
    {"pos_emb": "alibi", "num_kv_heads": 1},
    {"pos_emb": "rotary", "attention_config": [[["local"], "all"]], "sliding_window_width": 3},
]


def build(**keys: Any) -> tuple[ModelConfig, PlainModel]:
    sizes = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "init_method_std": 0.3}
    model = ModelConfig(**{**sizes, "seq_length": 16, "max_position_embeddings": 32, **keys})
    torch.manual_seed(3)
    return model, plain_model(build_layers(model, padded_vocab_size=48, parallel=PARALLEL)).eval()


def random_ids(batch: int, length: int) -> Tensor:
    return torch.randint(0, 48, (batch, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("keys", KINDS, ids=str)
@torch.no_grad()
def test_decoding_token_by_token_equals_the_full_forward_pass(keys: dict[str, Any]) -> None:
    model, net = build(**keys)
    token_ids = random_ids(2, 12)
    cache = KeyValueCache(2, 12, model, PARALLEL)
    steps = [net(token_ids[:, :5], cache=cache)]
    steps += [net(token_ids[:, place : place + 1], cache=cache) for place in range(5, 12)]
    assert cache.lengths == [12, 12]
    torch.testing.assert_close(torch.cat(steps), net(token_ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keys", KINDS, ids=str)
@torch.no_grad()
def test_right_padded_rows_decode_as_if_each_were_alone(keys: dict[str, Any]) -> None:
    model, net = build(**keys)
    token_ids, lengths = random_ids(3, 14), [9, 4, 1]
    prompts = token_ids[:, :9].clone()
    for row, length in enumerate(lengths):
        prompts[row, length:] = 0
    cache = KeyValueCache(3, 14, model, PARALLEL)
    logits = net(prompts, cache=cache)
    first = [logits[length - 1, row] for row, length in enumerate(lengths)]
    cache.truncate(lengths)
    decoded = [torch.stack(first)]
    for step in range(5):
        new = torch.stack([token_ids[row, length + step] for row, length in enumerate(lengths)])
        decoded.append(net(new[:, None], cache=cache)[0])
    for row, length in enumerate(lengths):
        alone = net(token_ids[row : row + 1, : length + 5])[length - 1 :, 0]
        together = torch.stack([step[row] for step in decoded])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_rows_that_are_kept_decode_on_as_before() -> None:
    model, net = build(num_kv_heads=2)
    token_ids, lengths = random_ids(3, 10), [6, 4, 5]
    cache = KeyValueCache(3, 10, model, PARALLEL)
    net(token_ids[:, :6], cache=cache)
    cache.truncate(lengths)
    cache.select([2, 1])
    assert cache.lengths == [5, 4]
    for step in range(3):
        new = torch.stack([token_ids[2, 5 + step], token_ids[1, 4 + step]])
        logits = net(new[:, None], cache=cache)[0]
    for place, (row, length) in enumerate([(2, 8), (1, 7)]):
        alone = net(token_ids[row : row + 1, :length])[-1, 0]
        torch.testing.assert_close(logits[place], alone, rtol=1e-5, atol=1e-5)


def test_a_full_cache_refuses_more_tokens() -> None:
    model, net = build()
    with pytest.raises(AssertionError, match="9 tokens do not fit a cache of 8"):
        net(random_ids(1, 9), cache=KeyValueCache(1, 8, model, PARALLEL))


def test_truncate_cannot_lengthen_a_row() -> None:
    model, _ = build()
    with pytest.raises(AssertionError, match="cannot grow"):
        KeyValueCache(1, 8, model, PARALLEL).truncate([1])
