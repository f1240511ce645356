"""What a door prints and returns for each kind of failure."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
from collections.abc import Sequence

import pytest

from megatron.neox.errors import (
    ConfigError,
    NeoXError,
    Problem,
    ResourceError,
    UserError,
    did_you_mean,
    run_door,
)


def _raising(error: BaseException) -> int:
    def main(_: Sequence[str]) -> int:
        raise error

    return run_door(main, [])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("mend it"), 2, "UserError\nmend it\n"),
        (ConfigError([Problem("a.yml:1", "x"), "y"]), 2, "ConfigError\na.yml:1: x\ny\n"),
        (ResourceError("gone"), 1, "ResourceError\ngone\n"),
        (NeoXError("?"), 1, "NeoXError\n?\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out.bin"), 1,
         "ResourceError\nno space left on the disk while writing out.bin\n"),
    ],
)  # fmt: skip
def test_failures(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _raising(error) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [ValueError("our bug"), OSError(errno.EIO, "broken")])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        _raising(error)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_success(returned: int | None, code: int) -> None:
    assert run_door(lambda _: returned, []) == code


@pytest.mark.parametrize(("name", "clause"), [("hidden_sise", "; did you mean hidden_size?"), ("xyz", "")])
def test_suggestions(name: str, clause: str) -> None:
    assert did_you_mean(name, ["hidden_size", "seed"]) == clause


def test_a_config_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ConfigError([Problem("a.yml:1", "x"), "y"])))
    assert error.problems == [Problem("a.yml:1", "x"), Problem("", "y")]
    assert str(error) == "a.yml:1: x\ny"


def test_a_problem_is_placed_by_its_keys() -> None:
    problem = Problem.about(("a", "b.inner", "c"), "a does not go with b.inner")
    placed = problem.placed({"b": "x.yml:2", "c": "y.yml:3"})
    assert str(placed) == "x.yml:2: a does not go with b.inner (c: y.yml:3)"
    assert problem.placed({}) == problem
    assert placed.placed({"a": "z.yml:1"}) == placed


def test_a_long_door_is_left_by_sigterm_as_by_an_error() -> None:
    code = (
        "import sys, time\n"
        "from megatron.neox.errors import run_long_door\n"
        "def main(_):\n"
        "    try:\n"
        "        print('at work', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('tidied up')\n"
        "sys.exit(run_long_door(main, []))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.terminate()
        assert process.communicate(timeout=30)[0] == "tidied up\n"
    assert process.returncode == 128 + 15
