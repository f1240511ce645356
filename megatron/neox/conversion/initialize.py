"""A config's untrained weights and its tokenizer as a checkpoint, to start a run or a hub repository from."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from megatron.neox.config import Config, TokenizerConfig
from megatron.neox.config.vocabulary import padded_vocab_size
from megatron.neox.conversion.convert import Conversion, convert
from megatron.neox.conversion.folders import appearing_folder, refuse_existing
from megatron.neox.conversion.inputs import TOKENIZER_FOLDER
from megatron.neox.engine.initial import initial_model
from megatron.neox.errors import UserError, VocabularyError
from megatron.neox.layouts.checkpoint import write_checkpoint
from megatron.neox.plugins import load_plugins
from megatron.neox.tokenizers import build_tokenizer


def initialize(
    config: Config,
    output: Path,
    *,
    target: Literal["neox", "hf"] = "neox",
    push: str | None = None,
    say: Callable[[str], None],
) -> None:
    """Write the untrained model of a config.

    Args:
        output: folder of checkpoints (global_step0 and a tokenizer folder), or Hugging Face folder; must not exist.
        push: repository on the Hugging Face hub to upload to (hf).

    Raises:
        OutputError: the output exists.
        VocabularyError: the tokenizer's files are absent or damaged, or larger than padded_vocab_size.
        UserError: the config names an unknown part, or no Hugging Face model is like this one.
    """
    if push and target != "hf":
        raise UserError("--push goes with --to hf")
    refuse_existing(output)
    load_plugins(config.training.plugins)
    if target == "neox":
        _write(config, output, say)
        return
    output = Path(os.path.abspath(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as workspace:
        checkpoints = Path(workspace) / f"{output.name}-untrained"
        _write(config, checkpoints, lambda _: None)
        convert(Conversion(source=str(checkpoints), output=output, target="hf", push=push), say)


def _write(config: Config, output: Path, say: Callable[[str], None]) -> None:
    tokenizer = build_tokenizer(config.tokenizer)
    rows = config.model.padded_vocab_size or padded_vocab_size(
        tokenizer.vocab_size,
        divisible_by=config.model.make_vocab_size_divisible_by,
        tensor_size=config.parallelism.model_parallel_size,
    )
    if tokenizer.vocab_size > rows:
        raise VocabularyError(
            f"the tokenizer has {tokenizer.vocab_size} ids, but padded_vocab_size is {rows}; leave that key out"
        )
    final = Path(os.path.abspath(output)) / TOKENIZER_FOLDER
    with appearing_folder(output) as partial:
        copied = _copied(config.tokenizer, partial / TOKENIZER_FOLDER)
        stored = replace(initial_model(config, padded_vocab_size=rows), tokenizer=copied)
        named = {key: str(final / Path(path).name) for key, path in _files(copied).items()}
        write_checkpoint(
            stored, partial, config_keys={**config.given(), **named}, plugins=config.training.plugins
        )
    say(f"wrote {output}/global_step0: {stored.kind}, {config.precision.dtype}")
    say(f"train from it: --set load={output} --set finetune=true")


def _files(section: TokenizerConfig) -> dict[str, str]:
    """The tokenizer's files, by their keys."""
    paths = {"vocab_file": section.vocab_file, "merge_file": section.merge_file}
    return {key: path for key, path in paths.items() if path is not None}


def _copied(section: TokenizerConfig, folder: Path) -> TokenizerConfig:
    """The tokenizer with copies of its files in the folder, which is made."""
    copies = {}
    for key, path in _files(section).items():
        folder.mkdir(exist_ok=True)
        copies[key] = str(shutil.copyfile(path, folder / Path(path).name))
    return section.model_copy(update=copies)
