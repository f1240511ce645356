"""Every damage of the files that scoring reads has one outcome: a message with its place, and nothing scored."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.errors import InputError
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.humaneval.samples import read_samples, told_settings
from megatron.neox.evaluation.humaneval.summary import choose_ks, compare, read_counts

PROBLEMS = read_problems()
PROMPTS = [problem.prompt for problem in PROBLEMS.values()]
NAMES = list(PROBLEMS)


def _records(num_samples: int = 1) -> list[dict[str, Any]]:
    return [{"context": prompt.strip(), "text": "    pass"} for prompt in PROMPTS for _ in range(num_samples)]


def _completions() -> list[dict[str, Any]]:
    return [{"task_id": name, "completion": "    pass"} for name in NAMES]


def _lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _changed(records: list[dict[str, Any]], line: int, **fields: Any) -> str:
    record = {**records[line - 1], **fields}
    records[line - 1] = {key: value for key, value in record.items() if value is not ...}
    return _lines(records)


BROKEN: dict[str, tuple[Callable[[], str], int | None, str]] = {
    "empty": (lambda: "", None, "samples file FILE is empty"),
    "blank": (lambda: "\n \n", None, "samples file FILE is empty"),
    "truncated within a line": (
        lambda: _lines(_records())[:-20], 1, "FILE:164: the file breaks off within this line; write it again",
    ),
    "truncated between lines": (
        lambda: _lines(_records()[:100]), 1,
        "FILE has 100 lines, and 1 samples of each of 164 tasks make 164 lines; "
        "a task's samples are incomplete: generate them again",
    ),
    "truncated, samples counted": (
        lambda: _lines(_records(2)[:300]), None,
        "FILE has 300 lines, and 1 samples of each of 164 tasks make 164 lines; "
        "a task's samples are incomplete: generate them again",
    ),
    "other number of samples": (
        lambda: _lines(_records(2)), 3,
        "FILE has 328 lines, and 3 samples of each of 164 tasks make 492 lines; did you mean --num-samples 2?",
    ),
    "fewer lines than tasks": (
        lambda: _lines(_records()[:5]), None,
        "FILE has 5 lines, and one sample of each of 164 tasks makes 164 lines; "
        "a task's samples are incomplete: generate them again",
    ),
    "not JSON": (lambda: "{'a'}\n" + _lines(_records()), 1, "FILE:1: not JSON (Expecting property name"),
    "not an object": (lambda: "[1]\n" + _lines(_records()), 1, "FILE:1: not a JSON object"),
    "neither form": (
        lambda: '{"prompt": "", "output": ""}\n', 1,
        "FILE:1: a sample has context and text, or task_id and completion; this line has 'prompt', 'output'",
    ),
    "without text": (
        lambda: _changed(_records(), 7, text=...), 1, "FILE:7: the sample has no 'text'; it has 'context'",
    ),
    "text is a number": (lambda: _changed(_records(), 7, text=1), 1, "FILE:7: 'text' is int, not text"),
    "other prompt": (
        lambda: _changed(_records(), 7, context="def g():"), 1,
        "FILE:7: the context is not the prompt of HumanEval/6; "
        "the file must hold 1 samples of each task, in the order of the tasks",
    ),
    "samples of all tasks in turn": (
        lambda: _lines(_records() + _records()), 2,
        "FILE:2: the context is not the prompt of HumanEval/0; "
        "the file must hold 2 samples of each task, in the order of the tasks",
    ),
    "without completion": (
        lambda: _changed(_completions(), 7, completion=...), 1,
        "FILE:7: the sample has no 'completion'; it has 'task_id'",
    ),
    "completion is null": (
        lambda: _changed(_completions(), 7, completion=None), 1, "FILE:7: 'completion' is NoneType, not text",
    ),
    "unknown task": (
        lambda: _changed(_completions(), 7, task_id="HumanEval/200"), 1,
        "FILE:7: no task is named 'HumanEval/200'; did you mean HumanEval/",
    ),
    "missing task": (
        lambda: _lines(_completions()[2:]), 1,
        "FILE has no sample of HumanEval/0, HumanEval/1; every task must be attempted",
    ),
    "many missing tasks": (
        lambda: _lines(_completions()[:1]), None,
        "FILE has no sample of HumanEval/1, HumanEval/2, HumanEval/3, HumanEval/4, HumanEval/5 and 158 more tasks; "
        "every task must be attempted",
    ),
    "uneven tasks": (
        lambda: _lines([*_completions(), _completions()[3]]), 1,
        "FILE has 2 and not 1 samples of HumanEval/3; leave out --num-samples to score them as they are",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_samples_file_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    content, num_samples, message = BROKEN[name]
    file = tmp_path / "samples.jsonl"
    file.write_text(content())
    with pytest.raises(InputError) as caught:
        read_samples(file, PROBLEMS, num_samples)
    assert str(caught.value).startswith(message.replace("FILE", str(file)))


def test_bytes_that_are_no_text_and_absent_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    with pytest.raises(InputError, match=r"samples.jsonl cannot be read: No such file"):
        read_samples(file, PROBLEMS)
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match="is not UTF-8: byte 0"):
        read_samples(file, PROBLEMS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", r":1: a problem needs the text task_id and prompt and entry_point and canonical_solution and test"),
        (b"x", r":1: the file breaks off"),
        (b"", r"is empty"),
    ],
)  # fmt: skip
def test_a_broken_problem_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_problems(file)


def test_a_problem_cannot_be_there_twice_nor_its_gzip_be_cut(tmp_path: Path) -> None:
    line = json.dumps(vars(PROBLEMS["HumanEval/0"])) + "\n"
    file = tmp_path / "problems.jsonl"
    file.write_text(line * 2)
    with pytest.raises(InputError, match=r":2: HumanEval/0 is there a second time"):
        read_problems(file)
    packed = tmp_path / "problems.jsonl.gz"
    packed.write_bytes(gzip.compress(line.encode())[:-9])
    with pytest.raises(InputError, match="is no complete gzip file"):
        read_problems(packed)


def test_good_files_are_read_in_both_forms(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    records = _records(2)
    records[1] = {**records[1], "text": None, "temperature": 0.4, "length": 0, "finished": True}
    file.write_text(_lines(records))
    samples = read_samples(file, PROBLEMS, 2)
    assert [(s.task_id, s.number) for s in samples[:3]] == [
        ("HumanEval/0", 0), ("HumanEval/0", 1), ("HumanEval/1", 0),
    ]  # fmt: skip
    assert (samples[1].completion, samples[1].text) == (None, "")
    assert told_settings(samples)["temperature"] == "0.4"
    file.write_text(_lines(_completions()[::-1]))
    assert [sample.task_id for sample in read_samples(file, PROBLEMS)] == NAMES


def test_k_beyond_the_samples_is_left_out_and_refused_where_it_was_asked_for() -> None:
    counts = {"T/0": (20, 1), "T/1": (5, 1)}
    assert choose_ks(counts, None) == ([1], "pass@10 and pass@100 cannot be told: T/1 has 5 samples")
    with pytest.raises(InputError, match="pass@10 cannot be told: T/1 has 5 samples; ask for k up to 5"):
        choose_ks(counts, [1, 10])
    assert choose_ks(counts, [5]) == ([5], "")


def test_comparisons_need_results_of_the_same_tasks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only one of the two files has results of T/1"):
        compare({"T/0": (1, 1)}, {"T/0": (1, 1), "T/1": (1, 0)}, None)
    file = tmp_path / "results.jsonl"
    file.write_text('{"task_id": "T/0", "completion": ""}\n')
    with pytest.raises(InputError, match=r":1: a result has task_id and passed"):
        read_counts(file)
