"""Whether a text has at least a number of Pygments' tokens, decided as a full count would, without making one.

PolyCoder leaves out files under 100 tokens (VHellendoorn/Code-LMs, Data/extract_code.py), and counts the tokens of all
files to know. Here the count ends at the limit, and up to there it takes one match where Pygments takes one for each
rule that might hold (`lexer_rules`). A lexer that counts in a way of its own is run as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache, partial
from itertools import islice, repeat
from typing import Any

from pygments.lexer import ExtendedRegexLexer, Lexer, LexerContext, RegexLexer
from pygments.lexers.c_cpp import CFamilyLexer
from pygments.lexers.php import PhpLexer
from pygments.token import Token

from megatron.neox.corpus.extraction.lexer_rules import States, lexer_class

# These give as many tokens as the rules do: the two subclasses only rename some of them.
_COUNTS_AS_RULES = {
    kind.get_tokens_unprocessed for kind in (RegexLexer, CFamilyLexer, PhpLexer, ExtendedRegexLexer)
}

_TOKEN = (0, Token, "x")


def has_tokens(text: str, lexer_name: str, limit: int) -> bool:
    """Whether Pygments' lexer of that name finds at least `limit` tokens in the text; `limit` is 1 or more."""
    lexer = _lexer(lexer_name, limit)
    # What get_tokens does, without taking every token apart.
    tokens = lexer.get_tokens_unprocessed(_prepared(lexer, text))
    return next(islice(tokens, limit - 1, None), None) is not None


def _prepared(lexer: Any, text: str) -> str:
    """The text that the lexer is to see; most texts are that already, and copying them would take a sixth of all."""
    if lexer.stripnl and lexer.ensurenl and not lexer.stripall and not lexer.tabsize:
        begins_well = text[:1] not in ("", "\n", "\ufeff")
        if begins_well and text[-1] == "\n" != text[-2:-1] and "\r" not in text:
            return text
    return lexer._preprocess_lexer_input(text)


@cache
def _states(name: str) -> States:
    return States(lexer_class(name)()._tokens)


@lru_cache(maxsize=128)
def _lexer(name: str, limit: int) -> Any:
    """A lexer that gives as many tokens as Pygments' own up to the limit, without their kinds, places and texts."""
    lexer = lexer_class(name)()
    if type(lexer).get_tokens_unprocessed in _COUNTS_AS_RULES:
        count = _count_in_context if isinstance(lexer, ExtendedRegexLexer) else _count
        # On the lexer itself, for its rules call it for parts of the text too.
        lexer.get_tokens_unprocessed = partial(_repeated, count, lexer, _states(name), limit)
    return lexer


def _repeated(count: Callable[..., int], *arguments: Any, **options: Any) -> Iterator[Any]:
    """As many items as are counted."""
    return repeat(_TOKEN, count(*arguments, **options))


def _count(lexer: Lexer, states: States, limit: int, text: str, stack: Sequence[str] = ("root",)) -> int:
    """How many items RegexLexer.get_tokens_unprocessed gives, or a number from the limit on."""
    states_open = list(stack)
    runs = states[states_open[-1]]
    position = count = 0
    while count < limit:
        for match_run, steps in runs:  # noqa: B007 - used when one matched
            match = match_run(text, position)
            if match is not None:
                break
        else:
            if position >= len(text):
                break
            if text[position] == "\n":
                states_open = ["root"]
                runs = states["root"]
            position += 1
            count += 1
            continue
        num_tokens, rule, action, new_state = steps[match.lastindex or 0]
        if num_tokens >= 0:
            count += num_tokens
        else:
            found: Any = rule(text, position)
            is_groups = type(action) is tuple
            count += _filled(found, action) if is_groups else _length(action(lexer, found), limit - count)
        position = match.end()
        if new_state is not None:
            _change(states_open, new_state)
            runs = states[states_open[-1]]
    return count


def _count_in_context(
    lexer: Lexer, states: States, limit: int, text: str | None = None, context: LexerContext | None = None
) -> int:
    """The same of ExtendedRegexLexer.get_tokens_unprocessed, whose rules' actions move the place themselves."""
    here: Any = context or LexerContext(text, 0)
    text = str(here.text)
    runs = states[here.stack[-1]]
    count = 0
    while count < limit:
        for match_run, steps in runs:  # noqa: B007 - used when one matched
            match = match_run(text, here.pos, here.end)
            if match is not None:
                break
        else:
            if here.pos >= here.end:
                break
            if text[here.pos] == "\n":
                here.stack = ["root"]
                runs = states["root"]
            here.pos += 1
            count += 1
            continue
        num_tokens, rule, action, new_state = steps[match.lastindex or 0]
        if num_tokens == 1:
            count += 1
            here.pos = match.end()
        elif type(action) is tuple:
            count += _filled(rule(text, here.pos, here.end), action)
            here.pos = match.end()
        elif num_tokens < 0:
            count += _length(action(lexer, rule(text, here.pos, here.end), here), limit - count)
            runs = states[here.stack[-1]]
        if new_state is not None:
            _change(here.stack, new_state)
            runs = states[here.stack[-1]]
    return count


def _filled(match: Any, groups: Sequence[int]) -> int:
    """How many of two groups and more are not empty."""
    return len(list(filter(None, match.group(*groups))))


def _length(items: Iterable[Any], limit: int) -> int:
    return len(list(islice(items, limit)))


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
