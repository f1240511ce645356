"""Stop texts are looked for in what tokens say, not among ids."""

from __future__ import annotations

from pathlib import Path

from megatron.neox.config import TokenizerConfig
from megatron.neox.generation.stop import StopTexts
from megatron.neox.tokenizers import CharLevelTokenizer, Tokenizer, build_tokenizer

CHARACTERS = CharLevelTokenizer()


def polycoder_tokenizer(folder: Path) -> Tokenizer:
    return build_tokenizer(
        TokenizerConfig(
            vocab_file=str(folder / "code-vocab.json"), merge_file=str(folder / "code-merges.txt")
        )
    )


def test_a_newline_inside_a_token_is_found(polycoder: Path) -> None:
    tokenizer = polycoder_tokenizer(polycoder)
    ids = [*tokenizer.encode("x = 1"), 3041]
    assert tokenizer.decode(ids) == "x = 1  \n"
    stop = StopTexts(["\n"], tokenizer)
    assert [stop.reached(ids[:end]) for end in (1, 2, 3, 4)] == [False, False, False, True]


def test_a_stop_text_over_several_tokens_is_found() -> None:
    stop = StopTexts(["\nclass", "\ndef"], CHARACTERS)
    ids = CHARACTERS.encode("    return x\n\ndef")
    assert not any(stop.reached(ids[:end]) for end in range(len(ids)))
    assert stop.reached(ids)


def test_the_end_of_a_long_text_is_enough_to_look_at() -> None:
    stop = StopTexts(["é;"], CHARACTERS)
    assert stop.reached(CHARACTERS.encode("ü" * 5000 + "é;"))
    assert not stop.reached(CHARACTERS.encode("é;" + "ü" * 5000))


def test_the_first_of_several_cuts() -> None:
    stop = StopTexts(["#", "\ndef"], CHARACTERS)
    assert stop.cut("return 1\ndef f(): # done") == "return 1"
    assert stop.cut("return 1") == "return 1"


def test_without_stop_texts_nothing_stops() -> None:
    stop = StopTexts(["", ""], CHARACTERS)
    assert not stop.reached(CHARACTERS.encode("anything"))
    assert stop.cut("anything") == "anything"


def test_what_may_become_a_stop_text_or_a_character_is_not_shown_yet() -> None:
    stop = StopTexts(["\ndef"], CHARACTERS)
    assert stop.safe_length("abcdef") == 3
    assert stop.safe_length("a") == 0
    assert StopTexts([], CHARACTERS).safe_length("ab\N{REPLACEMENT CHARACTER}") == 2
