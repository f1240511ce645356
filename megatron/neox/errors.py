"""Every mistake a user can make, and every failure that is nobody's mistake, as one tree.

::

    NeoXError                    exit 1: it went wrong and the user could not have known
    ├── ResourceError            a full disk, a lost rank, a device that gave up
    └── UserError                exit 2: something the user gave is wrong
        ├── ConfigError          YAML keys, values, and combinations of them; holds every problem at once
        ├── UnknownPartError     a plugin name that nothing registered
        ├── DependencyError      an optional package is not installed
        ├── InputError           files and folders given as input: absent, empty, unreadable
        ├── OutputError          an output that exists, or a folder another run holds
        ├── VocabularyError      vocabulary files, or a vocabulary that does not fit the data
        ├── DatasetError         .bin/.idx files: truncated, mismatched, too short
        └── CheckpointError      a checkpoint that is absent, damaged, or of another model

A message says what was found, where (file:line where there is one), and what to do about it.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field


class NeoXError(Exception):
    """Root of the tree; `exit_code` is what a door returns to the shell."""

    exit_code = 1


class ResourceError(NeoXError):
    """The machine failed the run: no space, no memory, a rank that died."""


class UserError(NeoXError):
    """Something the user gave is wrong; the message says how to mend it."""

    exit_code = 2


class UnknownPartError(UserError):
    """A part was asked for by a name that no plugin registered."""


class DependencyError(UserError):
    """An optional package is needed for what was asked, and is not installed."""


class InputError(UserError):
    """A file or folder given as input is absent, empty, or cannot be read."""


class OutputError(UserError):
    """An output is in the way, or another run is writing it."""


class VocabularyError(UserError):
    """A vocabulary is absent, inconsistent, or does not fit the data or the model."""


class DatasetError(UserError):
    """A .bin/.idx dataset is damaged, too short, or made with other settings."""


class CheckpointError(UserError):
    """A checkpoint is absent, damaged, or of another architecture."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config; `where` is `file:line`, or "" where there is no place.

    `keys` are the YAML keys that it is about, dotted for nested ones, for whoever knows where they stand.
    """

    where: str
    message: str
    keys: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def about(cls, keys: Iterable[str], message: str) -> Problem:
        """A problem with a combination of keys, whose places are not known yet."""
        return cls("", message, tuple(keys))

    def placed(self, places: Mapping[str, str]) -> Problem:
        """The problem at the first of its keys that has a place, with the places of the others behind it."""
        found = [(key, place) for key in self.keys if (place := place_of(key, places))]
        if self.where or not found:
            return self
        where = found[0][1]
        others = "".join(f" ({key}: {place})" for key, place in found if place != where)
        return Problem(where, self.message + others, self.keys)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class ConfigError(UserError):
    """All that is wrong with a config, in the order of the files."""

    def __init__(self, problems: Iterable[Problem | str]) -> None:
        self.problems = [p if isinstance(p, Problem) else Problem("", p) for p in problems]
        super().__init__("\n".join(map(str, self.problems)))

    def placed(self, places: Mapping[str, str]) -> ConfigError:
        """The same with each problem at its place, as far as `places` (file:line by key) tells."""
        return type(self)(problem.placed(places) for problem in self.problems)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[Problem]]]:
        """Travel between processes as the problems; the text alone would be taken apart into letters."""
        return type(self), (self.problems,)


def place_of(key: str, places: Mapping[str, str]) -> str:
    """Where a key stands, by its dotted path or the nearest enclosing one; "" where nothing says."""
    while key not in places and "." in key:
        key = key.rpartition(".")[0]
    return places.get(key, "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause such as `; did you mean hidden_size?`, or "" where nothing comes near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


# What the system says when the disk, and not the user, is the reason.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def run_door(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    """Call `main(arguments)` and turn what it raises into a message and an exit code.

    0 done, 1 failed, 2 misuse, 130 interrupted. Our own bugs keep their traceback.
    """
    try:
        return main(arguments) or 0
    except NeoXError as error:
        print(f"{type(error).__name__}\n{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe left (`| head`); silence the interpreter's own complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        place = f" while writing {error.filename}" if error.filename else ""
        print(f"ResourceError\nno space left on the disk{place}", file=sys.stderr)
        return ResourceError.exit_code


def run_long_door(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    """`run_door` for a tool that works for long: its log goes to stderr, and SIGTERM ends it as an error does.

    So what must not stay half-written is removed, and what `--resume` goes on with stays.
    """
    signal.signal(signal.SIGTERM, _stop)
    log_to_stderr()
    return run_door(main, arguments)


def log_to_stderr() -> None:
    """Show what a tool logs, a line each."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own


def _stop(number: int, _frame: object) -> None:
    sys.exit(128 + number)
