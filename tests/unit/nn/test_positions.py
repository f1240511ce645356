"""Positions: what they do to queries, keys and scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron.neox.config import ModelConfig
from megatron.neox.errors import UnknownPartError
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.nn.positions import Position, alibi_slopes, make_position, rotary_angles


def position(**keys: Any) -> Position:
    sizes = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 8}
    return make_position(
        ModelConfig(**{**sizes, "max_position_embeddings": 16, **keys}), TensorParallel.single()
    )


@pytest.mark.parametrize(
    ("place", "error"), [(64, 0.010), (256, 0.103), (512, 0.206), (1024, 0.412), (2047, 0.824)]
)
def test_fp16_tables_err_up_to_a_place_as_those_of_2022(place: int, error: float) -> None:
    exact = rotary_angles(2048, 64, base=10000, legacy=False)
    legacy = rotary_angles(2048, 64, base=10000, legacy=True)
    largest = (exact - legacy)[: place + 1].abs().max().item()
    assert largest == pytest.approx(error, abs=5e-4)


def test_rotary_scores_depend_on_the_distance_only() -> None:
    rotary = position(pos_emb="rotary")
    queries, keys = torch.randn(2, 1, 1, 4, 8, generator=torch.Generator().manual_seed(0))
    scores = []
    for query_place, key_place in [(3, 1), (10, 8), (15, 13)]:
        turned, _ = rotary.rotate(queries, keys, torch.tensor([[query_place]]))
        _, other = rotary.rotate(queries, keys, torch.tensor([[key_place]]))
        scores.append((turned * other).sum(-1))
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])


def test_rotary_pct_leaves_the_last_features_alone() -> None:
    rotary = position(pos_emb="rotary", rotary_pct=0.25)
    queries = torch.ones(1, 1, 4, 8)
    turned, _ = rotary.rotate(queries, queries, torch.tensor([[1]]))
    assert turned[0, 0, 0].tolist() == pytest.approx([-0.301169, 1.381773, 1, 1, 1, 1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("rotary_pct", [0.5, 1.0])
def test_the_rotation_has_the_right_gradient(rotary_pct: float) -> None:
    rotary = position(pos_emb="rotary", rotary_pct=rotary_pct)
    queries = torch.randn(3, 2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    keys = torch.randn(3, 2, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    places = torch.tensor([[0, 4], [1, 5], [2, 6]])
    inputs = (queries.requires_grad_(), keys.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, k: rotary.rotate(q, k, places), inputs)


def test_alibi_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8) == [2**-1, 2**-2, 2**-3, 2**-4, 2**-5, 2**-6, 2**-7, 2**-8]
    assert alibi_slopes(6) == pytest.approx([2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])


def test_alibi_lowers_far_keys_scores() -> None:
    scores = position(pos_emb="alibi").scores(torch.tensor([[2]]), torch.arange(3))
    assert scores is not None
    assert scores.shape == (1, 4, 1, 3)
    assert scores[0, 0, 0].tolist() == [-0.5, -0.25, 0.0]


def test_sinusoids_begin_with_sines_of_nought_and_cosines_of_one() -> None:
    table = position(pos_emb="sinusoidal").embedding()
    assert table is not None
    vectors = table(torch.tensor([[0], [1]]))
    assert vectors.shape == (2, 1, 32)
    assert vectors[0, 0].tolist() == [0.0] * 16 + [1.0] * 16
    assert vectors[1, 0, 0].item() == pytest.approx(0.841471)


def test_an_unknown_position_is_named() -> None:
    with pytest.raises(UnknownPartError, match="did you mean rotary"):
        position(pos_emb="rotery")
