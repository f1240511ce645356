"""Single steps of each optimizer, by hand, and what options they take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megatron.neox.config import OptimizerConfig
from megatron.neox.engine.optimizers import build_optimizer, parameter_groups
from megatron.neox.errors import UnknownPartError, UserError


def after(
    gradients: list[float], choice: Any, *, weight_decay: float = 0.0, start: float = 1.0
) -> list[float]:
    """A matrix's only element after each gradient."""
    weight = nn.Parameter(torch.tensor([[start]]))
    config = OptimizerConfig(optimizer=choice, weight_decay=weight_decay)
    optimizer = build_optimizer(config, [weight])
    seen = []
    for gradient in gradients:
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        seen.append(round(weight.item(), 5))
    return seen


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_decays_weights_apart_from_the_gradient(name: str) -> None:
    # 1 * (1 - 0.1 * 0.5) - 0.1 * sign, then the same with a bias-corrected mean
    choice = {"type": name, "params": {"lr": 0.1, "betas": [0.9, 0.999]}}
    assert after([2.0], choice, weight_decay=0.5) == [0.85]
    assert after([2.0, 2.0], choice) == [0.9, 0.8]


def test_lion_steps_by_the_sign() -> None:
    choice = {"type": "lion", "params": {"lr": 0.1, "betas": [0.9, 0.5]}}
    # momentum after the first: 1; then sign(0.9 * 1 + 0.1 * -4) = 1, and momentum -1.5
    assert after([2.0, -4.0, -4.0], choice) == [0.9, 0.8, 0.9]
    assert after([2.0], choice, weight_decay=0.5) == [0.85]


def test_sgd_with_momentum() -> None:
    choice = {"type": "sgd", "params": {"lr": 0.1, "momentum": 0.5}}
    assert after([1.0, 1.0], choice) == [0.9, 0.75]


def test_adafactor_begins_with_the_sign() -> None:
    # beta2 is 0 at the first step, then 1 - 2 ** -0.8 = 0.42565: 4 * 0.42565 + 1 * 0.57435 = 2.27695
    choice = {"type": "adafactor", "params": {"lr": 0.1}}
    assert after([2.0, 1.0], choice) == [0.9, 0.83373]


def test_norms_and_biases_do_not_decay() -> None:
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    groups = parameter_groups([matrix, vector, frozen], weight_decay=0.1)
    assert [(g["params"], g["weight_decay"]) for g in groups] == [([matrix], 0.1), ([vector], 0.0)]
    assert len(parameter_groups([vector], weight_decay=0.1)) == 1


@pytest.mark.parametrize("name", ["onebitadam", "cpu_adam"])
def test_optimizers_of_gpt_neox_that_are_not_here_are_named(name: str) -> None:
    with pytest.raises(UnknownPartError, match=f"no optimizer is named '{name}'"):
        after([1.0], {"type": name, "params": {"lr": 0.1}})


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(UserError, match="optimizer 'lion' has no option momentum"):
        after([1.0], {"type": "lion", "params": {"lr": 0.1, "momentum": 0.9}})


@pytest.mark.parametrize("name", ["adam", "lion", "sgd", "adafactor"])
def test_a_result_does_not_depend_on_where_the_parameters_are_cut(name: str) -> None:
    def trained(sizes: list[int]) -> Tensor:
        pieces = [nn.Parameter(p.clone()) for p in torch.linspace(-1, 1, 8).view(1, 8).split(sizes, 1)]
        config = OptimizerConfig(optimizer={"type": name, "params": {"lr": 0.1}})  # pyright: ignore[reportArgumentType]
        optimizer = build_optimizer(config, pieces)
        for step in range(3):
            whole = torch.sin(torch.arange(8.0) + step).view(1, 8)
            for piece, gradient in zip(pieces, whole.split(sizes, 1)):
                piece.grad = gradient.contiguous()
            optimizer.step()
        return torch.cat([piece.detach() for piece in pieces], 1)

    assert torch.equal(trained([8]), trained([3, 5]))
