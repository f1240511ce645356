"""The run: how long, how large a batch, when to look, what to keep."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from megatron.neox.config.section import Choice, Section


class TrainingConfig(Section):
    """Steps, batches and cadence."""

    train_iters: PositiveInt | None = None
    """Optimizer steps of the whole run; required for training."""
    train_batch_size: PositiveInt | None = None
    """Sequences in an optimizer step, over all ranks; none means computed from the next two."""
    train_micro_batch_size_per_gpu: PositiveInt | None = None
    """Sequences in one forward pass of one data-parallel rank."""
    gradient_accumulation_steps: PositiveInt | None = None
    """Forward passes in an optimizer step."""
    seed: NonNegativeInt = 1234
    """Seed of the initial weights, the sample order and dropout."""
    eval_interval: NonNegativeInt = 1000
    """Steps between validations; 0 validates never."""
    eval_iters: PositiveInt = 100
    """Batches in a validation."""
    eval_tasks_interval: NonNegativeInt = 0
    """Steps between runs of eval_tasks on the model in training; 0 leaves them to evaluate.py."""
    log_interval: PositiveInt = 100
    """Steps between log lines and metrics."""
    steps_per_print: PositiveInt | None = None
    """Old spelling of log_interval, used when that is absent."""
    exit_interval: PositiveInt | None = None
    """Save and stop after this many steps of this process, for jobs with a time limit."""
    stop_after_bad_losses: PositiveInt = 10
    """Stop the run after this many steps in a row whose loss is not a number."""
    wall_clock_breakdown: bool = False
    """Log DeepSpeed's own timers; they synchronise the device and cost speed."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    checkpoint_num_layers: PositiveInt = 1
    """Layers in one recomputed segment."""
    partition_activations: bool = False
    """Accepted for old configs, without effect."""
    synchronize_each_layer: bool = False
    """Accepted for old configs, without effect."""
    hooks: list[Choice] = Field(default_factory=list)
    """Extra parts called at the loop's events, plugins of kind `hook`."""
    plugins: list[str] = Field(default_factory=list)
    """Files (`part.py`) and modules (`package.module`) imported before any part is looked up."""


class CheckpointConfig(Section):
    """What is saved and loaded."""

    save: str | None = None
    """Folder of checkpoints and metrics.jsonl; none saves nothing."""
    load: str | None = None
    """Folder to resume from; for training, an absent or empty one means a fresh start."""
    iteration: NonNegativeInt | None = None
    """Step to load; none means the one that `latest` names, or the newest where there is no `latest`."""
    load_fallback: bool = False
    """Where that checkpoint is damaged, load the newest intact one instead; false stops and names it."""
    allow_tokenizer_mismatch: bool = False
    """Go on with another tokenizer than the checkpoint was trained with; false stops and says what differs."""
    checkpoint_factor: PositiveInt | None = None
    """Steps between checkpoints (linear), or the factor between them (log); none saves only the last."""
    checkpoint_scale: Literal["linear", "log"] = "linear"
    """Spacing of checkpoints."""
    extra_save_iters: list[NonNegativeInt] = Field(default_factory=list)
    """Further steps to save; 0 is the untrained model."""
    keep_last_n_checkpoints: PositiveInt | None = None
    """Checkpoints to keep; none keeps all."""
    finetune: bool = False
    """Load only the weights, and start at step 0."""
    no_load_optim: bool = False
    """Leave the optimizer's state behind."""
    no_load_rng: bool = False
    """Accepted for old configs: random numbers are a function of seed and step."""
    no_save_optim: bool = False
    """Save weights only; such a checkpoint cannot be resumed exactly."""
    checkpoint_validation_with_forward_pass: bool = False
    """Accepted for old configs, without effect: checkpoints are checked by the digests of their files."""


class LoggingConfig(Section):
    """Where numbers go, besides the console and metrics.jsonl, which always get them."""

    log_dir: str | None = None
    """Folder for a copy of the console's lines."""
    monitors: list[Choice] = Field(default_factory=list)
    """Further trackers, plugins of kind `monitor`; tensorboard and wandb are added by the keys below."""
    tensorboard_dir: str | None = None
    """Write TensorBoard events here."""
    use_wandb: bool | None = None
    """Log to Weights & Biases; none means no."""
    wandb_project: str = "neox"
    """Project at Weights & Biases."""
    wandb_team: str | None = None
    """Team (entity) at Weights & Biases."""
    wandb_group: str | None = None
    """Group of the run."""
    wandb_run_name: str | None = None
    """Name of the run."""
    wandb_host: str = "https://api.wandb.ai"
    """Server of Weights & Biases."""
    wandb_init_all_ranks: bool = False
    """Accepted for old configs: rank 0 logs."""
    peak_flops_per_second: float | None = Field(default=None, gt=0)
    """Peak of one device in FLOP/s for MFU; none means the device table, or on a CPU a measured matmul."""

    @property
    def choices(self) -> list[tuple[str, dict[str, Any]]]:
        """Every monitor to start, by name and options."""
        chosen = [(choice.name, dict(choice.options)) for choice in self.monitors]
        if self.tensorboard_dir:
            chosen.append(("tensorboard", {"folder": self.tensorboard_dir}))
        if self.use_wandb:
            chosen.append(("wandb", {}))
        return chosen
