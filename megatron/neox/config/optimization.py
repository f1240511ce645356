"""Optimizer, learning rate and precision."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from megatron.neox.config.section import Choice, PartChoice, Section


class ZeroConfig(Section):
    """DeepSpeed's `zero_optimization` block; keys not named here are passed on as they are."""

    model_config = ConfigDict(extra="allow")

    stage: int = Field(default=1, ge=0, le=3)
    """Optimizer state (1), gradients (2) and weights (3) divided over data-parallel ranks; 0 is read as 1."""


class OptimizerConfig(Section):
    """Which optimizer, how its state is divided, and how gradients are tamed."""

    optimizer: Choice = PartChoice(name="adam", options={"lr": 6e-4})
    """Optimizer, a plugin of kind `optimizer`: {"type": "adam", "params": {"lr": 6e-4, "betas": [0.9, 0.95]}}."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay; norms and biases get none."""
    gradient_clipping: NonNegativeFloat = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    zero_optimization: ZeroConfig = ZeroConfig()
    """DeepSpeed's ZeRO block."""
    zero_allow_untested_optimizer: bool = True
    """Accepted for old configs: always on."""
    deepspeed_extra_args: dict[str, Any] = Field(default_factory=dict)
    """Further blocks of DeepSpeed's JSON, handed on as they are ({"flops_profiler": {"enabled": true}})."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        return float(self.optimizer.options.get("lr", 1e-3))


class ScheduleConfig(Section):
    """Learning rate over the steps."""

    lr_decay_style: str = "linear"
    """Schedule, a plugin of kind `schedule`: constant, linear, cosine, exponential, wsd."""
    lr_schedule_version: Literal[1, 2] = 2
    """1 is the cosine of GPT-NeoX before 2023 (PolyCoder's), 2 today's."""
    lr_decay_iters: PositiveInt | None = None
    """Steps until the floor is reached; none means lr_decay_fraction of train_iters."""
    lr_decay_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of train_iters until the floor is reached, where lr_decay_iters is not given."""
    warmup: float = Field(default=0.01, ge=0, le=1)
    """Share of the steps until the floor (lr_decay_iters) over which the learning rate rises linearly."""
    min_lr: NonNegativeFloat = 0.0
    """Floor of the schedule."""
    wsd_decay_fraction: float = Field(default=0.1, gt=0, le=1)
    """Share of the steps over which `wsd` comes down."""
    override_lr_scheduler: bool = False
    """Accepted for old configs: the schedule is a function of the step, so this config always holds."""
    use_checkpoint_lr_scheduler: bool = False
    """Accepted for old configs, without effect (see override_lr_scheduler)."""


class Fp16Config(Section):
    """GPT-NeoX's `fp16` block."""

    enabled: bool = False
    """Train in fp16."""
    type: Literal["fp16", "bfloat16"] | None = None
    """Old spelling: "bfloat16" selects bf16."""
    fp16: bool | None = None
    """Old spelling of enabled."""
    loss_scale: NonNegativeFloat = 0
    """Fixed loss scale; 0 is dynamic."""
    loss_scale_window: PositiveInt = 1000
    """Steps without overflow before the scale doubles."""
    initial_scale_power: NonNegativeInt = 16
    """The first dynamic scale is 2 to this power."""
    hysteresis: PositiveInt = 2
    """Overflows in a row before the scale halves."""
    min_loss_scale: PositiveFloat = 1
    """Smallest dynamic scale."""
    consecutive_hysteresis: bool = False
    """Refill the hysteresis after each step without overflow."""
    auto_cast: bool = False
    """Cast inputs to fp16."""


class Bf16Config(Section):
    """GPT-NeoX's `bf16` block."""

    enabled: bool = False
    """Train in bf16."""


class PrecisionConfig(Section):
    """Number formats."""

    precision: Literal["fp32", "fp16", "bfloat16", "bf16"] | None = None
    """Format of weights and activations; none means what the fp16 and bf16 blocks say, else fp32."""
    fp16: Fp16Config = Fp16Config()
    """fp16 with its loss scale."""
    bf16: Bf16Config = Bf16Config()
    """bf16."""
    data_types: dict[str, Any] = Field(default_factory=dict)
    """DeepSpeed's block; {"grad_accum_dtype": "fp32"} accumulates gradients in fp32, bf16's default here."""
    fp32_allreduce: bool = False
    """Sum gradients over ranks in fp32."""

    @property
    def dtype(self) -> Literal["fp32", "fp16", "bf16"]:
        """Format of weights and activations."""
        if self.precision is not None:
            return "bf16" if self.precision == "bfloat16" else self.precision
        if self.bf16.enabled or (self.fp16.enabled and self.fp16.type == "bfloat16"):
            return "bf16"
        return "fp16" if self.fp16.enabled or self.fp16.fp16 else "fp32"
