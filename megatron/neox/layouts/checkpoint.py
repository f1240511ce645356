"""A checkpoint in GPT-NeoX's layout, ours or GPT-NeoX's own, as a stored model, and back."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from megatron.neox.config import Config, ModelConfig, TokenizerConfig
from megatron.neox.errors import OutputError
from megatron.neox.layouts import neox
from megatron.neox.layouts.architecture import describe_architecture
from megatron.neox.layouts.checkpoint_folder import publish, temporary_folder
from megatron.neox.layouts.manifest import NAME, FileRecord, Manifest
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.layouts.upstream import UpstreamCheckpoint, check_upstream, embedding_rows
from megatron.neox.nn.parallel import ShardLayout
from megatron.neox.tokenizers import build_tokenizer

Layouts = Mapping[int, Mapping[str, ShardLayout]]
"""How each tensor of a model is split over the tensor ranks, by layer number and name (`models.plan.shard_layouts`)."""

_PRECISION = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def open_checkpoint(
    step_folder: Path, model: ModelConfig, tokenizer: TokenizerConfig | None, layouts: Layouts
) -> StoredModel:
    """The model in a `global_stepN` folder that this software or GPT-NeoX wrote, by any number of tensor ranks.

    Args:
        step_folder: what `find_checkpoint` returned.
        model: the architecture; padded_vocab_size is taken from the checkpoint.
        tokenizer: handed on with the model.
        layouts: how the model's tensors are split.

    Raises:
        CheckpointError: there are no weights, files are missing, or they are of another model.
    """
    step = neox.step_of(step_folder.name) or 0
    if (step_folder / NAME).exists():
        manifest = Manifest.read(step_folder)
        rows, num_writers = int(manifest.architecture["padded_vocab_size"]), manifest.tensor_size
        kind = "checkpoint of this toolkit"

        def read_layer(number: int) -> dict[str, Tensor]:
            files = {rank: neox.weights_file(number, rank) for rank in range(num_writers)}
            return neox.read_shard(step_folder, files, layouts[number], rank=0, size=1)
    else:
        check_upstream(step_folder, model)
        checkpoint = UpstreamCheckpoint(step_folder, sums_biases=model.gpt_j_residual)
        rows, num_writers = embedding_rows(step_folder), checkpoint.num_writers
        kind = f"GPT-NeoX checkpoint, {'a file for each rank' if checkpoint.is_sequential else 'layer files'}"

        def read_layer(number: int) -> dict[str, Tensor]:
            return checkpoint.read_shard(number, layouts[number])

    return StoredModel(
        kind=f"{kind}, {num_writers} tensor rank{'s' if num_writers > 1 else ''}, step {step}",
        path=step_folder,
        model=model.model_copy(update={"padded_vocab_size": rows}),
        tokenizer=tokenizer,
        read_layer=read_layer,
        step=step,
    )


def write_checkpoint(
    stored: StoredModel,
    folder: Path,
    *,
    config_keys: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    plugins: list[str] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write `folder/global_stepN`, N the model's step, by one tensor rank, and let `latest` name it.

    The folder gets its name when it is whole. At no time is more than one layer in memory.

    Args:
        stored: the model; its padded_vocab_size is known.
        folder: the folder of checkpoints, made where it is absent.
        config_keys: YAML keys for configs/config.yml; by default those of the model and tokenizer that were given.
        fingerprint: of the tokenizer, which a run's own must equal; by default that of the model's tokenizer.
        plugins: what the model's parts need to be found.
        dtype: number format of the weights; by default as they are stored.

    Returns:
        The step's folder.

    Raises:
        OutputError: the folder holds that step already.
        CheckpointError: the model's files are damaged.
        VocabularyError: the tokenizer's files are.
    """
    final = folder / neox.step_folder(stored.step)
    if final.exists():
        raise OutputError(f"{final} exists; remove it, or give another folder")
    temporary = temporary_folder(final)
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "configs").mkdir(parents=True)
    try:
        _write_layers(stored, temporary, dtype)
        keys = config_keys if config_keys is not None else _config_keys(stored)
        text = yaml.safe_dump(dict(keys), sort_keys=True, allow_unicode=True)
        (temporary / "configs" / "config.yml").write_text(text, encoding="utf-8")
        if fingerprint is None:
            fingerprint = (
                build_tokenizer(stored.tokenizer).fingerprint() if stored.tokenizer is not None else {}
            )
        _manifest(stored, temporary, dict(fingerprint), plugins or []).write(temporary)
        publish(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def _write_layers(stored: StoredModel, folder: Path, dtype: torch.dtype | None) -> None:
    for number in stored.layer_numbers:
        # Copied, so that a view of a larger tensor, or of a mapped file, is written alone.
        tensors = {
            name: torch.empty(tensor.shape, dtype=dtype or tensor.dtype).copy_(tensor)
            for name, tensor in stored.read_layer(number).items()
        }
        with (folder / neox.weights_file(number, 0)).open("wb") as file:
            torch.save(tensors, file)
            file.flush()
            os.fsync(file.fileno())


def _config_keys(stored: StoredModel) -> dict[str, Any]:
    return Config(model=stored.model, tokenizer=stored.tokenizer or TokenizerConfig()).given()


def _manifest(stored: StoredModel, folder: Path, fingerprint: dict[str, Any], plugins: list[str]) -> Manifest:
    rows = stored.model.padded_vocab_size
    assert rows is not None, "a stored model knows its vocabulary"
    paths = [*sorted(folder.glob("*.pt")), folder / "configs" / "config.yml"]
    files = {str(path.relative_to(folder)): _record(path) for path in paths}
    first = neox.read_tensors(folder / neox.weights_file(stored.layer_numbers[1], 0))
    return Manifest(
        step=stored.step,
        architecture=describe_architecture(stored.model, rows),
        precision=_PRECISION[next(iter(first.values())).dtype],
        tensor_size=1,
        optimizer=None,
        loss_scaler={},
        tokenizer=fingerprint,
        plugins=plugins,
        layout={"pipe_parallel_size": 1, "model_parallel_size": 1, "data_parallel_size": 1, "zero_stage": 0},
        state={},
        files=files,
    )


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
