"""The whole job: open what is given, write what is asked for, and prove that both compute the same."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from megatron.neox.config import Config, TokenizerConfig
from megatron.neox.conversion import hub
from megatron.neox.conversion.card import write_card
from megatron.neox.conversion.check import (
    TOLERANCE,
    Check,
    check_export,
    compare,
    logits_of,
    prompts_for,
    rounded,
)
from megatron.neox.conversion.folders import appearing_folder, refuse_existing, saying_where
from megatron.neox.conversion.inputs import TOKENIZER_FOLDER, Opened, open_input
from megatron.neox.conversion.quantization_check import check_quantization
from megatron.neox.conversion.tokenizer_files import copy_tokenizer, tokenizer_in
from megatron.neox.errors import CheckpointError, UserError
from megatron.neox.layouts import ctranslate2, gguf, huggingface
from megatron.neox.layouts.checkpoint import write_checkpoint
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.tokenizers import build_tokenizer

Target = Literal["hf", "neox", "gguf", "ctranslate2"]
TARGETS: tuple[Target, ...] = ("hf", "neox", "gguf", "ctranslate2")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Conversion:
    """What is asked for.

    Args:
        source: a path, or a name on the Hugging Face hub.
        output: what to write; it must not exist.
        target: the format.
        configs: of a GPT-NeoX checkpoint, where they do not lie beside it.
        iteration: which step of a folder of checkpoints.
        dtype: number format of the weights (`huggingface.DTYPES`); none keeps the stored one.
        quantization: type of the weights in GGUF or CTranslate2.
        gelu: which function the output calls gelu; none keeps the input's.
        check: compare logits with transformers' (hf), perplexities before and after quantization (gguf, ctranslate2).
        push: repository on the hub to upload to (hf).
        origin: what the model card says it was made of; by default what the input is found to be.
        command: what the model card says it was written by; by default this command with these options.
    """

    source: str
    output: Path
    target: Target
    configs: Sequence[Path] = ()
    iteration: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    gelu: Literal["erf", "tanh"] | None = None
    check: bool = True
    push: str | None = None
    origin: str | None = None
    command: str | None = None


def convert(wanted: Conversion, say: Say) -> None:
    """Do it; `say` is called with each line for the user.

    Raises:
        UserError: options do not go together, or any of the classes below it: what is wrong with the input or
            in the way of the output. Nothing is left under the output's name.
    """
    _refuse_options(wanted)
    refuse_existing(wanted.output, is_file=wanted.target == "gguf")
    with tempfile.TemporaryDirectory() as workspace:
        opened = open_input(
            wanted.source, configs=wanted.configs, iteration=wanted.iteration, workspace=Path(workspace)
        )
        say(f"{wanted.source}: {opened.stored.kind}")
        for note in opened.notes:
            say(f"note: {note}")
        opened = replace(opened, stored=_with_gelu(opened.stored, wanted.gelu))
        if wanted.target == "hf":
            _to_huggingface(opened, wanted, say)
        elif wanted.target == "neox":
            _to_neox(opened, wanted, say)
        else:
            _to_engine(opened, wanted, say)
    if wanted.push:
        say(f"pushed to {hub.push(wanted.output, wanted.push)}")


def _refuse_options(wanted: Conversion) -> None:
    problems = []
    if wanted.push and wanted.target != "hf":
        problems.append("--push goes with --to hf")
    elif wanted.push and not hub.has_token():  # better now than after the work
        problems.append("--push needs a token: set HF_TOKEN, or log in: hf auth login")
    if wanted.quantization and wanted.target not in ("gguf", "ctranslate2"):
        problems.append("--quantization goes with --to gguf and --to ctranslate2; --dtype is for the others")
    if wanted.dtype and wanted.target not in ("hf", "neox"):
        problems.append("--dtype goes with --to hf and --to neox; --quantization is for the others")
    if problems:
        raise UserError("\n".join(problems))


def _with_gelu(stored: StoredModel, gelu: str | None) -> StoredModel:
    model = stored.model
    if gelu is None:
        return stored
    if model.activation.name not in ("gelu", "gelu_tanh"):
        raise UserError(
            f"--gelu {gelu}: the activation is {model.activation.name}, which has no two forms; leave it out"
        )
    keys = {
        "activation": model.activation.model_copy(update={"name": "gelu"}),
        "bias_gelu_fusion": gelu == "tanh",
    }
    return replace(stored, model=model.model_copy(update=keys))


def _to_huggingface(opened: Opened, wanted: Conversion, say: Say) -> None:
    stored, tokenizer = opened.stored, opened.tokenizer
    huggingface.family_for(stored.model)
    if tokenizer is None:
        say("note: there is no tokenizer, so none is written")
    dtype = None if wanted.dtype is None else huggingface.DTYPES[wanted.dtype]
    with appearing_folder(wanted.output) as partial:
        huggingface.write_folder(stored, partial, tokenizer=tokenizer, dtype=dtype)
        check, notes = None, []
        if wanted.check:
            check, notes = _check(opened, partial, dtype)
            say(f"check against transformers: {check}")
            if not check.is_equal:
                raise CheckpointError(
                    f"{wanted.output} was not written: transformers computes other logits, which no rounding "
                    f"explains (more than {TOLERANCE:.0e} apart); --no-check writes it nevertheless"
                )
            for note in notes:
                say(f"note: {note}")
        write_card(
            partial,
            opened.stored.model,
            opened.tokenizer,
            check,
            name=wanted.output.name,
            origin=wanted.origin or stored.kind,
            step=stored.step,
            command=wanted.command or _command(wanted),
            notes=notes,
        )
    say(f"wrote {wanted.output}")


def _command(wanted: Conversion) -> str:
    """What a reader may type to do the same; of paths the last part alone."""
    source = wanted.source if not Path(wanted.source).exists() else Path(os.path.abspath(wanted.source)).name
    words = ["tools/convert_checkpoint.py", *(path.name for path in wanted.configs)]
    words += ["--input", source, "--output", wanted.output.name, "--to", wanted.target]
    for name in ("iteration", "dtype", "gelu"):
        if (value := getattr(wanted, name)) is not None:
            words += [f"--{name}", str(value)]
    return shlex.join([*words, *([] if wanted.check else ["--no-check"])])


def _check(opened: Opened, folder: Path, dtype: torch.dtype | None) -> tuple[Check, list[str]]:
    """Whether the folder computes what it is to compute, and what that changes, where it is not the original.

    What rounding changes is measured here, on both sides of it, so that it never hides a fault of the writing.
    """
    stored = opened.stored
    written = rounded(stored, dtype)
    check = check_export(written, folder, opened.tokenizer)
    reasons = _reasons(stored, dtype)
    if not reasons:
        return check, []
    prompts = prompts_for(stored, opened.tokenizer)
    change = compare(logits_of(stored, prompts), logits_of(written, prompts))
    return check, [*reasons, f"against the original, in this toolkit: {change}"]


def _reasons(stored: StoredModel, dtype: torch.dtype | None) -> list[str]:
    """Why the folder's logits are not the original's although everything is right."""
    reasons = []
    stored_dtype = stored.read_layer(0)["word_embeddings.weight"].dtype
    if dtype is not None and torch.promote_types(dtype, stored_dtype) != dtype:
        reasons.append(f"the weights were rounded from {stored_dtype} to {dtype}".replace("torch.", ""))
    if stored.model.rotary_table == "fp16_legacy":
        reasons.append(
            "rotary_table is fp16_legacy, and transformers knows fp32 angles alone: with its positions the model "
            "computes slightly other logits, the more so the longer the text"
        )
    return reasons


def _to_neox(opened: Opened, wanted: Conversion, say: Say) -> None:
    stored = opened.stored
    dtype = None if wanted.dtype is None else huggingface.DTYPES[wanted.dtype]
    final = Path(os.path.abspath(wanted.output))
    with appearing_folder(wanted.output) as partial:
        here, there = None, TokenizerConfig()
        if stored.tokenizer is not None:
            here = copy_tokenizer(stored.tokenizer, partial / TOKENIZER_FOLDER)
            there = tokenizer_in(here, final / TOKENIZER_FOLDER)
        keys = Config(model=stored.model, tokenizer=there).given()
        if opened.plugins:
            keys["plugins"] = opened.plugins
        write_checkpoint(
            replace(stored, tokenizer=here),
            partial,
            config_keys=keys,
            fingerprint=build_tokenizer(here).fingerprint() if here else {},
            plugins=opened.plugins,
            dtype=dtype,
        )
    if stored.tokenizer is None:
        say("note: there is no tokenizer; name one in your config (tokenizer_type, vocab_file)")
    step = f"{wanted.output}/global_step{stored.step}"
    say(f"wrote {step}; its config is {step}/configs/config.yml")


def _to_engine(opened: Opened, wanted: Conversion, say: Say) -> None:
    if opened.tokenizer is None:
        raise UserError(f"--to {wanted.target} needs a tokenizer, and {wanted.source} has none")
    write = gguf.write_file if wanted.target == "gguf" else ctranslate2.write_folder
    with saying_where(wanted.output):
        wanted.output.parent.mkdir(parents=True, exist_ok=True)
        write(opened.stored, wanted.output, tokenizer=opened.tokenizer, quantization=wanted.quantization)
    say(f"wrote {wanted.output}")
    if wanted.quantization and wanted.check:
        after = gguf.open_file(wanted.output) if wanted.target == "gguf" else wanted.output
        say(str(check_quantization(opened.stored, after, tokenizer=opened.tokenizer)))
