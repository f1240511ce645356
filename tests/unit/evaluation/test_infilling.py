"""Infilling: which holes there are, models that know the answers or nothing, and options that cannot be."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import ConfigError, InputError, VocabularyError
from megatron.neox.evaluation.humaneval.infilling import (
    MULTI_LINE,
    RANDOM_SPAN,
    RANDOM_SPAN_TO_THE_END,
    SINGLE_LINE,
    STOPS,
    Kind,
    holes_of,
)
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.task import TaskResult, build_tasks
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.reciting_model import RecitingModel

PROBLEMS = read_problems()
KINDS = [SINGLE_LINE, MULTI_LINE, RANDOM_SPAN]
# Characters that no program holds, each of them one token.
FIM = {"prefix": "\x01", "suffix": "\x02", "middle": "\x03"}


@pytest.mark.parametrize(("kind", "count"), list(zip(KINDS, [1033, 5815, 1640])))
def test_there_are_as_many_holes_as_published(kind: Kind, count: int) -> None:
    holes = holes_of(kind, PROBLEMS)
    assert len(holes) == count
    for hole in holes.values():
        whole = PROBLEMS[hole.function].prompt + PROBLEMS[hole.function].canonical_solution
        assert hole.prompt + hole.middle + hole.after == whole
        assert hole.middle.strip()
        assert not any(stop in hole.middle for stop in STOPS), "a stop would cut the answer"
        assert kind.completion(hole, hole.middle + hole.after) == hole.middle


def test_known_holes() -> None:
    problem = PROBLEMS["HumanEval/2"]  # one line
    (hole,) = SINGLE_LINE.holes(problem)
    assert (hole.task_id, hole.middle, hole.after) == (
        "SingleLineInfilling/HumanEval/2/L0", "    return number % 1.0", "\n"
    )  # fmt: skip
    spans = [span.middle for span in RANDOM_SPAN.holes(problem)]
    assert spans[:3] == ["  retur", "  retu", "mber %"]
    assert len({span.prompt + "|" + span.middle for span in RANDOM_SPAN.holes(problem)}) == 10


def test_a_solution_of_few_characters_has_few_spans_and_a_blank_one_none(tmp_path: Path) -> None:
    problem = replace(PROBLEMS["HumanEval/2"], canonical_solution=" ab\n")
    assert sorted(span.middle for span in RANDOM_SPAN.holes(problem)) == [" a", " ab", "a", "ab", "b"]
    assert not list(RANDOM_SPAN.holes(replace(problem, canonical_solution=" \n")))
    problems = tmp_path / "problems.jsonl"
    keys = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
    problems.write_text(
        json.dumps({key: getattr(problem, key) for key in keys} | {"canonical_solution": " \n"})
    )
    with pytest.raises(InputError, match=r"problems\.jsonl: there is no solution to mask a part of"):
        run("infilling_random_span", [], problem_file=str(problems))


@pytest.mark.parametrize("name", ["human_eval", "infilling_single_line"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("limit", 0, "limit is how many tasks, at least 1, not 0"),
        ("limit", -1, "limit is how many tasks, at least 1, not -1"),
        ("limit", "many", "limit is how many tasks, at least 1, not 'many'"),
        ("num_samples", 0, "num_samples: input should be greater than 0, not 0"),
        ("maximum_tokens", 0, "maximum_tokens: input should be greater than 0, not 0"),
        ("temperature", -1.0, "temperature: input should be greater than or equal to 0, not -1.0"),
        ("top_p", 5.0, "top_p: input should be less than or equal to 1, not 5.0"),
    ],
)
def test_options_that_cannot_be_are_one_message(name: str, option: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"eval_task_options: {message}")):
        run(name, [], **{option: value})


@pytest.mark.parametrize(
    ("kind", "text", "kept"),
    [
        (SINGLE_LINE, "a = 1\nb = 2\n", "a = 1"),
        (SINGLE_LINE, "\n\n  a = 1\nb = 2\n", "  a = 1"),
        (SINGLE_LINE, "\ndef g():\n", ""),
        (SINGLE_LINE, "\n", ""),
        (MULTI_LINE, "\n  a = 1\n\n  b = 2\n  c = 3", "  a = 1\n\n  b = 2"),
        (MULTI_LINE, "a = 1\n\nb = 2\nc = 3", "a = 1\n\nb = 2"),
        (MULTI_LINE, "a = 1\ndef g():\n", "a = 1"),
        (RANDOM_SPAN, "x" * 30 + "y", "x" * 30),
        (RANDOM_SPAN_TO_THE_END, "anything\nat all\nprint()", "anything\nat all"),
    ],
)
def test_where_a_completion_is_cut(kind: Kind, text: str, kept: str) -> None:
    middle = "x" * 30 if kind is SINGLE_LINE else "aaaaaaaaaa\nbbbbbbbbbb\ncccccccc"  # 30 characters
    hole = replace(next(SINGLE_LINE.holes(PROBLEMS["HumanEval/0"])), middle=middle)
    assert kind.completion(hole, text) == kept


def run(name: str, texts: list[str], **options: Any) -> TaskResult:
    settings = EvaluationConfig(eval_tasks=[name], eval_task_options={name: options}, eval_batch_size=4)
    return build_tasks(settings)[name].run(RecitingModel(texts), CharLevelTokenizer(), Workers())


@pytest.mark.parametrize("name", ["infilling_single_line", "infilling_multi_line", "infilling_random_span"])
def test_from_left_to_right_one_who_knows_fills_all_and_one_who_does_not_none(name: str) -> None:
    known = [problem.prompt + problem.canonical_solution for problem in PROBLEMS.values()]
    result = run(name, known, limit=6, maximum_tokens=400)
    assert result.metrics["pass@1"] == result.metrics["exact_match"] == 1.0
    assert (result.metrics["num_tasks"], result.config["order"]) == (6, "from left to right")
    nothing = run(name, [], limit=6)
    assert (nothing.metrics["pass@1"], nothing.metrics["exact_match"]) == (0.0, 0.0)


def test_a_line_end_that_comes_first_ends_no_line() -> None:
    """As in InCoder's evaluation; the sample goes on to the end of the first line that says something."""
    first = next(iter(holes_of(SINGLE_LINE, PROBLEMS).values()))
    found = run(
        "infilling_single_line", [f"{first.prompt}\n\n{first.middle}\nmore"], limit=1, maximum_tokens=400
    )
    assert found.metrics["exact_match"] == 1.0
    (row,) = found.documents
    assert row["completion"] == f"\n\n{first.middle}"


@pytest.mark.long
@pytest.mark.parametrize("name", ["infilling_single_line", "infilling_multi_line", "infilling_random_span"])
def test_the_floor_is_what_passes_with_nothing_filled_in(name: str) -> None:
    found = run(name, [])
    rows = found.documents
    assert not any(row["completion"] for row in rows)
    passed = sum(row["passed"] for row in rows)
    assert found.config["floor"] == (
        f"pass@1 {passed / len(rows):.4f} with nothing filled in: {passed} holes whose loss no test notices"
    )
    assert run(name, [], limit=2).config["floor"] is None


@pytest.mark.parametrize("name", ["infilling_multi_line", "infilling_random_span"])
def test_with_marks_what_follows_the_hole_is_read(name: str) -> None:
    kind = {"infilling_multi_line": MULTI_LINE, "infilling_random_span": RANDOM_SPAN}[name]
    holes = list(holes_of(kind, PROBLEMS).values())[:5]
    prompts = [f"\x01{hole.prompt}\x02{hole.after}\x03" for hole in holes]
    result = run(name, [p + hole.middle for p, hole in zip(prompts, holes)], limit=5, fim=FIM)
    assert (result.metrics["pass@1"], result.metrics["exact_match"]) == (1.0, 1.0)
    assert result.config["order"] == "prefix, suffix, middle (fill in the middle)"
    ended = [p + hole.middle + "<end>junk" for p, hole in zip(prompts, holes)]
    assert run(name, ended, limit=5, fim={**FIM, "end": "<end>"}).metrics["exact_match"] == 1.0


def test_marks_that_cannot_be_are_refused() -> None:
    wrong: list[Any] = [{"prefix": "a"}, {**FIM, "sufix": "b"}, {**FIM, "middle": ""}, "<fim>", ["<fim>"]]
    for fim in wrong:
        with pytest.raises(ConfigError, match="fim holds the texts of three tokens"):
            run("infilling_single_line", [], fim=fim)
    with pytest.raises(VocabularyError, match=r"no token '<fim_prefix>' \(prefix\)"):
        run("infilling_single_line", [], limit=1, fim={**FIM, "prefix": "<fim_prefix>"})
