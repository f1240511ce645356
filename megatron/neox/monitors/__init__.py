"""Where a run's numbers go: plugins of kind `monitor`.

`console` and `jsonl` always run (`jsonl` where there is a `save` folder); the YAML keys `monitors`,
`tensorboard_dir` and `use_wandb` add others. Only rank 0 has monitors.
"""

from megatron.neox.monitors import console, jsonl, tensorboard, wandb
from megatron.neox.monitors.monitor import Monitor, close_monitors, start_monitors

__all__ = ["Monitor", "close_monitors", "console", "jsonl", "start_monitors", "tensorboard", "wandb"]
