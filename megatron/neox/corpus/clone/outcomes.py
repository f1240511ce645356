"""What became of a clone, in a word, by what git said of it."""

from __future__ import annotations

import re
from typing import Literal, get_args

Outcome = Literal[
    "ok", "moved", "gone", "private", "blocked", "empty", "too_big", "timeout", "commit_gone", "failed"
]
"""ok and moved (renamed; the server led on) are on the disk. GitHub asks for a password where there is nothing as well
as where there is something private, so that private means either; gone is a plain 404. commit_gone: the repository is
there, and the commit that was asked for is not. timeout and failed may be otherwise next time."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
CLONED: frozenset[Outcome] = frozenset({"ok", "moved"})
PASSING: frozenset[Outcome] = frozenset({"timeout", "failed"})

_SAID: tuple[tuple[Outcome, str], ...] = (
    ("blocked", r"returned error: 451|DMCA|access to this repository has been disabled"),
    ("private", r"could not read (?:Username|Password)|Authentication failed|terminal prompts disabled"),
    ("gone", r"repository '.*' not found|returned error: (?:404|410)|does not appear to be a git repository"
             r"|repository not exported"),
    ("commit_gone", r"not our ref|unadvertised object|couldn't find remote ref [0-9a-f]{40}"),
    ("empty", r"couldn't find remote ref HEAD"),
)  # fmt: skip
_MAY_PASS = re.compile(
    r"returned error: (?:408|429|5\d\d)|RPC failed|early EOF|unexpected disconnect|hung up unexpectedly"
    r"|Operation too slow|Connection (?:reset|refused|timed out)|Could not resolve host|Failed to connect|SSL"
    r"|transfer closed",
    re.IGNORECASE,
)


def outcome_of(told: str) -> Outcome:
    """The outcome of a git that failed."""
    for outcome, said in _SAID:
        if re.search(said, told, re.IGNORECASE):
            return outcome
    return "failed"


def may_pass(told: str) -> bool:
    """Whether trying again at once could help."""
    return outcome_of(told) == "failed" and bool(_MAY_PASS.search(told))


def moved_to(told: str) -> str | None:
    """Where the server led on to, without the slash that git puts behind an address."""
    found = re.search(r"^warning: redirecting to (\S+)$", told, re.MULTILINE)
    return found[1].rstrip("/") if found else None
