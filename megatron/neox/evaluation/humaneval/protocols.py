"""How the published harnesses make a program of a prompt and what a model went on to write."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megatron.neox.errors import InputError, did_you_mean
from megatron.neox.evaluation.humaneval.problems import Problem
from megatron.neox.evaluation.humaneval.samples import Sample

_BLOCKS = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif")
# Chen et al. 2021, section 3.1; those after which its paper stops sampling.
_CODEX = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
_BIGCODE = (*_BLOCKS, "\n```", "<file_sep>")


@dataclass(frozen=True)
class Protocol:
    """A way to score, by the name of who published with it."""

    name: str
    description: str
    stops: Sequence[str]
    """Texts at which it ends a completion; none leaves it whole."""
    sampling_stops: Sequence[str]
    """Texts at which a sampler may stop and leave the verdict as it is."""
    program: Callable[[Problem, Sample], str]
    timeout_seconds: float = 3.0


def cut_at_first(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop in it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def drop_last_block(text: str) -> str:
    """The text before the last stop in it, and nothing where there is none, as CodeParrot's scorer has it."""
    places = [match.start() for match in re.finditer("|".join(map(re.escape, _BLOCKS)), text)]
    return text[: places[-1]] if places else ""


def _polycoder(problem: Problem, sample: Sample) -> str:
    return problem.prompt + cut_at_first(sample.text, _BLOCKS).rstrip()


def _codeparrot(problem: Problem, sample: Sample) -> str:
    return drop_last_block(_prompt(problem, sample) + sample.text)


def _openai(problem: Problem, sample: Sample) -> str:
    return problem.prompt + sample.text


def _bigcode(problem: Problem, sample: Sample) -> str:
    return _prompt(problem, sample) + cut_at_first(sample.text, _BIGCODE)


def _prompt(problem: Problem, sample: Sample) -> str:
    """What the completion followed: a file that does not say is of openai/human-eval's form, as the task has it."""
    return problem.prompt if sample.context is None else sample.context


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "polycoder",
            "cut at the first stop, after the prompt as the task has it",
            _BLOCKS,
            _BLOCKS,
            _polycoder,
        ),
        Protocol(
            "codeparrot",
            "everything from the last stop of prompt and completion on is dropped: a bug of the original, which "
            "removes the function itself where nothing follows it, so that the figure is too low",
            _BLOCKS,
            (),
            _codeparrot,
        ),
        Protocol(
            "openai", "the completion as it stands; stops are the sampler's business", (), _CODEX, _openai
        ),
        Protocol(
            "bigcode",
            "cut at the first stop, after the prompt as the model got it",
            _BIGCODE,
            _BIGCODE,
            _bigcode,
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(
            f"no protocol is named {name}{did_you_mean(name, PROTOCOLS)}; known: {', '.join(PROTOCOLS)}"
        )
    return PROTOCOLS[name]
