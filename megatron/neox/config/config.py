"""The whole config: one frozen section for each part of the program, and what is derived from several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from megatron.neox.config.data import DataConfig, EvaluationConfig, GenerationConfig, TokenizerConfig
from megatron.neox.config.model import ModelConfig
from megatron.neox.config.optimization import OptimizerConfig, PrecisionConfig, ScheduleConfig
from megatron.neox.config.parallelism import LaunchConfig, ParallelismConfig
from megatron.neox.config.section import PartChoice, Section
from megatron.neox.config.training import CheckpointConfig, LoggingConfig, TrainingConfig

MODEL_SIZES = ("num_layers", "hidden_size", "num_attention_heads", "seq_length", "max_position_embeddings")
"""Keys that every config must give, unless its evaluated_model brings an architecture of its own."""


class Config(Section):
    """Every section; a component is handed its section, never this whole."""

    model: ModelConfig
    parallelism: ParallelismConfig = ParallelismConfig()
    launch: LaunchConfig = LaunchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: PrecisionConfig = PrecisionConfig()
    training: TrainingConfig = TrainingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    generation: GenerationConfig = GenerationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _without_model(cls, sections: Any) -> Any:
        """Sizes of 1, which nothing reads, where the evaluated model has an architecture of its own."""
        if isinstance(sections, dict) and not sections.get("model"):
            evaluation = sections.get("evaluation")
            chosen = evaluation.get("evaluated_model") if isinstance(evaluation, dict) else None
            if isinstance(chosen, dict) and chosen.get("type", "neox") != "neox":
                return {**sections, "model": dict.fromkeys(MODEL_SIZES, 1)}
        return sections

    @property
    def has_no_model(self) -> bool:
        """Whether the section `model` is a stand-in, since evaluated_model has an architecture of its own."""
        sizes = [getattr(self.model, key) for key in MODEL_SIZES]
        return not self.evaluation.evaluated_model.is_checkpoint and sizes == [1] * len(sizes)

    @classmethod
    def from_flat(cls, keys: Mapping[str, Any]) -> Config:
        """Sort flat YAML keys into their sections.

        Raises:
            pydantic.ValidationError: wrong types and values (`load.py` gives them a file and a line).
        """
        sections: dict[str, dict[str, Any]] = {name: {} for name in cls.model_fields}
        owner = section_of()
        for key, value in keys.items():
            sections[owner[key]][key] = value
        return cls.model_validate(sections)

    def flat(self) -> dict[str, Any]:
        """Every key with its value, as `from_flat` takes them and YAML writes them."""
        return {key: _plain(getattr(getattr(self, section), key)) for key, section in section_of().items()}

    def given(self) -> dict[str, Any]:
        """Those of the keys that were given, not left at their defaults: what a checkpoint records."""
        owner = section_of()
        flat = self.flat().items()
        return {key: value for key, value in flat if key in getattr(self, owner[key]).model_fields_set}


def _plain(value: Any) -> Any:
    """A value as YAML writes it; a part is its name, or `{"type": name, ...options}`."""
    if isinstance(value, PartChoice):
        return {"type": value.name, **value.options} if value.options else value.name
    if isinstance(value, Section):
        return value.model_dump(exclude_unset=True)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def section_of() -> dict[str, str]:
    """The section that owns each YAML key."""
    owner: dict[str, str] = {}
    for section, field in Config.model_fields.items():
        for key in field.annotation.model_fields:  # pyright: ignore
            assert key not in owner, f"{key} stands in {owner.get(key)} and {section}"
            owner[key] = section
    return owner
