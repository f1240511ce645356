"""Log-probabilities of given tokens without their logits ever being in memory together.

::

    weight [V, h] ->   4096 rows | 4096 rows | ...     A tile of logits [2048, 4096] is the same 32 MB each time.
    hidden 2048 rows    tile        tile               Whole rows of 50,304 logits take 200 kB a token of fresh
           2048 rows    ...                            memory; making that ready costs as much as the softmax.

The sum over a row is that of online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867): what was added up is
scaled down when a tile holds a larger logit.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TOKENS, _COLUMNS = 2048, 4096


def target_log_probabilities(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, greedy: bool = False
) -> tuple[Tensor, Tensor]:
    """log softmax(hidden weight') at the targets [n], and whether each is the first of the largest logits [n].

    Args:
        hidden: [n, h].
        weight: [V, h], a row for each id.
        targets: ids int64 [n].
        greedy: without it the second answer is False everywhere, and comes faster.
    """
    scratch = hidden.new_empty(min(_TOKENS, len(hidden)) * min(_COLUMNS, len(weight)))
    pieces = zip(hidden.split(_TOKENS), targets.split(_TOKENS), strict=True)
    answers = [_rows(rows, weight, wanted, scratch, greedy=greedy) for rows, wanted in pieces]
    log_p, is_best = zip(*answers, strict=True)
    return torch.cat(log_p), torch.cat(is_best)


def _rows(
    hidden: Tensor, weight: Tensor, targets: Tensor, scratch: Tensor, *, greedy: bool
) -> tuple[Tensor, Tensor]:
    num = len(hidden)
    largest, total = hidden.new_full((num,), float("-inf")), hidden.new_zeros(num)
    at_target, best = hidden.new_zeros(num), torch.full_like(targets, -1)
    for start in range(0, len(weight), _COLUMNS):
        rows = weight[start : start + _COLUMNS]
        logits = torch.mm(hidden, rows.t(), out=scratch[: num * len(rows)].view(num, len(rows)))
        is_here = (targets >= start) & (targets < start + len(rows))
        place = (targets - start).clamp(0, len(rows) - 1).unsqueeze(1)
        at_target = torch.where(is_here, logits.gather(1, place).squeeze(1), at_target)
        if greedy:
            of_tile, where = logits.max(-1)
            best = torch.where(of_tile > largest, where + start, best)
        else:
            of_tile = logits.amax(-1)
        new = torch.maximum(largest, of_tile)
        total = total * (largest - new).exp() + logits.sub_(new.unsqueeze(1)).exp_().sum(-1)
        largest = new
    return at_target - largest - total.log(), best == targets
