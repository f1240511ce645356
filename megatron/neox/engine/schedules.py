"""Learning-rate schedules: pure functions from the number of the step, counted from 0, to a learning rate.

A schedule is handed `step`, the last warm-up step's number and the config's rates; nothing is stored, so a
resumed run cannot meet a stale one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from megatron.neox.config.optimization import ScheduleConfig
from megatron.neox.plugins import schedules


@dataclass(frozen=True)
class Span:
    """What a schedule is laid over: steps are optimizer steps, rates are learning rates."""

    peak: float
    floor: float
    num_warmup_steps: float
    num_decay_steps: int

    @property
    def num_steps_after_warmup(self) -> float:
        """Steps between the peak and the floor, at least 1."""
        return max(1.0, self.num_decay_steps - self.num_warmup_steps)

    def progress(self, step: int) -> float:
        """How far the decay is at `step`: 0 at the peak, 1 at the floor and after it."""
        return min(1.0, max(0.0, (step - self.num_warmup_steps) / self.num_steps_after_warmup))


def build_schedule(config: ScheduleConfig, *, peak: float, train_iters: int) -> Callable[[int], float]:
    """The function from a completed number of steps to the learning rate of the next one.

    Warm-up rises linearly and reaches the peak after `warmup` of the steps until the floor, as in GPT-NeoX; its first
    step is not 0.

    Raises:
        UnknownPartError: no schedule has the name lr_decay_style.
    """
    num_decay_steps = config.lr_decay_iters or max(1, math.floor(config.lr_decay_fraction * train_iters))
    span = Span(peak, config.min_lr, config.warmup * num_decay_steps, num_decay_steps)
    decay = schedules.build(
        config.lr_decay_style,
        span,
        version=config.lr_schedule_version,
        decay_fraction=config.wsd_decay_fraction,
    )

    def learning_rate(step: int) -> float:
        if step + 1 <= span.num_warmup_steps:
            return peak * (step + 1) / span.num_warmup_steps
        return decay(step + 1)

    return learning_rate


@schedules.register("constant")
def constant(span: Span) -> Callable[[int], float]:
    """The peak, for ever."""
    return lambda step: span.peak


@schedules.register("linear")
def linear(span: Span) -> Callable[[int], float]:
    """A straight line from the peak to zero, cut off at the floor."""
    return lambda step: max(span.floor, span.peak * (1.0 - span.progress(step)))


@schedules.register("cosine")
def cosine(span: Span, *, version: int = 2) -> Callable[[int], float]:
    """Half a cosine from the peak to the floor; version 1 is GPT-NeoX's before 2023.

    Version 1 counts from the end of the warm-up but divides by all the steps, and stands still for as many
    steps before the end as the warm-up took; so it ends above zero, and the floor only cuts it off.
    """

    def before_2023(step: int) -> float:
        since = min(step, span.num_decay_steps - span.num_warmup_steps) - span.num_warmup_steps
        return max(span.floor, span.peak / 2 * (math.cos(math.pi * since / span.num_decay_steps) + 1))

    def today(step: int) -> float:
        return span.floor + (span.peak - span.floor) / 2 * (math.cos(math.pi * span.progress(step)) + 1)

    return before_2023 if version == 1 else today


@schedules.register("exponential")
def exponential(span: Span) -> Callable[[int], float]:
    """The peak, down to half of it at the last step, not below the floor."""
    return lambda step: max(span.floor, span.peak * 0.5 ** span.progress(step))


@schedules.register("wsd")
def warmup_stable_decay(span: Span, *, decay_fraction: float = 0.1) -> Callable[[int], float]:
    """The peak, and a straight line to the floor over the last share of the steps (Hu et al. 2024)."""
    first = span.num_decay_steps * (1.0 - decay_fraction)

    def rate(step: int) -> float:
        done = min(1.0, max(0.0, (step - first) / max(1.0, span.num_decay_steps - first)))
        return span.peak + (span.floor - span.peak) * done

    return rate
