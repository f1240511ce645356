"""What a path or a name stands for: a checkpoint, ours or GPT-NeoX's, a Hugging Face folder or name, a GGUF file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from megatron.neox.config import ModelConfig, TokenizerConfig
from megatron.neox.config.load import load_config
from megatron.neox.conversion import hub
from megatron.neox.engine.completeness import all_differences
from megatron.neox.engine.vocabulary import check_fingerprint, refuse_larger
from megatron.neox.errors import InputError, VocabularyError, did_you_mean
from megatron.neox.files import write_whole
from megatron.neox.layouts import gguf, huggingface, neox
from megatron.neox.layouts.architecture import check_architecture, describe_architecture
from megatron.neox.layouts.checkpoint import open_checkpoint
from megatron.neox.layouts.checkpoint_folder import find_checkpoint
from megatron.neox.layouts.huggingface.tokenizer import find_tokenizer
from megatron.neox.layouts.manifest import NAME, Manifest
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.plan import shard_layouts
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import models
from megatron.neox.tokenizers import Tokenizer, build_tokenizer

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

TOKENIZER_FOLDER = "tokenizer"
"""Where a converted checkpoint keeps its tokenizer's files."""


@dataclass(frozen=True)
class Opened:
    """What was found, ready to be written as something else.

    Args:
        name: what was asked for, as it was written.
        stored: the model; its tokenizer's paths lead to files that are there.
        tokenizer: built and checked; none where there is none.
        notes: what the user should know, a sentence each.
        plugins: files and modules that the model's parts come from.
    """

    name: str
    stored: StoredModel
    tokenizer: Tokenizer | None
    notes: list[str]
    plugins: list[str] = field(default_factory=list)


def open_input(
    name: str, *, configs: Sequence[Path] = (), iteration: int | None = None, workspace: Path
) -> Opened:
    """Find out what is meant, and open it.

    Args:
        configs: of a GPT-NeoX checkpoint, where they do not lie beside it.
        iteration: which step of a folder of checkpoints; by default the newest.
        workspace: an empty folder for files that are needed until the work is done.

    Raises:
        InputError: there is no such file, folder or name, or it is none of the kinds.
        CheckpointError: it is damaged, or not supported.
        ConfigError: the configs are wrong.
        VocabularyError: the tokenizer is absent, damaged, or not the one trained with.
    """
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").is_file() and _holds_steps(path):
        return _open_checkpoint(name, path, configs, iteration)
    if configs or iteration is not None:
        given = "CONF" if configs else "--iteration"
        raise InputError(
            f"{given} belongs to a folder of checkpoints (global_step*), and {name} is none; leave it out"
        )
    notes: list[str] = []
    if path.is_file():
        stored, notes = _open_gguf(path, workspace)
    elif path.is_dir():
        stored = _open_folder(path)
        if _holds_steps(path):
            notes.append(
                f"{path} holds checkpoints (global_step*) beside its config.json, and these are not read; to convert "
                "one, give its own folder"
            )
    elif _HUB_NAME.fullmatch(name):
        stored = huggingface.open_folder(hub.download(name))
    else:
        raise InputError(
            f"{name} is neither a file nor a folder, nor a name like owner/model on the Hugging Face hub"
            f"{did_you_mean(name, hub.POLYCODER)}"
        )
    opened = _checked(name, stored)
    return replace(opened, notes=[*notes, *opened.notes])


def _holds_steps(path: Path) -> bool:
    return neox.step_of(path.name) is not None or bool(neox.steps_in(path)) or (path / neox.LATEST).exists()


def _open_folder(path: Path) -> StoredModel:
    if not (path / "config.json").is_file():
        deeper = next(iter(neox.checkpoints_below(path)), None)
        raise InputError(
            f"{path} is neither a folder of checkpoints (it holds no global_step*) nor a Hugging Face folder "
            "(it holds no config.json)"
            + (f"; give the folder below it that is, such as {deeper}" if deeper else "")
        )
    if (path / "model.bin").is_file() and (path / "vocabulary.json").is_file():
        raise InputError(
            f"{path} is a CTranslate2 folder, from which no model is read back; give what it was made of"
        )
    return huggingface.open_folder(path)


def _open_gguf(path: Path, workspace: Path) -> tuple[StoredModel, list[str]]:
    """The model, and why it has no tokenizer where its file has one that is not read."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise InputError(
            f"{path} is no GGUF file; give the folder that a checkpoint or a Hugging Face model lies in"
        )
    stored = gguf.open_file(path)
    try:
        settings = gguf.tokenizer_settings(path)
    except VocabularyError as error:
        return stored, [str(error)]
    write_whole(workspace / "tokenizer.json", json.dumps(settings, ensure_ascii=False))
    return _with_tokenizer(stored, find_tokenizer(workspace)), []


def _open_checkpoint(name: str, path: Path, configs: Sequence[Path], iteration: int | None) -> Opened:
    step = find_checkpoint(path, iteration=iteration, strict=True, weights_only=True)
    assert step is not None
    files = list(configs) or _configs_of(step, path)
    loaded = load_config(files)
    model, section = loaded.config.model, _found(loaded.config.tokenizer, step)
    stored = open_checkpoint(step, model, section, shard_layouts(model))
    _refuse_another(step, stored.model)
    opened = _checked(name, stored)
    assert opened.tokenizer is not None
    check_fingerprint(step, opened.tokenizer.fingerprint(), allow_mismatch=False)
    plugins = list(loaded.config.training.plugins)
    # A config of ours was told about when the run began.
    notes = [] if (step / NAME).exists() else loaded.notes
    return replace(opened, notes=[*notes, *opened.notes], plugins=plugins)


def _refuse_another(step: Path, model: ModelConfig) -> None:
    """Refuse configs that are not the checkpoint's, before weights are written as what they are not.

    Raises:
        CheckpointError: lists what differs in the architecture, or every tensor that is not as it must be.
    """
    rows = model.padded_vocab_size
    assert rows is not None, "a stored model knows its vocabulary"
    if (step / NAME).exists():
        check_architecture(Manifest.read(step).architecture, describe_architecture(model, rows), step)
    plans = models.get(model.model)(model, padded_vocab_size=rows, parallel=TensorParallel.single())
    if differences := all_differences(step, plans, size=1):
        raise differences


def _configs_of(step: Path, path: Path) -> list[Path]:
    """The configs that lie beside a checkpoint."""
    if (step / NAME).exists():
        return [step / "configs" / "config.yml"]
    for folder in dict.fromkeys((step / "configs", path / "configs", step.parent / "configs")):
        if found := sorted(folder.glob("*.yml")):
            return found
    raise InputError(
        f"{step} has no configs beside it ({step}/configs or {step.parent}/configs); "
        "name the ones that it was trained with: CONF ..."
    )


def _found(section: TokenizerConfig, step: Path) -> TokenizerConfig:
    """The tokenizer with those of its files that have moved along with the checkpoint."""
    moved = {}
    for key in ("vocab_file", "merge_file"):
        given = getattr(section, key)
        beside = step.parent / TOKENIZER_FOLDER / Path(given or "").name
        if given and not Path(given).is_file() and beside.is_file():
            moved[key] = str(beside)
    return section.model_copy(update=moved)


def _with_tokenizer(stored: StoredModel, section: TokenizerConfig | None) -> StoredModel:
    return StoredModel(stored.kind, stored.path, stored.model, section, stored.read_layer, stored.step)


def _checked(name: str, stored: StoredModel) -> Opened:
    tokenizer = None if stored.tokenizer is None else build_tokenizer(stored.tokenizer)
    if tokenizer is not None:
        refuse_larger(tokenizer, stored.model.padded_vocab_size or 0, stored.path)
    return Opened(name, stored, tokenizer, hub.notes_about(stored.model))
