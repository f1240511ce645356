"""Model files of other software: Hugging Face folders, CTranslate2's, GGUF and single files of weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.gguf.file import GGUFFile
from megatron.neox.layouts.huggingface.weights import WeightFiles
from megatron.neox.layouts.inspection.report import (
    Inspection,
    TensorRecord,
    add_tensors,
    compare_archives,
    no_checksums,
)
from megatron.neox.layouts.torch_files import read_file

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "tokenizer_config.json")


def inspect_file(path: Path, verify: bool) -> Inspection:
    """A GGUF file, a .safetensors file, or one of torch.save."""
    found = Inspection(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF" or path.suffix == ".gguf":
        _gguf(found, verify)
    elif path.suffix == ".safetensors":
        found.layout = "safetensors file"
        add_tensors(found, path.name, lambda: _safetensors(path), verify)
        found.integrity = no_checksums(verify, "its header fits its size")
    else:
        found.layout = "file of torch.save"
        add_tensors(found, path.name, lambda: _tensors_in(read_file(path, random_state=True)), verify)
        found.integrity = compare_archives(found, [path], verify)
    return found


def _settings(found: Inspection) -> None:
    """Take config.json over, and try to read the other settings."""
    if not (found.path / "config.json").is_file():
        found.damage.append("config.json is missing")
    for file in sorted(found.path.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            found.damage.append(f"{file.name} cannot be read ({error})")
            continue
        if file.name == "config.json" and isinstance(content, dict):
            found.config = content


def inspect_ctranslate2(path: Path) -> Inspection:
    """A CTranslate2 folder, as far as its settings tell."""
    found = Inspection(
        path, layout="CTranslate2 folder", integrity="not compared: model.bin is not read here"
    )
    found.facts["model.bin"] = f"{(path / 'model.bin').stat().st_size:,} bytes"
    _settings(found)
    found.tokenizer = _tokenizer_files(path, (*_TOKENIZER_FILES, "vocabulary.json", "vocabulary.txt"))
    return found


def _tokenizer_files(path: Path, names: tuple[str, ...]) -> dict[str, str]:
    return {name: f"{(path / name).stat().st_size} bytes" for name in names if (path / name).is_file()}


def inspect_hugging_face(path: Path, verify: bool) -> Inspection:
    """A folder of save_pretrained."""
    found = Inspection(path)
    _settings(found)
    found.layout = f"Hugging Face folder of a {found.config.get('model_type', 'model of no named type')}"
    try:
        WeightFiles(path)
    except CheckpointError as error:
        found.damage.append(str(error))
    for file in sorted(path.glob("*.safetensors")):
        add_tensors(found, file.name, lambda file=file: _safetensors(file), verify)
    pickled = sorted(path.glob("pytorch_model*.bin"))
    for file in pickled:
        add_tensors(found, file.name, lambda file=file: _tensors_in(read_file(file)), verify)
    found.tokenizer = _tokenizer_files(path, _TOKENIZER_FILES)
    found.integrity = (
        compare_archives(found, pickled, verify)
        if pickled
        else no_checksums(verify, "headers fit the files' sizes")
    )
    return found


def _gguf(found: Inspection, verify: bool) -> None:
    found.layout, found.integrity = "GGUF file", no_checksums(verify, "its header fits its size")
    try:
        file = GGUFFile.open(found.path)
    except CheckpointError as error:
        found.damage.append(str(error))
        return
    for key, stored in file.reader.fields.items():
        try:
            value = stored.contents()
        except (ValueError, LookupError) as error:
            found.damage.append(f"the key {key} cannot be read ({error})")
            continue
        if key.startswith("tokenizer."):
            found.tokenizer[key] = f"{len(value)} entries" if isinstance(value, list) else str(value)[:60]
        elif not key.startswith("GGUF."):
            found.config[key] = value if not isinstance(value, str) else value[:120]
    for name, stored in file.tensors.items():
        record = TensorRecord(
            found.path.name, name, stored.tensor_type.name, file.shape(name), int(stored.n_bytes)
        )
        found.tensors.append(record)
        if verify:
            tensor = file.tensor(name)
            if tensor is not None and not torch.isfinite(tensor).all():
                found.damage.append(f"{name} holds values that are not finite")


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); take a fresh copy") from error


def _tensors_in(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors in nested dictionaries, by dotted names."""
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict):
            yield from _tensors_in(value, f"{prefix}{name}.")
