from __future__ import annotations

import numpy as np
import pytest

from megatron.neox.data.order import build_order, plan_epochs


def test_samples_overlap_by_one_token_and_cross_documents() -> None:
    sizes = np.array([3, 0, 6], dtype=np.int32)  # tokens a0 a1 a2, nothing, c0 .. c5
    epochs = plan_epochs(9, seq_length=4, num_samples=2)
    order = build_order(sizes, range(3), seq_length=4, seed=1, epochs=epochs)
    assert epochs.count == 1
    assert order.document_index.tolist() == [0, 2, 1]
    # Sample 0 is a0 a1 a2 c0 c1, sample 1 is c1 .. c5.
    assert order.sample_index.tolist() == [[0, 0], [1, 1], [1, 5]]
    assert sorted(order.shuffle_index.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("num_samples", "count", "separate", "before"),
    [
        (24, 1, False, 0),
        (25, 2, True, 24),
        (42, 2, True, 24),
        (43, 2, False, 24),
        (49, 2, False, 24),
        (50, 3, True, 49),
    ],
)
def test_the_last_epoch_stands_alone_when_little_of_it_is_needed(
    num_samples: int, count: int, separate: bool, before: int
) -> None:
    epochs = plan_epochs(100, seq_length=4, num_samples=num_samples)
    assert (epochs.count, epochs.separate_final, epochs.samples_before_final) == (count, separate, before)


def test_a_single_epoch_does_not_depend_on_how_much_of_it_is_read() -> None:
    assert plan_epochs(100, seq_length=4, num_samples=1) == plan_epochs(100, seq_length=4, num_samples=24)
