"""What `./deepy.py config` and `./deepy.py plugins` print."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from megatron.neox.config import Config
from megatron.neox.config.batch import resolve
from megatron.neox.config.config import section_of
from megatron.neox.config.deepspeed import deepspeed_config
from megatron.neox.config.load import LoadedConfig
from megatron.neox.config.parameters import flops_per_token, memory_per_rank, num_parameters
from megatron.neox.config.source import parse_value
from megatron.neox.config.vocabulary import padded_vocab_size
from megatron.neox.errors import ConfigError, Problem, UnknownPartError, did_you_mean
from megatron.neox.plugins import REGISTRIES, Part, load_entry_points, load_plugins

_POLYCODER_VOCABULARY = 50257


def show_config(loaded: LoadedConfig) -> None:
    """Print the merged config with the place of each key, DeepSpeed's JSON, and what follows from them."""
    config = loaded.config
    num_ranks, data_size = _num_ranks(config)
    batches = config.training
    has_batch = batches.train_batch_size is not None or batches.train_micro_batch_size_per_gpu is not None
    if has_batch:
        config = resolve(config, data_size=data_size)
    _print_keys(config, loaded.places)
    if has_batch:
        print("\n# DeepSpeed's JSON")
        print(json.dumps(deepspeed_config(config, data_size=data_size), indent=2))
    print()
    for line in _numbers(config, num_ranks, data_size):
        print(line)
    for note in loaded.notes:
        print(f"note: {note}")


def _print_keys(config: Config, places: dict[str, str]) -> None:
    """Every key as YAML, by section; those that a file gives with their place."""
    owner, before = section_of(), ""
    for key, value in config.flat().items():
        if owner[key] != before:
            before = owner[key]
            print(f"\n# {before}" if key != next(iter(owner)) else f"# {before}")
        line = f"{key}: {json.dumps(value, ensure_ascii=False)}"
        print(f"{line:<60}  # {places[key]}" if key in places else line)


def _num_ranks(config: Config) -> tuple[int, int]:
    """Processes that the config names, or one copy of the model; and the data-parallel ranks among them."""
    launch, parallelism = config.launch, config.parallelism
    grid = parallelism.num_model_ranks
    total = parallelism.global_num_gpus or (launch.num_gpus or 0) * (launch.num_nodes or 1) or grid
    if total % grid:
        raise ConfigError(
            [Problem.about(
                ("global_num_gpus", "num_gpus", "pipe_parallel_size", "model_parallel_size"),
                f"{total} processes cannot be divided into {parallelism.num_pipe_stages} stages x "
                f"{parallelism.model_parallel_size} tensor ranks; give num_gpus as a multiple of {grid}",
            )]
        )  # fmt: skip
    return total, total // grid


def _numbers(config: Config, num_ranks: int, data_size: int) -> list[str]:
    vocabulary, source = _vocabulary(config)
    model, training = config.model, config.training
    memory = memory_per_rank(config, vocabulary, data_size=data_size)
    gigabytes = [
        f"{name} {getattr(memory, name) / 1e9:.2f}"
        for name in ("weights", "gradients", "optimizer", "activations")
    ]
    full, causal = (flops_per_token(model, vocabulary, causal=causal) for causal in (False, True))
    lines = [
        f"vocabulary        {vocabulary} rows ({source})",
        f"parameters        {num_parameters(model, vocabulary):,}",
        f"processes         {num_ranks} = {config.parallelism.num_pipe_stages} pipeline stages "
        f"x {config.parallelism.model_parallel_size} tensor x {data_size} data",
        f"FLOPs per token   {full:.4g} ({causal:.4g} with the causal half of attention)",
        f"memory per rank   about {memory.total / 1e9:.2f} GB: {', '.join(gigabytes)}",
    ]
    if training.train_batch_size is not None:
        tokens = training.train_batch_size * model.seq_length
        lines.insert(3, f"batch             {training.train_batch_size} sequences, {tokens:,} tokens a step")
        if training.train_iters is not None:
            run = tokens * training.train_iters
            lines.append(f"whole run         {run:,} tokens, {full * run:.3g} FLOPs")
    return lines


def _vocabulary(config: Config) -> tuple[int, str]:
    """Rows of the embedding, and where the number is from."""
    model, section = config.model, config.tokenizer
    if model.padded_vocab_size is not None:
        return model.padded_vocab_size, "padded_vocab_size"
    size, source = _POLYCODER_VOCABULARY, "PolyCoder's, for no vocabulary file was found"
    if section.vocab_file is not None and Path(section.vocab_file).exists():
        from megatron.neox.tokenizers import build_tokenizer

        size, source = build_tokenizer(section).vocab_size, section.vocab_file
    padded = padded_vocab_size(
        size,
        divisible_by=model.make_vocab_size_divisible_by,
        tensor_size=config.parallelism.model_parallel_size,
    )
    return padded, f"{size} of {source}, padded"


def show_plugins(kinds: list[str], *, files: list[str]) -> None:
    """Print every part of the kinds (none means all): name, what it is, its options, where it comes from.

    Installed packages whose plugins could not be imported are told at the end.

    Args:
        kinds: names of kinds, singular or plural.
        files: `plugins=[...]` overrides, whose files are imported first.

    Raises:
        UnknownPartError: no such kind.
    """
    for text in files:
        value = parse_value(text.partition("=")[2])
        load_plugins(value if isinstance(value, list) else [value])
    wanted = [kind.removesuffix("s") for kind in kinds]
    known = [registry.kind for registry in REGISTRIES]
    for kind in wanted:
        if kind not in known:
            raise UnknownPartError(
                f"no kind of part is named '{kind}'{did_you_mean(kind, known)} ({', '.join(known)})"
            )
    for registry in REGISTRIES:
        if wanted and registry.kind not in wanted:
            continue
        key = f"  (YAML key {registry.yaml_key})" if registry.yaml_key else ""
        print(f"{registry.kind}{key}")
        parts = list(registry)
        for part in parts:
            _print_part(part)
        if not parts:
            print("  (none is built in)")
    for failure in load_entry_points():
        print(f"not loaded: {failure}")


def _print_part(part: Part[Any]) -> None:
    print(f"  {part.name:<26} {part.summary}")
    options = [
        name if p.default is inspect.Parameter.empty else f"{name}={p.default!r}"
        for name, p in _options(part)
    ]
    if options:
        print(f"  {'':<26} options: {', '.join(options)}")
    if not part.module.startswith("megatron.neox."):
        print(f"  {'':<26} from: {part.origin}")


def _options(part: Part[Any]) -> list[tuple[str, inspect.Parameter]]:
    try:
        return list(part.options.items())
    except (TypeError, ValueError):  # a value that cannot be called has none
        return []
