"""The rules of Pygments' lexers, made for counting: those of a state as one alternation, compiled when it is met.

The first rule that matches wins, in the alternation as in Pygments' own loop, so one match is as good as one for each
rule. Pygments compiles the rules of all states when it makes a lexer, and most are never needed; here a rule is kept as
text until then.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from pygments.lexer import bygroups
from pygments.lexers import find_lexer_class_by_name
from pygments.token import _TokenType
from pygments.util import Future

# What a pattern is made of, as far as groups go: a reference by number, an escape, a set, a group that is captured.
_PIECE = re.compile(
    r"\\(?P<reference>[1-9][0-9]?)|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<group>\((?!\?)|\(\?P<\w+>)|[^\\\[(]+|\(",
    re.DOTALL,
)
_LEADING_FLAGS = re.compile(r"^\(\?(?P<letters>[aiLmsux]+)\)")
# References by name, conditions and comments; where white space means nothing, comments may hold anything.
_CANNOT_JOIN = re.compile(r"\(\?(?:P=|\(|#)")
_MOST_GROUPS = 99  # that can be referred to by number
_WORTH_SHARING = 20
# What a part of an alternation cannot say of itself alone.
_FLAGS_OF_A_WHOLE = re.VERBOSE | re.ASCII | re.LOCALE

Matcher = Callable[..., re.Match[str] | None]
Rule = tuple[Matcher, Any, Any]  # Pygments': how to match, what to give, where to go
# How many tokens a rule gives (0, 1, or -1: its action says), and the rule; in place of an action that gives a token
# for each group that is not empty, those groups' numbers.
Step = tuple[int, Matcher, Any, Any]
Run = tuple[Matcher, list[Any]]  # some rules as steps, by the last group of a match

_ONE_TOKEN = (1, None, None, None)
_BYGROUPS = bygroups().__code__


@dataclass
class _Pattern:
    """A rule's pattern, called as the `match` of a compiled one, and compiled when it first is."""

    pattern: str
    flags: int

    @classmethod
    def of(cls, source: Any, flags: int, state: str) -> _Pattern:
        """In place of `_process_regex` of RegexLexer's metaclass."""
        del state
        pattern: Any = source.get() if isinstance(source, Future) else source
        leading = _LEADING_FLAGS.match(pattern)
        for letter in leading["letters"] if leading else "":
            flags |= getattr(re, letter.upper())
        return cls(pattern, int(flags))

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The pattern by itself."""
        return re.compile(self.pattern, self.flags)

    def __call__(self, *place: Any) -> re.Match[str] | None:
        """As `re.Pattern.match`."""
        return self.compiled.match(*place)


class States(dict[str, list[Run]]):
    """The rules of a lexer by state, joined when the state is first met."""

    def __init__(self, rules: Mapping[str, Sequence[Rule]]) -> None:
        super().__init__()
        self._rules = rules

    def __missing__(self, state: str) -> list[Run]:
        """Join the state's rules; those of a state that it includes may be joined already."""
        rules = self._rules[state]
        for other in sorted(self, key=lambda name: len(self._rules[name]), reverse=True):
            start, end = _place(self._rules[other], rules)
            if end > start:
                runs = [*joined(rules[:start]), *self[other], *joined(rules[end:])]
                break
        else:
            runs = joined(rules)
        self[state] = runs
        return runs


@cache
def lexer_class(name: str) -> Any:
    """Pygments' lexer of that name, whose rules are compiled when they are first used."""
    kind: Any = find_lexer_class_by_name(name)
    return type(kind)(kind.__name__, (kind,), {"_process_regex": staticmethod(_Pattern.of)})


def joined(rules: Iterable[Rule]) -> list[Run]:
    """Rules as few alternations, in their order; one that cannot be joined stands by itself.

    Most give a token and stay in the state; which of those it was makes no difference, and they get no group, for a
    match costs more the more groups there are.
    """
    runs: list[Run] = []
    parts: list[str] = []
    by_group: list[Any] = [_ONE_TOKEN]

    def flush() -> None:
        if parts:
            runs.append((re.compile("|".join(parts)).match, by_group.copy()))
        parts.clear()
        del by_group[1:]

    for rule in rules:
        pattern = _pattern(rule[0])
        body, num_kept = _rebased(pattern, len(by_group) - 1)
        if body is not None and len(by_group) + num_kept > _MOST_GROUPS:
            flush()
            body, num_kept = _rebased(pattern, 0)
        if body is None:
            flush()
            runs.append((pattern.compiled.match, [_step(rule)] * (pattern.compiled.groups + 1)))
            continue
        step = _step(rule)
        if step[0] == 1 and step[-1] is None:
            parts.append(body)
            by_group += [_ONE_TOKEN] * num_kept
            continue
        # The empty group behind a rule says that it was this one; before it, it would cost a look at the first letter.
        parts.append(f"{body}()")
        by_group += [None] * num_kept + [step]
    flush()
    return runs


def _place(part: Sequence[Rule], rules: Sequence[Rule]) -> tuple[int, int]:
    """Where the very same rules are, from a number of rules on that is worth a match more; 0, 0 where they are not."""
    if len(part) >= _WORTH_SHARING:
        for start in range(len(rules) - len(part) + 1):
            if all(map(operator.is_, part, rules[start:])):
                return start, start + len(part)
    return 0, 0


def _pattern(matcher: Any) -> _Pattern:
    """What a rule matches; a state's default, which matches nothing, comes compiled."""
    return (
        matcher
        if isinstance(matcher, _Pattern)
        else _Pattern(matcher.__self__.pattern, matcher.__self__.flags)
    )


def _step(rule: Rule) -> Step:
    matcher, action, new_state = rule
    num_tokens = 0 if action is None else 1 if type(action) is _TokenType else -1
    return num_tokens, matcher, _groups(action) or action, new_state


def _groups(action: Any) -> tuple[int, ...]:
    """The groups that an action gives as they are; none where it does anything else with one of them."""
    if getattr(action, "__code__", None) is not _BYGROUPS:
        return ()
    kinds = action.__closure__[0].cell_contents
    numbers = tuple(number for number, kind in enumerate(kinds, 1) if kind is not None)
    is_plain = all(kind is None or type(kind) is _TokenType for kind in kinds)
    return numbers if is_plain and len(numbers) > 1 else ()


def _rebased(pattern: _Pattern, num_before: int) -> tuple[str | None, int]:
    """A pattern as it means the same behind `num_before` groups, and how many it has itself: those it refers to."""
    if pattern.flags & _FLAGS_OF_A_WHOLE or _CANNOT_JOIN.search(pattern.pattern):
        return None, 0
    pieces = list(_PIECE.finditer(_LEADING_FLAGS.sub("", pattern.pattern)))
    wanted = {int(piece["reference"]) for piece in pieces if piece["reference"]}
    new: dict[int, int] = {}
    parts, number = [], 0
    for piece in pieces:
        if piece["group"]:
            number += 1
            if number in wanted:
                new[number] = num_before + len(new) + 1
            parts.append("(" if number in wanted else "(?:")
        elif piece["reference"]:
            parts.append(f"(?:\\{new[int(piece['reference'])]})")
        else:
            parts.append(piece[0])
    flags = "".join(letter for letter in "ims" if pattern.flags & getattr(re, letter.upper()))
    return (f"(?{flags}:" if flags else "(?:") + "".join(parts) + ")", len(new)
