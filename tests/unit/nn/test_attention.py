"""Which tokens a query sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megatron.neox.config import ModelConfig
from megatron.neox.nn.attention import make_attention
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.nn.positions import make_position


def attention(name: str, *, number: int = 0, **keys: Any) -> nn.Module:
    sizes = {"num_layers": 4, "hidden_size": 16, "num_attention_heads": 4, "seq_length": 8}
    model = ModelConfig(**{**sizes, "max_position_embeddings": 8, "pos_emb": "none", **keys})
    torch.manual_seed(0)
    parallel = TensorParallel.single()
    return make_attention(name, model, parallel, layer=number, position=make_position(model, parallel))


def seen_by_last_token(layer: nn.Module) -> list[bool]:
    hidden = torch.randn(8, 1, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    layer(hidden)[-1].sum().backward()
    assert isinstance(hidden.grad, Tensor)
    return [bool(row.abs().sum() > 1e-9) for row in hidden.grad[:, 0]]


def test_global_attention_sees_everything_before() -> None:
    assert seen_by_last_token(attention("global")) == [True] * 8


def test_local_attention_sees_its_window() -> None:
    layer = attention("local", sliding_window_width=3)
    assert seen_by_last_token(layer) == [False] * 5 + [True] * 3


@pytest.mark.parametrize("pos_emb", ["none", "alibi"])
def test_no_token_sees_the_future(pos_emb: str) -> None:
    layer = attention("global", pos_emb=pos_emb)
    hidden = torch.randn(8, 1, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    layer(hidden)[3].sum().backward()
    assert isinstance(hidden.grad, Tensor)
    assert torch.count_nonzero(hidden.grad[4:]) == 0


def test_attention_dropout_follows_the_global_seed() -> None:
    layer = attention("global", attention_dropout=0.5).train()
    hidden = torch.randn(8, 1, 16, generator=torch.Generator().manual_seed(1))

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return layer(hidden)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert torch.equal(layer.eval()(hidden), layer(hidden))


@pytest.mark.parametrize("name", ["global", "local"])
def test_scores_are_divided_by_the_layers_number(name: str) -> None:
    """As if the queries were a third as long in the third layer; by blocks, and with a mask."""
    keys = {"sliding_window_width": 3}
    divided = attention(name, number=2, scale_attn_by_inverse_layer_idx=True, **keys)
    plain = attention(name, number=2, **keys)
    hidden = 9 * torch.randn(8, 1, 16, generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(divided(hidden), plain(hidden), atol=1e-3)
    rows = torch.arange(48) % 12 < 4  # [heads, query or key or value, 4]
    with torch.no_grad():
        plain.query_key_value.weight[rows] /= 3  # pyright: ignore[reportIndexIssue]
        plain.query_key_value.bias[rows] /= 3  # pyright: ignore[reportIndexIssue]
    torch.testing.assert_close(divided(hidden), plain(hidden), rtol=1e-5, atol=1e-6)


def test_scores_stay_in_fp32_where_asked() -> None:
    """attention_softmax_in_fp32, GPT-2's reorder_and_upcast_attn: in bf16 on a CPU only the result is rounded."""
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(64, 1, 4, 4, generator=generator).bfloat16() * 4 for _ in range(3)]
    plain, kept = (attention("global", attention_softmax_in_fp32=asked) for asked in (False, True))
    exact = plain._attend_by_blocks(*(part.float() for part in parts)).bfloat16()
    assert torch.equal(kept._attend_by_blocks(*parts), exact)
    assert not torch.equal(plain._attend_by_blocks(*parts), exact)
