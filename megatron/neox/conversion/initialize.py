"""A config's untrained weights and its tokenizer as a checkpoint, to start a run or a hub repository from."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from megatron.neox.config import Config
from megatron.neox.config.vocabulary import padded_vocab_size
from megatron.neox.conversion.convert import Conversion, convert
from megatron.neox.conversion.folders import appearing_folder, refuse_existing, saying_where
from megatron.neox.conversion.inputs import TOKENIZER_FOLDER
from megatron.neox.conversion.tokenizer_files import copy_tokenizer, tokenizer_in
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
        OutputError: the output exists, or cannot be written.
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
    with saying_where(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.")
    with folder as workspace:
        checkpoints = Path(workspace) / f"{output.name}-untrained"
        _write(config, checkpoints, lambda _: None)
        wanted = Conversion(
            source=str(checkpoints),
            output=output,
            target="hf",
            push=push,
            origin=f"nothing: untrained weights, seed {config.training.seed}",
            command=shlex.join(["tools/initialize.py", "CONF", "--output", output.name, "--to", "hf"]),
        )
        # What was found in the workspace is nothing that was asked for.
        convert(wanted, lambda line: None if line.startswith(workspace) else say(line))


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
        copied = copy_tokenizer(config.tokenizer, partial / TOKENIZER_FOLDER)
        stored = replace(initial_model(config, padded_vocab_size=rows), tokenizer=copied)
        named = config.model_copy(update={"tokenizer": tokenizer_in(copied, final)})
        write_checkpoint(stored, partial, config_keys=named.given(), plugins=config.training.plugins)
    say(f"wrote {output}/global_step0: {stored.kind}, {config.precision.dtype}")
    say(f"train from it: --set load={output} --set finetune=true")
