"""The architecture: everything that decides which function the weights compute."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from megatron.neox.config.section import Choice, PartChoice, Section

MOST_LAYERS = 10_000
"""Far above any model; a number that a damaged file gives would be spelled out, layer by layer, until memory ends."""


class ModelConfig(Section):
    """Sizes and switches of the transformer."""

    model: str = "gpt_neox"
    """Architecture, a plugin of kind `model`."""
    num_layers: int = Field(gt=0, le=MOST_LAYERS)
    """Number of transformer layers."""
    hidden_size: PositiveInt
    """Width of the residual stream, h."""
    num_attention_heads: PositiveInt
    """Number of query heads, n."""
    num_kv_heads: PositiveInt | None = None
    """Number of key and value heads (grouped queries); none means as many as query heads."""
    intermediate_size: PositiveInt | None = None
    """Width of the MLP, or what mlp_type makes of it; none means 4h, or 8h/3 rounded up to a multiple of 256 for a
    gated activation."""
    mlp_type: Literal["llama", "regular"] | None = None
    """What intermediate_size counts for a gated activation: `llama` the MLP's width, as Hugging Face does and GPT-NeoX
    did before 2024-09; `regular` three times that width, 4h by default, as GPT-NeoX does since. A config file with a
    gated activation says which, unless both are the same."""
    mlp_multiple_of: PositiveInt = 1
    """Round the MLP's width up to a multiple of this."""
    seq_length: PositiveInt
    """Tokens in a training sample."""
    max_position_embeddings: PositiveInt
    """Longest sequence the model is made for; at least seq_length."""
    padded_vocab_size: PositiveInt | None = None
    """Rows of the embedding, vocabulary and padding together; none means computed from the tokenizer."""
    make_vocab_size_divisible_by: PositiveInt = 128
    """The vocabulary is padded to a multiple of this times model_parallel_size."""

    pos_emb: Literal["learned", "rotary", "sinusoidal", "alibi", "none"] | str = "learned"
    """Positions, a plugin of kind `position`."""
    rotary_pct: float = Field(default=1.0, ge=0, le=1)
    """Fraction of each head's features that rotary positions turn."""
    rotary_emb_base: PositiveFloat = 10000
    """Base of the rotary frequencies."""
    rotary_table: Literal["fp32", "fp16_legacy"] = "fp32"
    """Precision of the rotary angles; fp16_legacy is what checkpoints of 2022 were trained with."""

    norm: Choice = PartChoice(name="layernorm")
    """Normalisation, a plugin of kind `norm`: layernorm, rmsnorm, scalenorm."""
    layernorm_epsilon: PositiveFloat = 1e-5
    """Epsilon of layernorm."""
    rms_norm_epsilon: PositiveFloat = 1e-8
    """Epsilon of rmsnorm, inside the square root."""
    scalenorm_epsilon: PositiveFloat = 1e-8
    """Epsilon of scalenorm."""
    use_bias_in_norms: bool = True
    """Give layernorm a bias."""

    activation: Choice = PartChoice(name="gelu")
    """Activation of the MLP, a plugin of kind `activation`; gated ones are geglu, swiglu, reglu, bilinear."""
    bias_gelu_fusion: bool = False
    """GPT-NeoX's fused kernel, which computes gelu's tanh approximation: true selects that approximation."""
    use_bias_in_attn_linear: bool = True
    """Biases in the attention's two linear layers."""
    use_bias_in_mlp: bool = True
    """Biases in the MLP's linear layers."""

    gpt_j_residual: bool = False
    """Add attention and MLP to the same input (parallel residual) instead of one after the other."""
    gpt_j_tied: bool = False
    """With gpt_j_residual, one norm serves attention and MLP."""
    no_weight_tying: bool = False
    """Give the output head weights of its own; false shares the embedding's."""

    attention_config: list[Any] = Field(default_factory=lambda: [[["global"], "all"]])
    """Attention of each layer, plugins of kind `attention`: patterns with how often each is repeated, so that
    [[["global", "local"], 6]] is twelve layers in turn, and [[["global"], "all"]] every layer."""
    sliding_window_width: PositiveInt | None = None
    """Tokens that a `local` layer's query sees, itself included."""
    scale_attn_by_inverse_layer_idx: bool = False
    """Divide attention scores by the layer's number, counted from 1, too (CodeParrot, Mistral's GPT-2)."""
    scaled_upper_triang_masked_softmax_fusion: bool = False
    """Accepted for old configs: scaled dot product attention is used either way."""
    attention_softmax_in_fp32: bool = False
    """Keep attention scores in fp32 in bf16 training and inference on a CPU, which is slower; elsewhere the kernels do
    so anyway, and the softmax is in fp32 everywhere."""

    hidden_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on each branch before it joins the residual stream, and on the embedding."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on attention probabilities."""

    init_method: Choice = PartChoice(name="normal")
    """Initial weights of the layers, a plugin of kind `initializer`."""
    output_layer_init_method: Choice = PartChoice(name="scaled_normal")
    """Initial weights of the layers that write to the residual stream, a plugin of kind `initializer`."""
    init_method_std: NonNegativeFloat = 0.02
    """Standard deviation of `normal` and `scaled_normal`."""

    @property
    def head_size(self) -> int:
        """Features of one head, d."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_size(self) -> int:
        """Features of one head that rotary positions turn."""
        return int(self.head_size * self.rotary_pct)

    @property
    def num_query_groups(self) -> int:
        """Key and value heads."""
        return self.num_kv_heads or self.num_attention_heads

    @property
    def is_gated(self) -> bool:
        """Whether the MLP multiplies two projections of its input."""
        return self.activation.name in {"geglu", "swiglu", "reglu", "bilinear", "glu"}

    @property
    def mlp_size(self) -> int:
        """Width of the MLP between its linear layers."""
        return self.mlp_size_as(self.mlp_type or "llama")

    def mlp_size_as(self, mlp_type: Literal["llama", "regular"]) -> int:
        """Width of the MLP if `mlp_type` were the given one; it matters to gated activations alone."""
        width = self.intermediate_size
        if self.is_gated and mlp_type == "regular":
            width = -(-(2 * (width or 4 * self.hidden_size) // 3) // 2)
        elif width is None:
            width = _round_up(8 * self.hidden_size // 3, 256) if self.is_gated else 4 * self.hidden_size
        return _round_up(width, self.mlp_multiple_of)

    @property
    def tie_weights(self) -> bool:
        """Whether the output head shares the embedding's weights."""
        return not self.no_weight_tying

    @property
    def layer_attention(self) -> list[str]:
        """The attention plugin of each layer, attention_config spelled out.

        Raises:
            ValueError, TypeError, ArithmeticError: it is no list of patterns with how often each is repeated.
        """
        names: list[str] = []
        for pattern, count in self.attention_config:
            repeats = self.num_layers // len(pattern) if count == "all" else int(count)
            if repeats > MOST_LAYERS:
                raise ValueError(f"a pattern is repeated {repeats} times")
            names += list(pattern) * repeats
        return names


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
