"""Whether what was written computes what was read: the logits of both, on real code."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.plan import PlainModel, plain_model
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import models
from megatron.neox.tokenizers import Tokenizer

TOLERANCE = 1e-5
"""Largest difference of two logits that are taken for equal; relative to the largest where all are below 1."""

PROMPTS = (
    "def binarySearch(arr, left, right, x):\n    mid = (left +",
    "#include <stdio.h>\n\nint main(int argc, char **argv) {\n\tfor (int i = 0; i < argc; i++) {\n\t\tprintf(",
    'package main\n\nimport (\n\t"fmt"\n)\n\nfunc reverse(values []int) []int {\n',
    "public class Stack<T> {\n    private final List<T> items = new ArrayList<>();\n\n    public T pop() {\n",
    "SELECT name, COUNT(*) FROM users\nWHERE created > '2020-01-01'\nGROUP BY name;\n-- naïve café ☕\n",
)
"""Code in five languages, with tabs and text beyond ASCII."""


@dataclass(frozen=True)
class Comparison:
    """What the check found.

    Args:
        difference: largest of all logits' absolute differences; nan where some logit of either is none.
        largest: largest logit, to read the difference by.
        num_tokens: tokens that logits were compared for.
        same_choices: share of them with the same likeliest next token.
    """

    difference: float
    largest: float
    num_tokens: int
    same_choices: float

    @property
    def is_equal(self) -> bool:
        """Whether no logit differs by more than TOLERANCE."""
        return self.difference <= TOLERANCE * min(1.0, self.largest)

    def __str__(self) -> str:
        return (
            f"largest difference {self.difference:.1e} of logits up to {self.largest:.1f}, "
            f"{self.num_tokens} tokens, {100 * self.same_choices:.1f}% with the same likeliest next token"
        )


@dataclass(frozen=True)
class Check:
    """Logits of what was written against those of what was read.

    Args:
        in_fp32: the comparison in fp32.
        in_fp64: the same in fp64 where fp32 is not equal; there rounding no longer counts, so that what is left is a
            difference of the functions.
    """

    in_fp32: Comparison
    in_fp64: Comparison | None = None

    @property
    def is_equal(self) -> bool:
        """Whether both compute the same function."""
        return (self.in_fp64 or self.in_fp32).is_equal

    def __str__(self) -> str:
        if self.in_fp64 is None:
            return str(self.in_fp32)
        meaning = "rounding" if self.is_equal else "another function"
        return f"{self.in_fp32}; in fp64 it is {self.in_fp64.difference:.1e}, so it is {meaning}"


def rounded(stored: StoredModel, dtype: torch.dtype | None) -> StoredModel:
    """What a Hugging Face folder can hold of a model: weights of that type, and exact rotary tables."""

    def read_layer(number: int) -> dict[str, Tensor]:
        return {name: tensor.to(dtype or tensor.dtype) for name, tensor in stored.read_layer(number).items()}

    return replace(
        stored, model=stored.model.model_copy(update={"rotary_table": "fp32"}), read_layer=read_layer
    )


def check_export(stored: StoredModel, folder: Path, tokenizer: Tokenizer | None) -> Check:
    """Compare a stored model with the Hugging Face folder made of it; one of the two is in memory at a time."""
    prompts = prompts_for(stored, tokenizer)
    found = compare(logits_of(stored, prompts), transformers_logits(folder, prompts))
    if found.is_equal:
        return Check(found)
    wide = torch.float64
    ours, theirs = logits_of(stored, prompts, dtype=wide), transformers_logits(folder, prompts, dtype=wide)
    return Check(found, compare(ours, theirs))


def model_of(stored: StoredModel, *, dtype: torch.dtype = torch.float32) -> PlainModel:
    """The layers with the stored weights, on the CPU, for inference."""
    parallel = TensorParallel.single(dtype=dtype)
    plans = models.get(stored.model.model)(
        stored.model, padded_vocab_size=stored.model.padded_vocab_size, parallel=parallel
    )
    return plain_model(plans, weights=lambda number, _: stored.read_layer(number)).eval()


def prompts_for(stored: StoredModel, tokenizer: Tokenizer | None) -> list[Tensor]:
    """Ids [1, s] to compare logits on: code, or random ids where nothing tells what ids mean."""
    longest = stored.model.max_position_embeddings
    if tokenizer is not None:
        ids = [tokenizer.encode(text) for text in PROMPTS]
        return [torch.tensor([row[:longest]]) for row in ids]
    generator = torch.Generator().manual_seed(0)
    rows = stored.model.padded_vocab_size or 1
    return [torch.randint(0, rows, (1, min(longest, 64)), generator=generator) for _ in PROMPTS]


@torch.inference_mode()
def logits_of(
    stored: StoredModel, prompts: list[Tensor], *, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Our logits [1, s, V]."""
    model = model_of(stored, dtype=dtype)
    return [model(ids).transpose(0, 1).contiguous() for ids in prompts]


@torch.inference_mode()
def transformers_logits(
    folder: Path, prompts: list[Tensor], *, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """transformers' logits [1, s, V], of a folder on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's, about their own future
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
        if dtype == torch.float64:
            _widen_norms(model)
        return [model(ids).logits for ids in prompts]


def _widen_norms(model: nn.Module) -> None:
    """Norms in fp64: transformers' rmsnorm rounds what it is given to fp32, whatever the model's type."""
    narrow = [name for name, module in model.named_modules() if type(module).__name__.endswith("RMSNorm")]
    for name in narrow:
        norm: Any = model.get_submodule(name)
        wide = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, dtype=torch.float64)
        wide.weight = norm.weight
        model.set_submodule(name, wide)


def compare(ours: list[Tensor], theirs: list[Tensor]) -> Comparison:
    """The difference of two models' logits."""
    pairs = list(zip(ours, theirs, strict=True))
    same = [(a.argmax(-1) == b.argmax(-1)).float() for a, b in pairs]
    return Comparison(
        # Not max(...), which passes over a nan that comes later.
        difference=torch.stack([(a - b).abs().max() for a, b in pairs]).max().item(),
        largest=torch.stack([a.abs().max() for a, _ in pairs]).max().item(),
        num_tokens=sum(a.shape[1] for a, _ in pairs),
        same_choices=torch.cat([x.flatten() for x in same]).mean().item(),
    )
