"""Attention by blocks equals attention written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from megatron.neox.nn.causal import causal_attention


def written_out(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = queries @ keys.transpose(1, 2) / math.sqrt(queries.shape[-1])
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1) @ values


def random(length: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(6, length, 24, generator=generator).to(dtype).requires_grad_() for _ in range(4)]


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_blocks_equal_attention_written_out(length: int) -> None:
    *inputs, weights = random(length, torch.float32)
    expected = written_out(*inputs)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    got = causal_attention(*inputs, scale=24**-0.5)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad((got * weights).sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_bf16_rounds_at_most_twice_as_much_as_torch_s_kernel() -> None:
    *inputs, _ = random(300, torch.bfloat16)
    truth = written_out(*(x.double() for x in inputs))
    theirs = torch.nn.functional.scaled_dot_product_attention(*(x[None] for x in inputs), is_causal=True)[0]
    error = (causal_attention(*inputs, scale=24**-0.5) - truth).abs().mean()
    assert error < 2 * (theirs - truth).abs().mean()
