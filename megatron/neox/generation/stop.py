"""Texts that end a sample, looked for in what its tokens say.

A stop text cannot be looked for among ids: a newline may hide inside a token, and one text has many
spellings.
"""

from __future__ import annotations

from collections.abc import Sequence

from megatron.neox.tokenizers import Tokenizer

# Tokens that say nothing (special ones), and the broken character where a tail begins, on top of one token a
# byte.
_SLACK = 8


class StopTexts:
    """The texts of the YAML key `stop`, ready to be looked for after every token."""

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer) -> None:
        self.texts = [text for text in texts if text]
        self._tokenizer = tokenizer
        self._tail = max((len(text.encode()) for text in self.texts), default=0) + _SLACK

    def reached(self, token_ids: Sequence[int]) -> bool:
        """Whether the newest token completed a stop text; looks at the last tokens only, so it costs O(1)."""
        if not self.texts or not self._holds_stop(token_ids[-self._tail :]):
            return False
        return self._holds_stop(token_ids)

    def cut(self, text: str) -> str:
        """The text before the first stop text in it."""
        places = [place for stop in self.texts if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text

    def safe_length(self, text: str) -> int:
        """How much of an unfinished text can be shown: no stop text and no broken character begins there."""
        longest = max((len(stop) for stop in self.texts), default=1)
        return max(0, len(text.rstrip("\N{REPLACEMENT CHARACTER}")) - (longest - 1))

    def _holds_stop(self, token_ids: Sequence[int]) -> bool:
        text = self._tokenizer.decode(token_ids)
        return any(stop in text for stop in self.texts)
