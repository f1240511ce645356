"""GPT-NeoX's keys that mean something here under another name or shape: old spellings and moved blocks.

RENAMED gives the key of today; `rewrite` changes values, or several keys at once, and says so in a note.
Sources: neox_arguments of EleutherAI/gpt-neox from its first version to ea7aefd8 (2026), and model/transformer.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Keys = dict[str, Any]
"""Flat YAML keys and their values."""

RENAMED = {
    "save_interval": "checkpoint_factor",
    "save_iters": "extra_save_iters",
    "batch_size": "train_micro_batch_size_per_gpu",
    "gas": "gradient_accumulation_steps",
    "clip_grad": "gradient_clipping",
    "gptj_residual": "gpt_j_residual",
    "slurm_comment": "comment",
    "max_tokens": "maximum_tokens",
    "genfile": "sample_output_file",
}
"""Old key: the key of today, with the same values."""

MOVED = {
    "lr": ("optimizer", "lr"),
    "optimizer_type": ("optimizer", "type"),
    "loss_scale": ("fp16", "loss_scale"),
    "loss_scale_window": ("fp16", "loss_scale_window"),
    "hysteresis": ("fp16", "hysteresis"),
    "min_scale": ("fp16", "min_loss_scale"),
    "zero_stage": ("zero_optimization", "stage"),
    "zero_reduce_scatter": ("zero_optimization", "reduce_scatter"),
    "zero_contiguous_gradients": ("zero_optimization", "contiguous_gradients"),
    "zero_reduce_bucket_size": ("zero_optimization", "reduce_bucket_size"),
    "zero_allgather_bucket_size": ("zero_optimization", "allgather_bucket_size"),
}
"""Old top-level key: the block that it now stands in, and the block's key."""

# Keys that `_data` and `_other` and `_mlp` change.
_CHANGED = {
    "expansion_factor": "intermediate_size",
    "train_data_path": "train_data_paths",
    "valid_data_path": "valid_data_paths",
    "test_data_path": "test_data_paths",
    "peak_theoretical_tflops": "peak_flops_per_second",
    "deepspeed_slurm": "launcher",
    "deepspeed_mpi": "launcher",
}

# Blocks that DeepSpeed reads by itself, handed to it as they are.
_PASSED_ON = (
    "prescale_gradients", "gradient_predivide_factor", "communication_data_type", "flops_profiler",
    "comms_logger", "dump_state",
)  # fmt: skip


def translations() -> dict[str, str]:
    """Every key that is read as another one, with that one; nested ones by dotted path."""
    moved = {old: f"{block}.{name}" for old, (block, name) in MOVED.items()}
    passed_on = {name: f"deepspeed_extra_args.{name}" for name in _PASSED_ON}
    return RENAMED | moved | passed_on | _CHANGED


def rewrite(keys: Keys, notes: list[str]) -> dict[str, str]:
    """Change `keys` in place from old shapes to today's, with a note for each change that is more than a name.

    Returns:
        New key: the old key it came from, for messages about its place.
    """
    origins: dict[str, str] = {}
    for change in (_move, _pass_on, _optimizer, _precision, _zero, _attention, _mlp, _data, _paths, _other):
        change(keys, notes, origins)
    return origins


def _move(keys: Keys, notes: list[str], origins: dict[str, str]) -> None:
    for old, (block, name) in MOVED.items():
        if old not in keys:
            continue
        value = keys.pop(old)
        given = keys.get(block)
        if isinstance(given, dict) and (name in given or name in (given.get("params") or {})):
            notes.append(f"{old} has no effect: {block} gives {name}")
            continue
        if not isinstance(given, dict):
            given = {"type": given or "adam"} if block == "optimizer" else {}
        keys[block] = {**given, name: value}
        origins.setdefault(block, old)
        notes.append(f"{old} is read as {block}.{name}")


def _pass_on(keys: Keys, notes: list[str], origins: dict[str, str]) -> None:
    found = {name: keys.pop(name) for name in _PASSED_ON if name in keys}
    if found:
        keys["deepspeed_extra_args"] = {**found, **(keys.get("deepspeed_extra_args") or {})}
        origins.setdefault("deepspeed_extra_args", next(iter(found)))


_SAME_OPTIMIZER = {"adamw": "adam", "cpu_adam": "adam", "cpu_torch_adam": "adam", "fusedadam": "adam"}


def _optimizer(keys: Keys, notes: list[str], _: dict[str, str]) -> None:
    given = keys.get("optimizer")
    if isinstance(given, str):
        keys["optimizer"] = given.lower()
    elif isinstance(given, dict) and isinstance(given.get("type"), str):
        name = given["type"].lower()
        keys["optimizer"] = {**given, "type": _SAME_OPTIMIZER.get(name, name)}
        if name in ("cpu_adam", "cpu_torch_adam"):
            notes.append(f"optimizer {name} is read as adam: the optimizer runs where the weights are")


_IDLE_IN_BF16 = (
    "bf16",
    "loss_scale",
    "loss_scale_window",
    "initial_scale_power",
    "hysteresis",
    "min_loss_scale",
)


def _precision(keys: Keys, notes: list[str], _: dict[str, str]) -> None:
    fp16 = keys.get("fp16")
    if isinstance(fp16, dict) and fp16.get("type") == "bfloat16":
        notes.append('fp16.type "bfloat16" is an old spelling of bf16: {"enabled": true}')
    bf16 = keys.get("bf16")
    if isinstance(bf16, dict) and (idle := [key for key in bf16 if key in _IDLE_IN_BF16]):
        keys["bf16"] = {key: value for key, value in bf16.items() if key not in idle}
        notes.append(f"bf16.{idle[0]} and the like have no effect: bf16 needs no loss scale")


def _zero(keys: Keys, notes: list[str], _: dict[str, str]) -> None:
    zero = keys.get("zero_optimization")
    if not isinstance(zero, dict):
        return
    if "cpu_offload" in zero:
        zero = {key: value for key, value in zero.items() if key != "cpu_offload"} | (
            {"offload_optimizer": {"device": "cpu"}} if zero["cpu_offload"] else {}
        )
        keys["zero_optimization"] = zero
        if "offload_optimizer" in zero:
            notes.append("zero_optimization.cpu_offload is read as offload_optimizer on the CPU")
    if zero.get("stage") == 0:
        notes.append(
            "zero_optimization.stage 0 is read as 1: same numbers, less memory (docs/design.md, decision 4)"
        )


def _attention(keys: Keys, notes: list[str], _: dict[str, str]) -> None:
    given = keys.get("attention_config")
    if not isinstance(given, list):
        return
    if given and all(isinstance(item, str) for item in given):
        given = [[given, 1]]
    if "'flash'" in repr(given):
        given = _replace(given, "flash", _flash(keys, notes))
    keys["attention_config"] = given


def _flash(keys: Keys, notes: list[str]) -> str:
    """The attention that GPT-NeoX's flash layers compute: with a window they do not see everything."""
    window = keys.get("sliding_window_width")
    if isinstance(window, bool) or not isinstance(window, int):
        notes.append(
            "attention_config 'flash' is read as 'global': the same function, and the kernel is chosen by PyTorch"
        )
        return "global"
    keys["sliding_window_width"] = window + 1
    notes.append(
        f"sliding_window_width {window} with 'flash' attention is read as {window + 1} with 'local': "
        "GPT-NeoX counts the tokens before the query, here the query counts too"
    )
    return "local"


def _replace(value: Any, old: str, new: str) -> Any:
    if isinstance(value, list):
        return [_replace(item, old, new) for item in value]
    return new if value == old else value


_GATED = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu", "relu": "reglu"}


def _mlp(keys: Keys, notes: list[str], origins: dict[str, str]) -> None:
    factor, hidden = keys.get("expansion_factor"), keys.get("hidden_size")
    if isinstance(factor, int | float) and isinstance(hidden, int) and "intermediate_size" not in keys:
        del keys["expansion_factor"]
        keys["intermediate_size"] = int(factor * hidden)
        origins.setdefault("intermediate_size", "expansion_factor")
        notes.append(f"expansion_factor {factor} is read as intermediate_size {int(factor * hidden)}")
    _gated_width(keys, notes)
    # Until 2024-09 "llama" was an MLP without biases, gated by an activation that bore its plain name.
    activation = keys.get("activation", "gelu")
    if keys.get("mlp_type") == "llama" and isinstance(activation, str) and activation in _GATED:
        keys["activation"] = _GATED[activation]
        keys.setdefault("use_bias_in_mlp", False)
        origins.setdefault("activation", "mlp_type")
        notes.append(
            f'mlp_type "llama" with activation {activation} is read as {_GATED[activation]}, without biases'
        )


def _gated_width(keys: Keys, notes: list[str]) -> None:
    """`mlp_multiple_of` came to GPT-NeoX with today's meaning of intermediate_size, so it tells the meaning."""
    given = keys.get("activation")
    activation = given.get("type") if isinstance(given, dict) else given
    if (
        activation in (*_GATED.values(), "bilinear", "glu")
        and "mlp_multiple_of" in keys
        and "mlp_type" not in keys
    ):
        keys["mlp_type"] = "regular"
        notes.append(
            f"mlp_multiple_of with {activation} means mlp_type: regular: the MLP is a third as wide as "
            "intermediate_size (4 hidden_size if that is absent), rounded up"
        )


def _data(keys: Keys, notes: list[str], origins: dict[str, str]) -> None:
    for part in ("train", "valid", "test"):
        old, new = f"{part}_data_path", f"{part}_data_paths"
        if old in keys and new not in keys:
            path = keys.pop(old)
            keys[new] = [path] if isinstance(path, str) else path
            origins.setdefault(new, old)
        paths = keys.get(new)
        if isinstance(paths, list) and len(paths) > 1 and not keys.get(f"{part}_data_weights"):
            notes.append(
                f"{new} without {part}_data_weights: each dataset weighs as much as its tokens, in GPT-NeoX all weigh "
                f"the same, which {part}_data_weights: {[1] * len(paths)} does here"
            )


_IMAGE = "/gpt-neox/"  # working directory of PolyCoder's Docker image


def _paths(keys: Keys, notes: list[str], _: dict[str, str]) -> None:
    if Path(_IMAGE).is_dir():
        return
    for key, value in keys.items():
        if isinstance(value, str) and value.startswith(_IMAGE):
            keys[key] = value.removeprefix(_IMAGE)
            notes.append(
                f"{key} {value} is read as {keys[key]}: {_IMAGE} was a folder of PolyCoder's Docker image"
            )


def _other(keys: Keys, notes: list[str], origins: dict[str, str]) -> None:
    tflops = keys.pop("peak_theoretical_tflops", None)
    if isinstance(tflops, int | float):
        keys.setdefault("peak_flops_per_second", tflops * 1e12)
        origins.setdefault("peak_flops_per_second", "peak_theoretical_tflops")
    if keys.get("activation") == "swish":
        keys["activation"] = "silu"
    if keys.get("num_nodes") == -1:  # "all" in DeepSpeed's runner
        del keys["num_nodes"]
    if keys.pop("deepspeed_slurm", False):
        keys["launcher"] = "slurm"
        notes.append('deepspeed_slurm is read as launcher "slurm"')
        origins.setdefault("launcher", "deepspeed_slurm")
    if keys.pop("deepspeed_mpi", False):
        keys["launcher"] = "openmpi"
        notes.append('deepspeed_mpi is read as launcher "openmpi"')
        origins.setdefault("launcher", "deepspeed_mpi")
