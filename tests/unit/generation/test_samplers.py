"""Samplers: the order of the filters, their ties, and draws that depend on nothing but their counters."""

from __future__ import annotations

import logging

import pytest
import torch

from megatron.neox.config import GenerationConfig
from megatron.neox.errors import UnknownPartError, UserError
from megatron.neox.generation.samplers import (
    build_sampler,
    draw,
    keep_likeliest,
    keep_nucleus,
    uniform_number,
)

MINUS = float("-inf")


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_all_zero_is_greedy() -> None:
    sample = build_sampler(GenerationConfig())
    assert sample(torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 0.0]]), numbers(0.9, 0.9)).tolist() == [1, 0]


def test_the_number_chooses_the_token() -> None:
    probabilities = torch.tensor([[0.5, 0.0, 0.25, 0.25]])
    assert [draw(probabilities, numbers(u)).item() for u in (0.0, 0.4999, 0.5, 0.7499, 0.75, 0.9999)] == [
        0, 0, 2, 2, 3, 3,
    ]  # fmt: skip


def test_the_largest_number_still_draws_a_token() -> None:
    probabilities = torch.full((1, 50304), 1 / 50304)
    probabilities[0, 50257:] = 0
    assert draw(probabilities, numbers(1 - 2**-52)).item() == 50256


def test_top_k_keeps_ties_with_the_last() -> None:
    kept = keep_likeliest(torch.tensor([[1.0, 4.0, 2.0, 2.0, 0.0]]), 2)
    assert kept.tolist() == [[MINUS, 4.0, 2.0, 2.0, MINUS]]


def test_the_nucleus_is_the_fewest_tokens_that_reach_the_share() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for share, num_kept in [(0.4, 1), (0.5, 1), (0.6, 2), (0.81, 3), (0.96, 4)]:
        assert keep_nucleus(logits, share).isfinite().sum() == num_kept


def test_a_nucleus_wider_than_the_first_guess_is_found() -> None:
    # 1000 tokens, nearly as likely as each other: 90% takes 900 of them.
    logits = torch.linspace(0.0, 1e-3, 1000).unsqueeze(0)
    assert keep_nucleus(logits, 0.9).isfinite().sum() == 900


def test_the_nucleus_is_taken_of_what_top_k_leaves() -> None:
    # Of 0.4 0.3 0.3, top_k 2 leaves shares 4/7 and 3/7 (and a tie); with top_k 1, 0.4 is everything.
    sample = build_sampler(GenerationConfig(temperature=1.0, top_k=1, top_p=0.9))
    logits = torch.tensor([[0.3, 0.4, 0.29]]).log()
    assert [sample(logits, numbers(u)).item() for u in (0.0, 0.5, 0.99)] == [1, 1, 1]


def test_temperature_flattens() -> None:
    logits = torch.tensor([[0.8, 0.2]]).log()
    cold = build_sampler(GenerationConfig(temperature=0.5))  # 0.64 : 0.04
    hot = build_sampler(GenerationConfig(temperature=2.0))  # 2 : 1
    assert [cold(logits, numbers(u)).item() for u in (0.94, 0.95)] == [0, 1]
    assert [hot(logits, numbers(u)).item() for u in (0.66, 0.67)] == [0, 1]


def test_temperature_zero_with_top_k_says_what_it_does(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        build_sampler(GenerationConfig(top_k=40))
    assert "temperature 0 with top_k 40" in caplog.text


def test_draws_follow_the_probabilities() -> None:
    chances = numbers(*(uniform_number(7, 0, sample, 0) for sample in range(4000)))
    drawn = draw(torch.tensor([[0.1, 0.2, 0.7]]).expand(4000, 3), chances)
    shares = drawn.bincount(minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.02)


def test_uniform_numbers_are_a_fixed_function_of_their_counters() -> None:
    assert uniform_number(1234, 0, 0, 0) == uniform_number(1234, 0, 0, 0)
    counters = [(1234, 0, 0, 0), (1235, 0, 0, 0), (1234, 1, 0, 0), (1234, 0, 1, 0), (1234, 0, 0, 1)]
    assert len({uniform_number(*counter) for counter in counters}) == 5
    assert round(uniform_number(1234, 0, 0, 0), 6) == FIRST_NUMBER


FIRST_NUMBER = 0.288086


def test_an_unknown_sampler_is_named_with_its_key() -> None:
    with pytest.raises(
        UnknownPartError, match=r"no sampler is named 'gredy' \(YAML key 'sampler'\)\n.*greedy"
    ):
        build_sampler(GenerationConfig.model_validate({"sampler": "gredy"}))


def test_an_unknown_option_is_refused() -> None:
    settings = GenerationConfig.model_validate({"sampler": {"type": "temperature", "topk": 3}})
    with pytest.raises(UserError, match="has no option topk; did you mean top_k"):
        build_sampler(settings)
