"""What the comparison of logits must not let pass."""

from __future__ import annotations

import torch

from megatron.neox.conversion.check import compare


def test_a_logit_that_is_no_number_is_a_difference_wherever_it_stands() -> None:
    good = torch.ones(1, 2, 3)
    bad = good.clone()
    bad[0, 1, 2] = float("nan")
    for place in range(2):
        theirs = [good, good]
        theirs[place] = bad
        assert not compare([good, good], theirs).is_equal
        assert not compare(theirs, theirs).is_equal


def test_small_logits_are_held_to_a_smaller_difference() -> None:
    ours = torch.tensor([[[1e-6, -1e-6]]])
    assert not compare([ours], [-ours]).is_equal
    assert compare([ours], [ours * (1 + 1e-6)]).is_equal
    large = torch.tensor([[[300.0]]])
    assert not compare([large], [large * (1 + 1e-6)]).is_equal
