"""Norms, activations and initial weights: numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron.neox.config import ModelConfig
from megatron.neox.errors import UnknownPartError, UserError
from megatron.neox.nn.activations import is_gated, make_activation
from megatron.neox.nn.initializers import make_initializer
from megatron.neox.nn.norms import make_norm
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import activations, initializers


def model(**keys: Any) -> ModelConfig:
    sizes = {"num_layers": 8, "hidden_size": 4, "num_attention_heads": 1, "seq_length": 8}
    return ModelConfig(**{**sizes, "max_position_embeddings": 8, **keys})


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("layernorm", [-1.0, 1.0, -1.0, 1.0]),
        ("non_parametric_layernorm", [-1.0, 1.0, -1.0, 1.0]),
        ("rmsnorm", [0.0, 1.414214, 0.0, 1.414214]),
        ("scalenorm", [0.0, 0.707107, 0.0, 0.707107]),
    ],
)
def test_norms(norm: str, expected: list[float]) -> None:
    x = torch.tensor([0.0, 2.0, 0.0, 2.0])
    got = make_norm(model(norm=norm), TensorParallel.single())(x)
    assert got.tolist() == pytest.approx(expected, abs=1e-5)


def test_rmsnorm_adds_epsilon_inside_the_root() -> None:
    norm = make_norm(model(norm={"type": "rmsnorm", "rms_norm_epsilon": 3.0}), TensorParallel.single())
    assert norm(torch.tensor([1.0, 1.0, 1.0, 1.0])).tolist() == [0.5, 0.5, 0.5, 0.5]


def test_a_layernorm_without_bias_has_one_parameter() -> None:
    norm = make_norm(model(use_bias_in_norms=False), TensorParallel.single())
    assert [name for name, _ in norm.named_parameters()] == ["weight"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gelu", [-0.158655, 0.841345]),
        ("gelu_tanh", [-0.158808, 0.841192]),
        ("relu", [0.0, 1.0]),
        ("silu", [-0.268941, 0.731059]),
        ("swish", [-0.268941, 0.731059]),
        ("mish", [-0.303401, 0.865098]),
        ("softsign", [-0.5, 0.5]),
    ],
)
def test_activations_at_minus_one_and_one(name: str, expected: list[float]) -> None:
    got = make_activation(model(activation=name))(torch.tensor([-1.0, 1.0]))
    assert got.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("geglu", 2.524034), ("swiglu", 2.193176), ("glu", 2.193176), ("reglu", 3.0), ("bilinear", 3.0)],
)
def test_gated_activations_take_the_value_first_and_then_the_gate(name: str, expected: float) -> None:
    activation = make_activation(model(activation=name))
    assert is_gated(activation)
    # The gate is 1, so that glu's sigmoid(1) and swiglu's silu(1) are the same number.
    assert activation(torch.tensor([3.0, 1.0])).item() == pytest.approx(expected, abs=1e-5)


def test_the_config_knows_which_activations_are_gated() -> None:
    gated = {part.name for part in activations if is_gated(part.value)}
    assert gated == {part.name for part in activations if model(activation=part.name).is_gated}


def test_bias_gelu_fusion_selects_the_tanh_approximation() -> None:
    got = make_activation(model(bias_gelu_fusion=True))(torch.tensor([1.0]))
    assert got.item() == pytest.approx(0.841192, abs=1e-6)


def test_an_activation_s_unknown_option_is_named() -> None:
    with pytest.raises(UserError, match="activation 'relu' has no option slope"):
        make_activation(model(activation={"type": "relu", "slope": 2}))


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("normal", 0.02),
        ("scaled_normal", 0.005),
        ("single_residual_scaled_normal", 0.0070711),
        ("small_init", 0.0395285),
        ("wang_init", 0.015625),
        ("orthogonal", 0.0883883),
        ("scaled_orthogonal", 0.03125),
        ("xavier_uniform", 0.0625),
        ("xavier_normal", 0.0625),
    ],
)
def test_initial_weights_have_the_deviation_of_their_name(name: str, std: float) -> None:
    torch.manual_seed(0)
    weight = torch.empty(256, 256)
    make_initializer(model(init_method=name, hidden_size=256).init_method, model(hidden_size=256))(weight)
    assert weight.std().item() == pytest.approx(std, rel=0.02)


def test_an_unknown_initializer_is_named() -> None:
    with pytest.raises(UnknownPartError, match="YAML key 'init_method'"):
        make_initializer(model(init_method="norml").init_method, model())
    assert "normal" in initializers
