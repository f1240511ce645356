"""Prompts typed at the terminal, and their continuations shown as they come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from megatron.neox.config import GenerationConfig
from megatron.neox.errors import InputError
from megatron.neox.generation.decode import Decoder, Request
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.prompts import unescape
from megatron.neox.generation.records import Record
from megatron.neox.generation.stop import StopTexts
from megatron.neox.tokenizers import Tokenizer

_QUESTION = "Context prompt >>> "
_HELP = r"""Type a prompt; \n stands for a newline, \t for a tab, \\ for a backslash. Ctrl-D ends."""

Write = Callable[[str], object]


class TextStream:
    """Writes a growing text piece by piece; holds back what may yet become a stop text."""

    def __init__(self, tokenizer: Tokenizer, stop: StopTexts, write: Write) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._write = write
        self._title = ""
        self._num_written = 0

    def begin(self, title: str) -> None:
        """Start a new text; the title is written right before its first piece."""
        self._title = title
        self._num_written = 0

    def show(self, token_ids: Sequence[int]) -> None:
        """Write what is certain of the text of all tokens so far."""
        text = self._tokenizer.decode(token_ids)
        before_stop = self._stop.cut(text)
        self._continue(before_stop if before_stop != text else text[: self._stop.safe_length(text)])

    def finish(self, text: str) -> None:
        """Write what is left of the final text."""
        self._continue(text)

    def _continue(self, text: str) -> None:
        if len(text) > self._num_written:
            self._write((self._title if not self._num_written else "") + text[self._num_written :])
            self._num_written = len(text)


class Conversation:
    """Asks for prompts until there are no more, and continues each of them.

    Args:
        read: gives the next prompt, or none at the end; on several ranks all of them are given the same.
        write: shows text to the user.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        settings: GenerationConfig,
        *,
        read: Callable[[], str | None],
        write: Write,
    ) -> None:
        self._read = read
        self._write = write
        self._decoder = Decoder(model, tokenizer, settings, on_token=lambda _, ids: self._stream.show(ids))
        self._stream = TextStream(tokenizer, self._decoder.stop, write)

    def run(self) -> None:
        """Hold the conversation."""
        self._write(_HELP + "\n")
        number = 0
        while (prompt := self._read()) is not None:
            if not prompt.strip():
                self._write('The prompt is empty; text_gen_type: "unconditional" samples without one.\n')
                continue
            try:
                self._decoder.check([Request(prompt, number)])
                self._answer(Request(prompt, number))
                number += 1
            except InputError as error:
                self._write(f"{error}\n")

    def _answer(self, request: Request) -> None:
        self._stream.begin("Generated Text: ")
        record = self._decoder.decode([request])[0]
        self._stream.finish(record.text or "")
        self._write(f"\n{_summary(record)}\n")


def _summary(record: Record) -> str:
    rate = record.length / record.duration_seconds if record.duration_seconds else 0.0
    line = f"[{record.length} tokens, {rate:.1f} tokens/s{', finished' if record.finished else ''}]"
    return f"{line} {record.message}" if record.message else line


def read_typed_prompt(prompt_end: str) -> str | None:
    """The next prompt from standard input, its escapes replaced; none at the end of input.

    Args:
        prompt_end: a newline takes each line as a prompt; any other text ends a prompt of several lines.
    """
    lines: list[str] = []
    while True:
        try:
            line = input(_QUESTION if not lines else "")
        except EOFError:
            sys.stdout.write("\n")
            return unescape("\n".join(lines)) if lines else None
        if prompt_end == "\n":
            return unescape(line)
        if line.endswith(prompt_end):
            return unescape("\n".join([*lines, line.removesuffix(prompt_end)]))
        lines.append(line)
