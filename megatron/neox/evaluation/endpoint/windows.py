r"""Texts longer than a model's context, scored window by window, each token once.

Only the server has the tokenizer, so how many characters fill a window is found by asking. Tokens near the end of what
was sent may be others than in the whole text, so a window that is not the last is used up to a place before its end: up
to the last beginning of a line (a character other than white space, after "\n") in its second half, or, where there is
none, the last token that begins sixteen characters before its end. The next window begins with the last token that was
used, which stands for its context, and scores what follows it::

    sent      <|endoftext|> line 1 \n line 2 \n line 3 \n li          tokens of `li` are not used
    sent                                               \n line 4 ...  the first \n is context

So the first window's tokens are conditioned on the document-start text, and a later one's on one token at least: the
disjoint windows of lm-evaluation-harness, except that they end at lines, and that the last one does not reach back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from megatron.neox.errors import InputError
from megatron.neox.evaluation.endpoint.client import Endpoint, PromptTooLong, Token

_FIRST_GUESS = (
    4.0  # characters a token; more than code has, since what is refused for its length costs nothing
)
_SHRINK = 0.8
_SLACK = 16  # characters before the end of what was sent, whose tokens the end may have changed


@dataclass(frozen=True)
class TextWindow:
    """Characters [start, end) of a text were sent, and those from `scored_from` to `scored_to` were scored."""

    start: int
    end: int
    scored_from: int
    scored_to: int
    num_scored: int


@dataclass
class ScoredText:
    """What is known of a text.

    Attributes:
        log_likelihood: log p of its scored tokens, in nats.
        num_scored: how many these are.
        num_sent: tokens that were sent for it, context and repetitions among them.
        num_unaligned: windows whose tokens do not meet those before them; a token there counts by its larger part.
    """

    log_likelihood: float = 0.0
    num_scored: int = 0
    num_sent: int = 0
    num_unaligned: int = 0
    windows: list[TextWindow] = field(default_factory=list)


def score_text(endpoint: Endpoint, text: str, *, start_text: str, context_tokens: int) -> ScoredText:
    """Score all tokens of a text but those that nothing stands before.

    Args:
        start_text: what stands before it; with "" its first token is not scored.
        context_tokens: longest prompt to use, in the server's tokens.

    Raises:
        InputError: the server finds the shortest window too long.
        UserError, ResourceError: as `Endpoint.echo`.
    """
    found, done, begin, ratio = ScoredText(), 0, 0, _FIRST_GUESS
    while done < len(text):
        prefix = start_text if done == 0 else ""
        room = context_tokens - endpoint.max_tokens
        tokens, end = _ask(endpoint, prefix, text, begin, done, room=room, ratio=ratio)
        found.num_sent += len(tokens)
        own = [_moved(token, begin - len(prefix)) for token in tokens]
        usable = own[:room]
        used = (
            len(usable)
            if end == len(text) and len(own) == len(usable)
            else _last_used(text, usable, done, end)
        )
        scored = [token for token in usable[:used] if token.start >= done and token.logprob is not None]
        upto = usable[used - 1].end
        found.num_unaligned += done > 0 and all(token.start != done for token in usable)
        found.log_likelihood += sum(token.logprob for token in scored if token.logprob is not None)
        found.num_scored += len(scored)
        found.windows.append(TextWindow(begin, end, done, upto, len(scored)))
        ratio = 1.1 * max(1, end - begin) / len(tokens)
        done, begin = upto, max(usable[used - 1].start, 0)
    return found


def _ask(
    endpoint: Endpoint, prefix: str, text: str, begin: int, done: int, *, room: int, ratio: float
) -> tuple[list[Token], int]:
    """Tokens of prefix + text[begin:end], and the end, the largest of some guesses that the server takes."""
    length = max(int(room * ratio), 1)
    while True:
        end = min(begin + length, len(text))
        try:
            return endpoint.echo(prefix + text[begin:end]), end
        except PromptTooLong as error:
            length = int(min(length, end - begin) * _SHRINK)
            if begin + length <= done:
                raise InputError(
                    f"{endpoint.base_url} finds {end - begin} characters too long: {error}"
                ) from None


def _moved(token: Token, by: int) -> Token:
    return Token(token.start + by, token.end + by, token.logprob)


def _last_used(text: str, tokens: Sequence[Token], done: int, end: int) -> int:
    """How many tokens of a window that is not the last are used; at least one of the text beyond `done`."""
    first = next((number for number, token in enumerate(tokens) if token.end > done), len(tokens))
    sure = [
        number
        for number in range(first + 1, len(tokens))
        if tokens[number].start > max(tokens[number - 1].start, done)
        and (tokens[number].start <= end - _SLACK)
    ]
    lines = [
        number for number in sure if number > len(tokens) // 2 and _begins_line(text, tokens[number].start)
    ]
    if chosen := lines or sure:
        return chosen[-1]
    if first == len(tokens) or tokens[-1].end <= done:
        raise InputError(f"a window of {len(tokens)} tokens holds nothing new; give more --context-tokens")
    return len(tokens)


def _begins_line(text: str, place: int) -> bool:
    return text[place - 1] == "\n" and not text[place].isspace()
