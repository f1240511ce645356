"""Counts that follow from a config: parameters, floating-point operations and memory. Pure arithmetic.

FLOPs follow Megatron, torchtitan and nanoGPT: a matrix product of n weights is 6 n a token (2 forward, 4 backward),
attention is counted over the whole sequence, and the embedding's look-up is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron.neox.config.config import Config
from megatron.neox.config.model import ModelConfig


def num_parameters(model: ModelConfig, padded_vocab_size: int) -> int:
    """Parameters of the whole model, the padding of the vocabulary included and a tied head counted once.

    Norms of plugins are counted as layernorm without bias.
    """
    h = model.hidden_size
    embeddings = padded_vocab_size * h * (1 if model.tie_weights else 2)
    if model.pos_emb == "learned":
        embeddings += model.max_position_embeddings * h
    norms = 1 if model.gpt_j_residual and model.gpt_j_tied else 2
    layer = _matrices(model) + _biases(model) + norms * _norm_parameters(model)
    return embeddings + model.num_layers * layer + _norm_parameters(model)


def flops_per_token(
    model: ModelConfig, padded_vocab_size: int, *, causal: bool = False, recompute: bool = False
) -> float:
    """Floating-point operations of one training step, a token: forward and backward.

    Args:
        causal: count the half of the attention scores that a causal mask leaves; the honest work, a lower MFU.
        recompute: add the second forward pass of every layer (checkpoint_activations), which hardware does and
            the model does not need.
    """
    products = model.num_layers * _matrices(model)
    scores = (
        sum(_span(model, name) for name in model.layer_attention)
        * model.num_attention_heads
        * model.head_size
    )
    share = 0.5 if causal else 1.0
    flops = 6.0 * (products + padded_vocab_size * model.hidden_size) + 12.0 * scores * share
    if recompute:
        flops += 2.0 * products + 4.0 * scores * share
    return flops


def _span(model: ModelConfig, attention: str) -> int:
    """Tokens over which a layer's attention is counted."""
    if attention == "local" and model.sliding_window_width is not None:
        return min(model.sliding_window_width, model.seq_length)
    return model.seq_length


def _attention_width(model: ModelConfig) -> int:
    """Columns of the fused query, key and value projection."""
    return (model.num_attention_heads + 2 * model.num_query_groups) * model.head_size


def _matrices(model: ModelConfig) -> int:
    """Weights of one layer's matrix products."""
    h = model.hidden_size
    attention = h * _attention_width(model) + model.num_attention_heads * model.head_size * h
    return attention + h * model.mlp_size * (3 if model.is_gated else 2)


def _biases(model: ModelConfig) -> int:
    h = model.hidden_size
    attention = _attention_width(model) + h if model.use_bias_in_attn_linear else 0
    mlp = model.mlp_size * (2 if model.is_gated else 1) + h if model.use_bias_in_mlp else 0
    return attention + mlp


def _norm_parameters(model: ModelConfig) -> int:
    h = model.hidden_size
    if model.norm.name == "layernorm":
        return 2 * h if model.use_bias_in_norms else h
    return {"scalenorm": 1, "non_parametric_layernorm": 0}.get(model.norm.name, h)


@dataclass(frozen=True)
class Memory:
    """Estimated bytes on one rank during training."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it; the allocator and the libraries come on top."""
        return self.weights + self.gradients + self.optimizer + self.activations


def memory_per_rank(config: Config, padded_vocab_size: int, *, data_size: int) -> Memory:
    """What a rank holds during training, estimated: the fullest pipeline stage is taken for an even share.

    ZeRO 1 divides the optimizer's state over `data_size` ranks, 2 the gradients too, 3 the weights too. An
    optimizer is taken to keep two numbers a weight, as Adam does.
    """
    stages, tensor = config.parallelism.num_pipe_stages, config.parallelism.model_parallel_size
    share = -(-num_parameters(config.model, padded_vocab_size) // (stages * tensor))
    zero = max(1, config.optimizer.zero_optimization.stage)
    is_full = config.precision.dtype == "fp32"
    per_weight = 4 if is_full else 2
    # Half precision keeps an fp32 copy of the weights, and bf16 accumulates gradients in fp32.
    per_gradient = 2 if config.precision.dtype == "fp16" else 4
    per_state = 8 if is_full else 12
    return Memory(
        weights=share * per_weight // (data_size if zero >= 3 else 1),
        gradients=share * per_gradient // (data_size if zero >= 2 else 1),
        optimizer=share * per_state // data_size,
        activations=_activations(config, padded_vocab_size, per_weight),
    )


def _activations(config: Config, padded_vocab_size: int, per_number: int) -> int:
    """Bytes kept for the backward pass (Korthikanti et al. 2022, section 4, without the attention matrix)."""
    model, tensor = config.model, config.parallelism.model_parallel_size
    micro = config.training.train_micro_batch_size_per_gpu or 1
    tokens = model.seq_length * micro
    layers = -(-model.num_layers // config.parallelism.num_pipe_stages)
    mlp = model.mlp_size * (3 if model.is_gated else 2)
    # Inputs of both norms and of the residual additions stay whole; what linear layers make is divided.
    whole = 4 * model.hidden_size // (tensor if config.parallelism.sequence_parallel else 1)
    divided = (_attention_width(model) + 2 * model.hidden_size + mlp) // tensor
    layer = tokens * (whole + divided) * per_number
    if config.training.checkpoint_activations:
        segments = -(-layers // config.training.checkpoint_num_layers)
        kept = (
            segments * tokens * model.hidden_size * per_number + config.training.checkpoint_num_layers * layer
        )
    else:
        kept = layers * layer
    # As many micro-batches are under way on the first stage as there are stages.
    kept *= config.parallelism.num_pipe_stages
    logits = tokens * padded_vocab_size // tensor * (per_number + 4)
    return kept + logits
