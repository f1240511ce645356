"""The loss equals torch's, and its gradient too, in every type."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.neox.nn import loss
from megatron.neox.nn.loss import cross_entropy, token_losses
from megatron.neox.nn.parallel import TensorParallel

PARALLEL = TensorParallel.single()


def sample(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(7, 3, 50, generator=random)).to(dtype)  # [s, b, v]
    labels = torch.randint(0, 50, (3, 7), generator=random)
    labels[0, :2] = -100
    return logits, labels


def plain(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().transpose(0, 1).reshape(-1, 50), labels.reshape(-1))


@pytest.mark.parametrize("slice_elements", [60, 2**18])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-7), (torch.bfloat16, 2e-4)])
def test_loss_and_gradient_equal_torch_s(
    dtype: torch.dtype, tolerance: float, slice_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CPU_SLICE", slice_elements)
    logits, labels = sample(dtype)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    expected = plain(theirs, labels)
    (3 * expected).backward()
    got = cross_entropy(ours.view_as(ours), labels, parallel=PARALLEL)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    (3 * got).backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(
        ours.grad, theirs.grad, rtol=0.02 if tolerance > 1e-6 else 1e-5, atol=tolerance
    )


def test_logits_stay_as_they_are_where_no_gradient_is_wanted() -> None:
    logits, labels = sample(torch.float32)
    before = logits.clone()
    cross_entropy(logits, labels, parallel=PARALLEL)
    with torch.no_grad():
        cross_entropy(logits.requires_grad_(), labels, parallel=PARALLEL)
    assert torch.equal(logits, before)


def test_uniform_logits_lose_the_logarithm_of_the_vocabulary() -> None:
    losses = token_losses(torch.zeros(2, 10), torch.tensor([3, -100]), parallel=PARALLEL)
    assert losses.tolist() == pytest.approx([math.log(10), 0.0])


def test_a_batch_without_labels_loses_nothing() -> None:
    logits = torch.zeros(2, 1, 4, requires_grad=True)
    labels = torch.full((1, 2), -100)
    value = cross_entropy(logits.view_as(logits), labels, parallel=PARALLEL)
    value.backward()
    assert value == 0
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad) == 0


def test_large_logits_do_not_overflow() -> None:
    losses = token_losses(torch.tensor([[1000.0, 0.0]]), torch.tensor([1]), parallel=PARALLEL)
    assert losses.tolist() == [1000.0]
