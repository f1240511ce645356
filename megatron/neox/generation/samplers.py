"""From logits to the next token: plugins of kind `sampler`.

A part is a function that takes options and returns a `Sampler`. Randomness comes in as one uniform number a
row, so that a sampler is a pure function and a sample can be drawn again alone, in another batch, or on
another device.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Callable

import torch
from torch import Tensor

from megatron.neox.config import GenerationConfig
from megatron.neox.plugins import samplers

log = logging.getLogger(__name__)

Sampler = Callable[[Tensor, Tensor], Tensor]
"""Logits [b, V] and numbers [b] uniform in [0, 1), fp64, to ids [b]."""

# A nucleus nearly always lies among this many tokens; only where it does not are all of them sorted.
_NUCLEUS_GUESS = 256


def build_sampler(settings: GenerationConfig) -> Sampler:
    """The sampler that the config names, or else greedy if temperature, top_k and top_p are all 0.

    Raises:
        UnknownPartError: no sampler has that name.
    """
    if settings.sampler is not None:
        choice = settings.sampler
        return samplers.build(choice.name, options=choice.options, **dict(settings))
    random = settings.temperature or settings.top_k or settings.top_p
    return samplers.build("temperature" if random else "greedy", **dict(settings))


def uniform_number(seed: int, prompt: int, sample: int, position: int) -> float:
    """A number uniform in [0, 1), a function of its arguments alone: 52 bits of BLAKE2b."""
    counter = struct.pack("<4q", seed, prompt, sample, position)
    word = int.from_bytes(hashlib.blake2b(counter, digest_size=8).digest(), "little")
    return (word >> 12) / 2**52


@samplers.register("greedy")
def greedy() -> Sampler:
    """The likeliest token always."""
    return lambda logits, uniform: logits.argmax(-1)


@samplers.register("temperature")
def temperature_sampling(*, temperature: float = 1.0, top_k: int = 0, top_p: float = 0.0) -> Sampler:
    """Divide by temperature, keep the top_k likeliest, of those the top_p nucleus, then draw.

    The order is GPT-NeoX's; as there, temperature 0 beside a top_k or top_p leaves the logits as they are.
    """
    if not temperature:
        log.info(
            "temperature 0 with top_k %d and top_p %g samples at temperature 1, as GPT-NeoX does",
            top_k,
            top_p,
        )

    def sample(logits: Tensor, uniform: Tensor) -> Tensor:
        logits = logits.float()
        if temperature:
            logits = logits / temperature
        if 0 < top_k < logits.shape[-1]:
            logits = keep_likeliest(logits, top_k)
        if 0 < top_p < 1:
            logits = keep_nucleus(logits, top_p)
        return draw(logits.softmax(-1), uniform)

    return sample


def keep_likeliest(logits: Tensor, count: int) -> Tensor:
    """Logits [b, V] with -inf below the `count` largest of each row; ties with the last of them stay."""
    least = logits.topk(count).values[:, -1:]
    return logits.masked_fill(logits < least, float("-inf"))


def keep_nucleus(logits: Tensor, share: float) -> Tensor:
    """Logits [b, V] with -inf outside the fewest tokens that together reach probability `share`.

    Holtzman et al. 2020. Ties with the last of them stay, so the outcome does not depend on how a sort breaks
    ties.
    """
    total = logits.logsumexp(-1, keepdim=True)
    count = min(_NUCLEUS_GUESS, logits.shape[-1])
    while True:
        best = logits.topk(count).values  # [b, count], falling
        reached = (best - total).exp().cumsum(-1)
        if count == logits.shape[-1] or bool((reached[:, -1] >= share).all()):
            break
        count = logits.shape[-1]
    num_kept = (reached < share).sum(-1, keepdim=True).clamp(max=count - 1)
    return logits.masked_fill(logits < best.gather(-1, num_kept), float("-inf"))


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Ids [b] drawn from probabilities [b, V] by inverting their sums in the order of the ids.

    Sums run in fp64 and in a fixed order: what a batch's size changes in the last bits of a probability moves
    a boundary by as little, and hardly ever past the number drawn.
    """
    sums = probabilities.double().cumsum(-1)
    target = uniform.to(sums.device).unsqueeze(-1) * sums[:, -1:]
    return torch.searchsorted(sums, target, right=True).squeeze(-1)
