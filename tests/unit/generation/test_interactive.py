"""The conversation at the terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pytest
import torch

from megatron.neox.config import GenerationConfig
from megatron.neox.generation.interactive import Conversation, read_typed_prompt
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.tiny_models import VOCAB_SIZE, TinyLanguageModel, places


class Counting(TinyLanguageModel):
    """After byte b comes b + 1."""

    def logits(
        self, token_ids: torch.Tensor, cache: KeyValueCache | None = None, *, at: Sequence[int] | None = None
    ) -> torch.Tensor:
        super().logits(token_ids, cache, at=at)
        return torch.nn.functional.one_hot((places(token_ids, at) + 1) % VOCAB_SIZE, VOCAB_SIZE).float()


def converse(prompts: Iterator[str], **keys: object) -> list[str]:
    written: list[str] = []
    settings = GenerationConfig.model_validate({"maximum_tokens": 6, **keys})
    Conversation(
        Counting(), CharLevelTokenizer(), settings, read=lambda: next(prompts, None), write=written.append
    ).run()
    return written


def test_text_is_shown_as_it_comes() -> None:
    _, *pieces = converse(iter(["a"]))
    assert pieces[:-1] == ["Generated Text: b", "c", "d", "e", "f", "g"]
    assert pieces[-1].startswith("\n[6 tokens, ")


def test_a_stop_text_is_never_shown() -> None:
    _, *pieces = converse(iter(["a"]), stop=["efg"])
    assert "".join(pieces[:-1]) == "Generated Text: bcd"
    assert pieces[-1].endswith("finished]\n")


def test_mistakes_do_not_end_the_conversation() -> None:
    text = "".join(converse(iter(["", "x" * 48, "a"])))
    assert "The prompt is empty" in text
    assert "prompt 1 is 48 tokens long, and the model has 48 positions" in text
    assert text.count("Generated Text: ") == 1
    assert "Generated Text: bcdefg" in text


def typed(monkeypatch: pytest.MonkeyPatch, text: str, prompt_end: str = "\n") -> list[str | None]:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    prompts: list[str | None] = []
    while not prompts or prompts[-1] is not None:
        prompts.append(read_typed_prompt(prompt_end))
    return prompts


def test_each_line_is_a_prompt_until_the_input_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(monkeypatch, "one\\n\n\ntwo") == ["one\n", "", "two", None]


def test_another_text_can_end_a_prompt_of_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(monkeypatch, "def f():\n  pass;;\nlast\n", ";;") == ["def f():\n  pass", "last", None]
