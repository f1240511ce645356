"""What another type of weights costs: a model's perplexity on a sample of code, before and after."""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megatron.neox.errors import InputError
from megatron.neox.layouts.inference_engines import import_package
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.plan import LayerPlan, PlainModel, plain_model
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import models
from megatron.neox.tokenizers import Tokenizer

_NUM_TOKENS = 1024
_WINDOW = 1024


@dataclass(frozen=True)
class QuantizationCheck:
    """Perplexities of the same tokens."""

    sample: str
    num_tokens: int
    before: float
    after: float

    def __str__(self) -> str:
        change = 100 * (self.after / self.before - 1)
        return (
            f"perplexity of {self.num_tokens} tokens of {self.sample}: "
            f"{self.before:.4f} before, {self.after:.4f} after ({change:+.2f}%)"
        )


def check_quantization(
    before: StoredModel, after: StoredModel | Path, *, tokenizer: Tokenizer, sample: Path | None = None
) -> QuantizationCheck:
    """Perplexity of a model and of what was written from it, in fp32, with one layer of ours in memory at a time.

    Args:
        after: the written GGUF, opened again, which we compute with its dequantised weights; or the folder of
            a CTranslate2 model, which that engine computes.
        sample: text to score; without one the standard library's argparse.py.

    Raises:
        InputError: the sample cannot be read, or is shorter than two tokens.
    """
    name, text = _sample(sample)
    ids = tokenizer.encode(text)[:_NUM_TOKENS]
    windows = _windows(ids, min(before.model.max_position_embeddings, _WINDOW))
    if not windows:
        raise InputError(f"{name} is too short a sample; give a text of some hundred tokens")
    scored = sum(len(window) - 1 for window in windows)
    losses = [_loss(before, windows, num_ids=tokenizer.vocab_size)]
    if isinstance(after, StoredModel):
        losses.append(_loss(after, windows, num_ids=tokenizer.vocab_size))
    else:
        losses.append(_loss_by_ctranslate2(after, windows))
    return QuantizationCheck(name, scored, *(math.exp(loss / scored) for loss in losses))


def _sample(path: Path | None) -> tuple[str, str]:
    if path is None:
        return "argparse.py", inspect.getsource(argparse)
    try:
        return path.name, path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read the sample {path}: {error.strerror}") from error


def _windows(ids: Sequence[int], length: int) -> list[list[int]]:
    """Disjoint runs of at most `length` tokens, each of at least two."""
    runs = [list(ids[start : start + length]) for start in range(0, len(ids), length)]
    return [run for run in runs if len(run) > 1]


@torch.inference_mode()
def _loss(stored: StoredModel, windows: Sequence[Sequence[int]], *, num_ids: int) -> float:
    """Sum of -log p of every token but each window's first, in nats."""

    plans = models.get(stored.model.model)(
        stored.model, padded_vocab_size=stored.model.padded_vocab_size, parallel=TensorParallel.single()
    )
    states = [torch.tensor([window[:-1]]) for window in windows]
    for plan in plans[:-1]:
        layer = _layer(stored, plan)
        states = [layer(state) for state in states]
    head = _layer(stored, plans[-1])
    loss = 0.0
    for window, state in zip(windows, states, strict=True):
        logits = head(state)[:, 0, :num_ids]  # [s, ids]
        loss += F.cross_entropy(logits, torch.tensor(window[1:]), reduction="sum").item()
    return loss


def _layer(stored: StoredModel, plan: LayerPlan) -> PlainModel:
    """One layer with its stored weights; a tied head's are those of the embedding."""

    def weights(number: int, layer: nn.Module) -> Mapping[str, Tensor]:
        del layer
        return stored.read_layer(number if number in stored.layer_numbers else 0)

    return plain_model([plan], weights=weights).eval()


def _loss_by_ctranslate2(folder: Path, windows: Sequence[Sequence[int]]) -> float:
    package = import_package("ctranslate2")
    generator = package.Generator(str(folder), device="cpu")
    loss = 0.0
    for window in windows:
        answer = generator.forward_batch([list(window[:-1])]).to(package.DataType.float32)
        logits = torch.from_numpy(numpy.array(answer))[0]  # [s, V], padding rows out of reach by their bias
        loss += F.cross_entropy(logits, torch.tensor(window[1:]), reduction="sum").item()
    return loss
