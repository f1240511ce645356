"""Folders as transformers' `save_pretrained` writes them and `from_pretrained` reads them, in and out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from megatron.neox.config import Config, ModelConfig
from megatron.neox.config.checks import conflicts
from megatron.neox.errors import CheckpointError
from megatron.neox.files import write_whole
from megatron.neox.layouts.huggingface.family import Family, Rule, Shape
from megatron.neox.layouts.huggingface.gpt2 import GPT2
from megatron.neox.layouts.huggingface.gpt_neox import GPT_NEOX
from megatron.neox.layouts.huggingface.llama import LLAMA
from megatron.neox.layouts.huggingface.settings import Settings
from megatron.neox.layouts.huggingface.tokenizer import find_tokenizer
from megatron.neox.layouts.huggingface.weights import WeightFiles
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.tokenizers import Tokenizer
from megatron.neox.tokenizers.export import first_token, tokenizer_json, write_tokenizer

FAMILIES = (GPT_NEOX, GPT2, LLAMA)
SHARD_BYTES = 2 * 10**9

_MOST_POSITIONS = (
    2**24
)  # a larger number was damaged, and would cost its memory before any tensor is looked at

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Number formats by the name that configs and commands use."""

# --- in -----------------------------------------------------------------------------------------------------


def open_folder(folder: Path) -> StoredModel:
    """The model of a folder; its tensors are mapped, not loaded.

    Raises:
        CheckpointError: a file is absent or damaged, the model is of a kind that is not supported, or the tensors are
            not those that its config.json asks for.
    """
    settings = Settings.load(folder / "config.json")
    family = _family_of(settings)
    model = _model_of(settings, family)
    files = WeightFiles(folder)
    prefix = family.prefix if any(name.startswith(family.prefix) for name in files.names) else ""
    names = _Names(family, files, prefix)
    _check(folder, names, model)

    def read_layer(number: int) -> dict[str, Tensor]:
        return {
            rule.ours: rule.join([files.tensor(names.stored(name)) for name in rule.theirs])
            for rule in family.rules(model, number)
        }

    dtype = str(files.tensor(names.stored(next(iter(family.rules(model, 0)[0].theirs)))).dtype)
    kind = f"Hugging Face folder of a {settings.content['model_type']}"
    return StoredModel(
        kind=f"{kind}, {files.format}, {dtype.removeprefix('torch.')}",
        path=folder,
        model=model,
        tokenizer=find_tokenizer(folder),
        read_layer=read_layer,
    )


def _family_of(settings: Settings) -> Family:
    name = settings.content.get("model_type")
    known = {model_type: family for family in FAMILIES for model_type in family.model_types}
    problems = []
    if not isinstance(name, str) or name not in known:
        problems.append(f"model_type {name!r} is not supported; these are: {', '.join(known)}")
    if settings.content.get("auto_map"):
        problems.append(
            "auto_map: the model needs code of its own, and code from a model's folder is never run"
        )
    if settings.content.get("quantization_config"):
        problems.append("quantization_config: quantised weights are not read; take the original ones")
    if problems:
        raise CheckpointError("\n".join(f"{settings.path}: {problem}" for problem in problems))
    return known[str(name)]


def _model_of(settings: Settings, family: Family) -> ModelConfig:
    """The architecture, or all that is wrong with it."""
    try:
        keys = family.read(settings)
        if not settings.problems:
            model = ModelConfig(**keys)
            settings.problems += [str(problem) for problem in conflicts(Config(model=model))]
            if (count := model.max_position_embeddings) > _MOST_POSITIONS:
                settings.problems.append(
                    f"it asks for {count} positions, and no model has more than {_MOST_POSITIONS}"
                )
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            settings.problems.append(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        settings.problems.append(f"a value is of the wrong kind ({error})")
    if settings.problems:
        raise CheckpointError("\n".join(f"{settings.path}: {problem}" for problem in settings.problems))
    return model  # pyright: ignore[reportPossiblyUnboundVariable]


@dataclass(frozen=True)
class _Names:
    """Under which names a folder's files hold the tensors of a family."""

    family: Family
    files: WeightFiles
    prefix: str

    def stored(self, name: str) -> str:
        alias = self.family.aliases.get(name)
        if name not in self.files.names and alias in self.files.names:
            return alias
        return name if self.prefix else name.removeprefix(self.family.prefix)


def _check(folder: Path, names: _Names, model: ModelConfig) -> None:
    """Every tensor there, of the right shape, and none too many."""
    wanted = {names.stored(name): shape for name, shape in _tensors_of(names.family, model)}
    files = names.files
    heads = files.names & {"lm_head.weight", "embed_out.weight"} if model.tie_weights else set()
    lines = [f"  {name} is missing" for name in wanted if name not in files.names]
    for name, shape in wanted.items():
        if name in files.names and files.shape(name) != shape:
            lines.append(f"  {name} is {files.shape(name)}, and {shape} by config.json")
    surplus = sorted(files.names - wanted.keys() - heads)
    lines += [f"  {name} is of no use" for name in surplus if not name.endswith(names.family.derived)]
    if lines:
        more = [f"  and {len(lines) - 20} more"] if len(lines) > 20 else []
        title = f"{folder}: the tensors are not those of the model that config.json describes"
        raise CheckpointError("\n".join([title, *lines[:20], *more]))
    _refuse_other_heads(folder, names, model, heads)


def _refuse_other_heads(folder: Path, names: _Names, model: ModelConfig, heads: set[str]) -> None:
    """A head that is tied may be stored, if it is the embedding.

    transformers 5 computes with one that differs and transformers 4 drops it: two models of one folder.
    """
    (theirs,) = names.family.rules(model, 0)[0].theirs
    for name in heads:
        embedding = names.files.tensor(names.stored(theirs))
        if not torch.equal(names.files.tensor(name).to(embedding.dtype), embedding):
            raise CheckpointError(
                f"{folder}: {name} is not the embedding, but config.json says that both are one; write "
                '"tie_word_embeddings": false there to use it, or take it out of the file'
            )


def _layer_numbers(model: ModelConfig) -> list[int]:
    head = [] if model.tie_weights else [model.num_layers + 4]
    return [0, *range(2, model.num_layers + 2), model.num_layers + 3, *head]


def _tensors_of(family: Family, model: ModelConfig) -> Iterator[tuple[str, Shape]]:
    for number in _layer_numbers(model):
        for rule in family.rules(model, number):
            yield from rule.theirs.items()


# --- out ----------------------------------------------------------------------------------------------------


def family_for(model: ModelConfig) -> Family:
    """The family that a model of ours can be written as.

    Raises:
        CheckpointError: there is none; the message says why, family by family.
    """
    lines = [
        f"no Hugging Face model is like this one ({', '.join(t for f in FAMILIES for t in f.model_types)})"
    ]
    for family in FAMILIES:
        obstacles = family.obstacles(model)
        if not obstacles:
            return family
        lines.append(f"  as {' or '.join(family.model_types)}: {'; '.join(obstacles)}")
    raise CheckpointError("\n".join(lines))


def write_folder(
    stored: StoredModel,
    folder: Path,
    *,
    tokenizer: Tokenizer | None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json, generation_config.json, safetensors and tokenizer files into an empty folder.

    Args:
        tokenizer: none where only the weights are wanted.
        dtype: number format of the weights; none keeps the stored one.
        shard_bytes: size that no file of weights exceeds, unless a single tensor does.

    Raises:
        CheckpointError: transformers has no such model; every obstacle is listed.
        VocabularyError: the tokenizer cannot be written.
    """
    family = family_for(stored.model)
    dtype = dtype or stored.read_layer(0)["word_embeddings.weight"].dtype
    _write_weights(stored, family, folder, dtype, shard_bytes)
    if tokenizer is not None:
        write_tokenizer(tokenizer, folder, max_length=stored.model.max_position_embeddings)
        write_whole(folder / "generation_config.json", _json(_generation(stored.model, tokenizer)))
    write_whole(folder / "config.json", _json(_settings(stored.model, family, tokenizer, dtype)))


def _settings(
    model: ModelConfig, family: Family, tokenizer: Tokenizer | None, dtype: torch.dtype
) -> dict[str, Any]:
    model_type = family.model_type(model)
    name = str(dtype).removeprefix("torch.")
    eod = None if tokenizer is None else tokenizer.eod
    first = None if tokenizer is None else first_token(tokenizer_json(tokenizer))
    return {
        "architectures": [family.architecture[model_type]],
        "model_type": model_type,
        **family.write(model),
        "vocab_size": model.padded_vocab_size,
        "tie_word_embeddings": model.tie_weights,
        "initializer_range": model.init_method_std,
        "bos_token_id": eod if first is None else first,
        "eos_token_id": eod,
        "use_cache": True,
        "torch_dtype": name,  # the key of transformers 4
        "dtype": name,
    }


def _generation(model: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What transformers' generate() is to do: never choose a row that means nothing."""
    content = tokenizer_json(tokenizer)
    vocabulary = content["model"]["vocab"]
    known = set(range(len(vocabulary))) if isinstance(vocabulary, list) else set(vocabulary.values())
    known |= {token["id"] for token in content["added_tokens"]}
    first = first_token(content)
    padding = [number for number in range(model.padded_vocab_size or 0) if number not in known]
    return {
        "bos_token_id": tokenizer.eod if first is None else first,
        "eos_token_id": tokenizer.eod,
        "pad_token_id": tokenizer.eod,
        **({"suppress_tokens": padding} if padding else {}),
    }


def _write_weights(
    stored: StoredModel, family: Family, folder: Path, dtype: torch.dtype, shard_bytes: int
) -> None:
    shards = list(_shards(stored, family, dtype, shard_bytes))
    index: dict[str, str] = {}
    total = 0
    for place, shard in enumerate(shards, start=1):
        name = (
            f"model-{place:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        )
        tensors = {}
        for number, rule in shard:
            whole = stored.read_layer(number)[rule.ours]
            for theirs, part in zip(rule.theirs, rule.split(whole), strict=True):
                # A copy of its own: safetensors takes no views.
                tensors[theirs] = torch.empty(part.shape, dtype=dtype).copy_(part)
                total += tensors[theirs].nbytes
        index |= dict.fromkeys(tensors, name)
        save_file(tensors, folder / name, metadata={"format": "pt"})
        _open_to_readers(folder / name)
    if len(shards) > 1:
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
        write_whole(folder / "model.safetensors.index.json", _json(content))


def _shards(
    stored: StoredModel, family: Family, dtype: torch.dtype, shard_bytes: int
) -> Iterator[list[tuple[int, Rule]]]:
    """The rules in order, as many together as fit in one file."""
    shard: list[tuple[int, Rule]] = []
    size = 0
    for number in stored.layer_numbers:
        for rule in family.rules(stored.model, number):
            more = sum(torch.Size(shape).numel() for shape in rule.theirs.values()) * dtype.itemsize
            if shard and size + more > shard_bytes:
                yield shard
                shard, size = [], 0
            shard.append((number, rule))
            size += more
    yield shard


def _open_to_readers(path: Path) -> None:
    """The mode that any other new file has: safetensors gives 0600 to its own."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
