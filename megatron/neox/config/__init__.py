"""What a YAML file may say: frozen sections of typed, documented keys.

`load.py` reads files into a `Config`, `deepspeed.py` makes DeepSpeed's JSON of it, `reference.py` its documentation.
Nothing here imports torch or deepspeed, or opens a file that is not a config.
"""

from megatron.neox.config.config import Config
from megatron.neox.config.data import (
    DataConfig,
    EvaluatedModelConfig,
    EvaluationConfig,
    GenerationConfig,
    TokenizerConfig,
)
from megatron.neox.config.model import ModelConfig
from megatron.neox.config.optimization import OptimizerConfig, PrecisionConfig, ScheduleConfig, ZeroConfig
from megatron.neox.config.parallelism import LaunchConfig, ParallelismConfig
from megatron.neox.config.section import Choice, PartChoice, Section
from megatron.neox.config.training import CheckpointConfig, LoggingConfig, TrainingConfig

__all__ = [
    "CheckpointConfig", "Choice", "Config", "DataConfig", "EvaluatedModelConfig", "EvaluationConfig",
    "GenerationConfig",
    "LaunchConfig", "LoggingConfig", "ModelConfig", "OptimizerConfig", "ParallelismConfig", "PartChoice",
    "PrecisionConfig", "ScheduleConfig", "Section", "TokenizerConfig", "TrainingConfig", "ZeroConfig",
]  # fmt: skip
