"""What runs inside the sandbox: execute a candidate program, then call its function as often as it is asked.

Nothing here is a guard: whatever a candidate does to this code, it can only change what it answers.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any, BinaryIO

import plain_data

_MESSAGE_LENGTH = 300


def serve(commands: int, replies: int) -> None:
    """Answer the lines of `commands` on `replies`, both descriptors of pipes, until the first is closed.

    The first line is (program, name of its function), answered by None; every other is (arguments, keyword
    arguments), answered by ("value", result). What goes wrong is answered by ("error", type, message).
    """
    lines = open(commands, "rb", closefd=False)  # noqa: SIM115 - lives as long as the process
    program, entry_point = plain_data.loads(lines.readline())
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    try:
        exec(compile(program, "candidate.py", "exec", dont_inherit=True), module.__dict__)
        function = module.__dict__[entry_point]
    except KeyError as error:
        missing = error.args == (entry_point,) and entry_point not in module.__dict__
        answer = ("error", "NameError", f"no {entry_point} is defined") if missing else _told(error)
    except BaseException as error:
        answer = _told(error)
    else:
        _reply(replies, plain_data.dumps(None))
        return _answer_calls(function, lines, replies)
    _reply(replies, plain_data.dumps(answer))
    return None


def _answer_calls(function: Any, lines: BinaryIO, replies: int) -> None:
    for line in lines:
        arguments, keywords = plain_data.loads(line)
        try:
            answer = plain_data.dumps(("value", function(*arguments, **keywords)))
        except BaseException as error:
            answer = plain_data.dumps(_told(error))
        _reply(replies, answer)


def _told(error: BaseException) -> tuple[str, str, str]:
    try:
        message = str(error)[:_MESSAGE_LENGTH]
    except BaseException as another:
        message = f"its message cannot be read ({type(another).__name__})"
    return ("error", type(error).__name__, str.__str__(message))


def _reply(descriptor: int, answer: bytes) -> None:
    left = memoryview(answer + b"\n")
    while left:
        left = left[os.write(descriptor, left) :]
