"""Whether a checkpoint is of the model that a config describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.neox.config.model import ModelConfig
from megatron.neox.errors import CheckpointError

# What a run may change without its weights becoming other weights.
_FREE = {
    "attention_dropout",
    "attention_softmax_in_fp32",
    "hidden_dropout",
    "init_method",
    "init_method_std",
    "make_vocab_size_divisible_by",
    "mlp_multiple_of",  # intermediate_size below is what both make of it
    "mlp_type",
    "output_layer_init_method",
    "scaled_upper_triang_masked_softmax_fusion",
    "seq_length",
}


def describe_architecture(model: ModelConfig, padded_vocab_size: int) -> dict[str, Any]:
    """The YAML keys that decide which function the weights compute, with the values in force."""
    keys = {key: value for key, value in model.model_dump(mode="json").items() if key not in _FREE}
    keys |= {
        "attention_config": model.layer_attention,
        "intermediate_size": model.mlp_size,
        "num_kv_heads": model.num_query_groups,
        "padded_vocab_size": padded_vocab_size,
    }
    if model.pos_emb != "learned":
        del keys["max_position_embeddings"]  # no weight has its size
    return keys


def check_architecture(found: dict[str, Any], wanted: dict[str, Any], checkpoint: Path) -> None:
    """Compare a checkpoint's architecture with the config's.

    A key that the checkpoint lacks came later than it; its weights are those of the key's default.

    Raises:
        CheckpointError: they differ; lists each key with both values.
    """
    fields = ModelConfig.model_fields
    known = {key: fields[key].default for key in wanted.keys() - found.keys() if key in fields} | found
    lines = [
        f"  {key}: {known.get(key, 'absent')} in the checkpoint, {wanted.get(key, 'absent')} in the config"
        for key in sorted(known.keys() | wanted.keys())
        if known.get(key) != wanted.get(key)
    ]
    if lines:
        raise CheckpointError(
            "\n".join(
                [
                    f"{checkpoint} is of another architecture than the config",
                    *lines,
                    f"  give the checkpoint's values, which stand in {checkpoint}/configs, or another load",
                ]
            )
        )
