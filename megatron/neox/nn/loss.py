"""Cross entropy of logits whose vocabulary is split over the tensor ranks.

With a large vocabulary the logits are the largest tensor of a training step, so nothing of their size is
allocated: slices of rows pass through the processor's cache once, and where a gradient is wanted it is made
in the memory of the logits themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from megatron.neox.nn.parallel import TensorParallel

IGNORED = -100
"""Label of a token that does not count."""

CPU_SLICE, GPU_SLICE = 2**18, 2**27  # logits that are turned into fp32 at once


def cross_entropy(logits: Tensor, labels: Tensor, *, parallel: TensorParallel) -> Tensor:
    """Mean over the tokens that count, in nats, fp32; logits [s, b, v], labels [b, s]. 0 where none counts.

    Where gradients are recorded this takes the logits' memory: they hold no logits after the call.
    """
    labels = labels.t().reshape(-1)
    losses = token_losses(logits.view(-1, logits.shape[-1]), labels, parallel=parallel)
    return losses.sum() / (labels != IGNORED).sum().clamp(min=1)


def token_losses(logits: Tensor, labels: Tensor, *, parallel: TensorParallel) -> Tensor:
    """Loss of each token in nats, fp32, 0 where the label is ignored; logits [tokens, v], labels [tokens].

    Where gradients are recorded this takes the logits' memory: they hold no logits after the call.
    """
    wants_gradient = torch.is_grad_enabled() and logits.requires_grad
    return _VocabularyCrossEntropy.apply(  # pyright: ignore[reportReturnType]
        logits, labels, parallel, wants_gradient
    )


class _VocabularyCrossEntropy(torch.autograd.Function):
    """log(sum(exp(logits))) - logits[label], with the sum over all tensor ranks.

    Its gradient is exp(logits - max) / sum, less 1 at the label: forward leaves the numerator behind.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, parallel: TensorParallel, wants_gradient: bool
    ) -> Tensor:
        counts = labels != IGNORED
        columns = labels - parallel.rank * logits.shape[1]
        is_here = counts & (columns >= 0) & (columns < logits.shape[1])
        columns = columns.masked_fill(~is_here, 0)
        chosen = parallel.sum(logits.gather(1, columns.unsqueeze(1))[:, 0].float() * is_here)
        largest = parallel.maximum(logits.amax(1).float())
        total = parallel.sum(_sum_of_exponentials(logits, largest, overwrite=wants_gradient))
        ctx.save_for_backward(logits, total, columns, is_here, counts)
        return (total.log() + largest - chosen) * counts

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        exponentials, total, columns, is_here, counts = ctx.saved_tensors
        scale = gradients[0] * counts
        result = exponentials.mul_((scale / total).to(exponentials.dtype).unsqueeze(1))
        rows = torch.arange(len(result), device=result.device)
        result[rows, columns] -= (scale * is_here).to(result.dtype)
        return result, None, None, None


def _sum_of_exponentials(logits: Tensor, largest: Tensor, *, overwrite: bool) -> Tensor:
    """Sum of exp(logits - largest) by row [tokens], fp32; with `overwrite` the terms replace the logits."""
    total = torch.empty_like(largest)
    step = max(1, (GPU_SLICE if logits.is_cuda else CPU_SLICE) // logits.shape[1])
    scratch = torch.empty(0, device=logits.device)
    for rows in (slice(start, start + step) for start in range(0, len(logits), step)):
        is_in_place = overwrite and logits.dtype == torch.float32
        terms = logits[rows] if is_in_place else scratch.resize_(logits[rows].shape).copy_(logits[rows])
        terms.sub_(largest[rows, None]).exp_()
        torch.sum(terms, 1, out=total[rows])
        if overwrite and not is_in_place:
            logits[rows] = terms
    return total
