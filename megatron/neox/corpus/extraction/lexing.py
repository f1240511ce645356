"""Whether a text has at least a number of Pygments' tokens, decided as a full count would, without making one.

PolyCoder leaves out files under 100 tokens (VHellendoorn/Code-LMs, Data/extract_code.py), and counts the tokens of all
files to know. Here the count ends at the limit, and up to there it takes one match where Pygments takes one for each
rule that might hold: the rules of a state become one alternation, in which the first that matches wins, as it does in
Pygments' own loop. A lexer that counts in a way of its own is run as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from typing import Any

from pygments.lexer import ExtendedRegexLexer, Lexer, LexerContext, RegexLexer
from pygments.lexers import get_lexer_by_name
from pygments.lexers.c_cpp import CFamilyLexer
from pygments.lexers.php import PhpLexer
from pygments.token import Token, _TokenType

# These give as many tokens as the rules do: the two subclasses only rename some of them.
_COUNTS_AS_RULES = {
    kind.get_tokens_unprocessed for kind in (RegexLexer, CFamilyLexer, PhpLexer, ExtendedRegexLexer)
}

# What a pattern is made of, as far as groups go: a reference by number, an escape, a set, a group that is captured.
_PIECE = re.compile(
    r"\\(?P<reference>[1-9][0-9]?)|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<group>\((?!\?)|\(\?P<\w+>)|[^\\\[(]+|\(",
    re.DOTALL,
)
_LEADING_FLAGS = re.compile(r"\(\?[aiLmsux]+\)")
# References by name, conditions and comments; where white space means nothing, comments may hold anything.
_CANNOT_JOIN = re.compile(r"\(\?(?:P=|\(|#)")
_MOST_GROUPS = 99  # that can be referred to by number

_TOKEN = (0, Token, "x")

Matcher = Callable[..., re.Match[str] | None]
Rule = tuple[Matcher, Any, Any]  # Pygments': how to match, what to give, where to go
Run = tuple[Matcher, dict[int, Rule]]  # some rules, by the last group of a match
States = dict[str, list[Run]]


def has_tokens(text: str, lexer_name: str, limit: int) -> bool:
    """Whether Pygments' lexer of that name finds at least `limit` tokens in the text; `limit` is 1 or more."""
    lexer = _lexer(lexer_name)
    # What get_tokens does, without taking every token apart.
    tokens = lexer.get_tokens_unprocessed(lexer._preprocess_lexer_input(text))
    return next(islice(tokens, limit - 1, None), None) is not None


@cache
def _lexer(name: str) -> Any:
    """A lexer that gives as many tokens as Pygments' own, without their kinds, places and texts."""
    lexer = get_lexer_by_name(name)
    if type(lexer).get_tokens_unprocessed in _COUNTS_AS_RULES:
        rules: dict[str, list[Rule]] = getattr(lexer, "_tokens")  # noqa: B009 - made by RegexLexer's metaclass
        states = {state: _joined(rules) for state, rules in rules.items()}
        walk = _walk_in_context if isinstance(lexer, ExtendedRegexLexer) else _walk
        # On the lexer itself, for its rules call it for parts of the text too.
        lexer.get_tokens_unprocessed = partial(walk, lexer, states)
    return lexer


def _joined(rules: Iterable[Rule]) -> list[Run]:
    """Rules as few alternations, in their order; one that cannot be joined stands by itself."""
    runs: list[Run] = []
    parts: list[str] = []
    by_group: dict[int, Rule] = {}
    num_groups = 0

    def flush() -> None:
        nonlocal num_groups
        if parts:
            runs.append((re.compile("|".join(parts)).match, dict(by_group)))
        parts.clear()
        by_group.clear()
        num_groups = 0

    for rule in rules:
        pattern: re.Pattern[str] = rule[0].__self__  # pyright: ignore[reportFunctionMemberAccess]
        if num_groups + pattern.groups >= _MOST_GROUPS:
            flush()
        body, num_kept = _rebased(pattern, num_groups)
        if body is None:
            flush()
            runs.append((rule[0], dict.fromkeys(range(pattern.groups + 1), rule)))
            continue
        # The empty group behind a rule says that it was this one; before it, it would cost a look at the first letter.
        parts.append(f"{body}()")
        num_groups += num_kept + 1
        by_group[num_groups] = rule
    flush()
    return runs


def _rebased(pattern: re.Pattern[str], num_before: int) -> tuple[str | None, int]:
    """A pattern as it means the same behind `num_before` groups, and how many it has itself: those it refers to."""
    if pattern.flags & re.VERBOSE or _CANNOT_JOIN.search(pattern.pattern):
        return None, 0
    pieces = list(_PIECE.finditer(_LEADING_FLAGS.sub("", pattern.pattern, count=1)))
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


def _walk(lexer: Lexer, states: States, text: str, stack: Sequence[str] = ("root",)) -> Iterator[Any]:
    """As many items as RegexLexer.get_tokens_unprocessed gives."""
    states_open = list(stack)
    runs = states[states_open[-1]]
    position = 0
    while True:
        for match_run, rules in runs:  # noqa: B007 - used when one matched
            match = match_run(text, position)
            if match is not None:
                break
        else:
            if position >= len(text):
                return
            if text[position] == "\n":
                states_open = ["root"]
                runs = states["root"]
            position += 1
            yield _TOKEN
            continue
        rule, action, new_state = rules[match.lastindex or 0]
        if action is not None:
            if type(action) is _TokenType:
                yield _TOKEN
            else:
                yield from action(lexer, rule(text, position))
        position = match.end()
        if new_state is not None:
            _change(states_open, new_state)
            runs = states[states_open[-1]]


def _walk_in_context(
    lexer: Lexer, states: States, text: str | None = None, context: LexerContext | None = None
) -> Iterator[Any]:
    """As many items as ExtendedRegexLexer.get_tokens_unprocessed gives; its actions move the place themselves."""
    here: Any = context or LexerContext(text, 0)
    text = str(here.text)
    runs = states[here.stack[-1]]
    while True:
        for match_run, rules in runs:  # noqa: B007 - used when one matched
            match = match_run(text, here.pos, here.end)
            if match is not None:
                break
        else:
            if here.pos >= here.end:
                return
            if text[here.pos] == "\n":
                here.stack = ["root"]
                runs = states["root"]
            here.pos += 1
            yield _TOKEN
            continue
        rule, action, new_state = rules[match.lastindex or 0]
        if action is not None:
            if type(action) is _TokenType:
                yield _TOKEN
                here.pos = match.end()
            else:
                yield from action(lexer, rule(text, here.pos, here.end), here)
                runs = states[here.stack[-1]]
        if new_state is not None:
            _change(here.stack, new_state)
            runs = states[here.stack[-1]]


def _change(stack: list[str], new_state: Any) -> None:
    """Push and pop as a rule says; the last state stays."""
    if isinstance(new_state, int):
        del stack[max(1, len(stack) - abs(new_state)) :]
        return
    for state in (new_state,) if isinstance(new_state, str) else new_state:
        if state == "#pop":
            if len(stack) > 1:
                stack.pop()
        else:
            stack.append(stack[-1] if state == "#push" else state)
