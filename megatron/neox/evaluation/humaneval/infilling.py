"""Holes in HumanEval's canonical solutions: single lines, runs of lines, spans of characters.

::

    prompt + before            what a model that reads from left to right gets
    middle                     what is masked, and asked for
    after                      joined to the completion before the tests are executed

Single lines and runs of lines are those of InCoder (Fried et al. 2022, section 4.1): every line that is not blank, and
every run from one such line to another or the same, 1,033 and 5,815 of them. Random spans are the idea of Bavarian et
al. 2022 (arXiv:2207.14255), ten for each function; theirs were drawn with other random numbers, so that the spans here
are others. OpenAI's files of all three (openai/human-eval-infilling) come with no package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from megatron.neox.evaluation.humaneval.problems import Problem
from megatron.neox.evaluation.humaneval.protocols import PROTOCOLS, Protocol, cut_at_first
from megatron.neox.evaluation.humaneval.samples import Sample
from megatron.neox.generation.stop import StopTexts

SPANS_OF_A_FUNCTION = 10
# Enough to find ten in any solution that has many more; one that has not gives fewer.
_MOST_DRAWS = 1000
STOPS = PROTOCOLS["polycoder"].stops
"""What no middle of a function holds: beginnings of lines without indentation."""


@dataclass(frozen=True)
class Hole(Problem):
    """A problem whose prompt ends where the hole begins; its canonical solution is what is masked and what follows."""

    function: str
    """The task that the hole is in."""
    middle: str
    after: str


def single_lines(problem: Problem) -> Iterator[Hole]:
    """Every line that is not blank, without its line end."""
    for line, _ in enumerate(problem.canonical_solution.split("\n")):
        yield from _lines(problem, line, line, f"SingleLineInfilling/{problem.task_id}/L{line}")


def multi_lines(problem: Problem) -> Iterator[Hole]:
    """Every run of lines whose first and last are not blank, without its last line end; one line is a run too."""
    num_lines = problem.canonical_solution.count("\n") + 1
    for first in range(num_lines):
        for last in range(first, num_lines):
            name = f"MultiLineInfilling/{problem.task_id}/L{first}_L{last}"
            yield from _lines(problem, first, last, name)


def random_spans(problem: Problem) -> Iterator[Hole]:
    """Ten different spans, both ends uniform over the solution without its trailing white space; none is blank."""
    solution, seen = problem.canonical_solution, set[tuple[int, int]]()
    length = len(solution.rstrip())
    for draw in range(_MOST_DRAWS):
        digest = hashlib.blake2b(f"{problem.task_id}/{draw}".encode(), digest_size=16).digest()
        ends = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))
        begin, end = sorted(number % (length + 1) for number in ends)
        if (begin, end) in seen or not solution[begin:end].strip():
            continue
        name = f"RandomSpanInfilling/{problem.task_id}/{len(seen) + 1}"
        seen.add((begin, end))
        yield _hole(problem, begin, end, name)
        if len(seen) == SPANS_OF_A_FUNCTION:
            return


def _lines(problem: Problem, first: int, last: int, name: str) -> Iterator[Hole]:
    lines = problem.canonical_solution.split("\n")
    if lines[first].strip() and lines[last].strip():
        begin = sum(len(line) + 1 for line in lines[:first])
        yield _hole(problem, begin, begin + len("\n".join(lines[first : last + 1])), name)


def _hole(problem: Problem, begin: int, end: int, name: str) -> Hole:
    solution = problem.canonical_solution
    return Hole(
        task_id=name,
        prompt=problem.prompt + solution[:begin],
        entry_point=problem.entry_point,
        canonical_solution=solution[begin:],
        test=problem.test,
        function=problem.task_id,
        middle=solution[begin:end],
        after=solution[end:],
    )


@dataclass(frozen=True)
class Kind:
    """A way to make holes, and how much of a completion fills one."""

    holes: Callable[[Problem], Iterator[Hole]]
    cut: Callable[[Hole, str], str]
    how: str
    stops: tuple[str, ...]
    """Where sampling may end without changing what is cut out."""
    stop_texts: type[StopTexts] = StopTexts
    """How they are looked for."""

    def protocol(self) -> Protocol:
        """Completion cut, between what comes before the hole and what after."""
        return Protocol("infilling", self.how, self.stops, self.stops, self._program)

    def completion(self, hole: Hole, text: str) -> str:
        """What of a sampled text fills the hole."""
        return self.cut(hole, cut_at_first(text, STOPS))

    def _program(self, problem: Problem, sample: Sample) -> str:
        assert isinstance(problem, Hole)
        return problem.prompt + self.completion(problem, sample.text) + problem.after


class FirstLineStops(StopTexts):
    """Stop texts that may be line ends; those at the beginning of a sample are none, for they are dropped."""

    def cut(self, text: str) -> str:
        """The text before the first stop text in it."""
        begin = len(text) - len(text.lstrip("\n"))
        return text[:begin] + super().cut(text[begin:])

    def _holds_stop(self, token_ids: Sequence[int]) -> bool:
        text = self._tokenizer.decode(token_ids).lstrip("\n")
        return any(stop in text for stop in self.texts)


def _as_many_lines(hole: Hole, text: str) -> str:
    """As InCoder's evaluation: line ends at the beginning are dropped, for the prompt ends with one already."""
    return "\n".join(text.lstrip("\n").split("\n")[: hole.middle.count("\n") + 1])


def _as_many_characters(hole: Hole, text: str) -> str:
    return text[: len(hole.middle)]


def _whole(hole: Hole, text: str) -> str:
    return text


_UP_TO_BLOCKS = "ends at the first line without indentation that begins another block"
_FROM_TEXT = "from its first character that is no line end on"
SINGLE_LINE = Kind(
    single_lines, _as_many_lines, f"the first line of the completion, {_FROM_TEXT}", ("\n",), FirstLineStops
)
MULTI_LINE = Kind(
    multi_lines, _as_many_lines, f"as many lines as were masked, {_FROM_TEXT}; {_UP_TO_BLOCKS}", (*STOPS,)
)
RANDOM_SPAN = Kind(
    random_spans, _as_many_characters, f"as many characters as were masked; {_UP_TO_BLOCKS}", (*STOPS,)
)
RANDOM_SPAN_TO_THE_END = Kind(
    random_spans, _whole, f"up to where the model ends the middle; {_UP_TO_BLOCKS}", (*STOPS,)
)


def holes_of(kind: Kind, problems: Mapping[str, Problem]) -> dict[str, Hole]:
    """All holes of all problems, by task_id."""
    return {hole.task_id: hole for problem in problems.values() for hole in kind.holes(problem)}
