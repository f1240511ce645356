from __future__ import annotations

import json
import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.neox.config import TokenizerConfig
from megatron.neox.errors import UnknownPartError, VocabularyError
from megatron.neox.tokenizers import GPT2BPETokenizer, build_tokenizer
from megatron.neox.tokenizers.byte_level import CHARACTER_OF_BYTE

# neox.md T1: what GPT-NeoX makes of PolyCoder's files; CR has no token and becomes 0.
GOLDEN_TEXT = "def f(x):\n    if x:\n        return x + 1\n\t\treturn 2\r\n"
GOLDEN_IDS = [
    319, 282, 10, 90, 1050, 188, 209, 209, 209, 392, 754, 28, 188,
    209, 209, 209, 209, 209, 209, 209, 429, 754, 431, 352, 188,
    187, 187, 397, 444, 0, 188,
]  # fmt: skip


@cache
def load(
    folder: Path, merges_header: str = "drop_first_line", missing_bytes: str = "eod"
) -> GPT2BPETokenizer:
    return GPT2BPETokenizer(
        vocab_file=str(folder / "code-vocab.json"),
        merge_file=str(folder / "code-merges.txt"),
        merges_header=merges_header,  # pyright: ignore[reportArgumentType]
        missing_bytes=missing_bytes,  # pyright: ignore[reportArgumentType]
    )


def slow_bpe(folder: Path, text: str) -> list[int]:
    """The algorithm by its definition: the best-ranked pair first, everywhere, until none is left."""
    vocabulary = json.loads((folder / "code-vocab.json").read_text())
    lines = (folder / "code-merges.txt").read_text().split("\n")[1:-1]
    rank = {tuple(line.split()): number for number, line in enumerate(lines)}
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    ids = []
    for word in regex.findall(pattern, text):
        pieces = [CHARACTER_OF_BYTE[byte] for byte in word.encode()]
        while len(pieces) > 1:
            best = min(pairwise(pieces), key=lambda pair: rank.get(pair, len(rank)))
            if best not in rank:
                break
            merged, place = [], 0
            while place < len(pieces):
                width = 2 if tuple(pieces[place : place + 2]) == best else 1
                merged.append("".join(pieces[place : place + width]))
                place += width
            pieces = merged
        ids += [vocabulary.get(piece, 0) for piece in pieces]
    return ids


def test_polycoders_golden_ids(polycoder: Path) -> None:
    tokenizer = load(polycoder)
    assert tokenizer.encode(GOLDEN_TEXT) == GOLDEN_IDS
    assert tokenizer.encode_batch(["", GOLDEN_TEXT]) == [[], GOLDEN_IDS]
    assert (tokenizer.vocab_size, tokenizer.eod, tokenizer.num_missing_bytes) == (50257, 0, 14)


def test_the_first_rule_makes_two_spaces_one_token(polycoder: Path) -> None:
    # Unless it is the last of a run, which GPT-2's pattern leaves to the word behind it.
    assert load(polycoder).encode("    x") == [209, 209, 209, 754]
    assert load(polycoder, "auto").encode("     x") == [246, 754]
    assert load(polycoder).encode("\n\n\tx") == [188, 188, 187, 90]
    assert load(polycoder).encode("\t\n") == [7418]  # one of 48 tokens that end in a line end


@pytest.mark.parametrize("seed", range(3))
def test_ids_equal_the_algorithms_definition(polycoder: Path, seed: int) -> None:
    source = Path(json.__file__).read_text()
    generator = random.Random(seed)
    start = generator.randrange(len(source) - 3000)
    odd = "".join(generator.choices("aé日 \t\n\r'()<|>endoftext  0½🙂\u2028\xa0\x00\x7f", k=500))
    for text in (source[start : start + 3000], odd):
        assert load(polycoder).encode(text) == slow_bpe(polycoder, text)


def test_a_special_token_in_the_text_is_plain_text(polycoder: Path) -> None:
    tokenizer = load(polycoder)
    ids = tokenizer.encode("<|endoftext|>")
    assert ids == slow_bpe(polycoder, "<|endoftext|>")
    assert tokenizer.eod not in ids
    assert tokenizer.decode(ids) == "<|endoftext|>"


@pytest.mark.parametrize("header", ["drop_first_line", "auto"])
def test_extended_bytes_get_ids_behind_the_vocabulary(polycoder: Path, header: str) -> None:
    tokenizer = load(polycoder, header, "extend")
    assert tokenizer.vocab_size == 50271
    missing = [13, 0xC0, 0xC1, *range(0xF5, 0x100)]
    assert [tokenizer.encode_bytes(bytes([byte])) for byte in missing] == [[50257 + i] for i in range(14)]
    text = "if x:\n    return 'é🙂'\n"
    assert tokenizer.encode(text) == load(polycoder, header).encode(text)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_extended_vocabulary_is_lossless_on_any_bytes(polycoder: Path, data: bytes) -> None:
    tokenizer = load(polycoder, "auto", "extend")
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_bytes_and_text_agree_where_the_bytes_are_text(polycoder: Path) -> None:
    tokenizer = load(polycoder)
    assert tokenizer.encode_bytes(GOLDEN_TEXT.encode()) == GOLDEN_IDS
    assert tokenizer.encode_bytes(b"x\xffy") == [*tokenizer.encode("x"), 0, *tokenizer.encode("y")]


def test_lone_surrogates_are_encoded_as_the_bytes_they_stand_for(polycoder: Path) -> None:
    tokenizer = load(polycoder, "auto", "extend")
    escaped = b"a\xffb".decode("utf-8", "surrogateescape")
    assert tokenizer.decode_bytes(tokenizer.encode(escaped)) == b"a\xffb"
    assert tokenizer.decode_bytes(tokenizer.encode("\ud800")) == b"\xed\xa0\x80"


def test_ids_without_meaning_decode_to_a_replacement_character(polycoder: Path) -> None:
    tokenizer = load(polycoder)
    assert tokenizer.decode([754, 50257, 50303, -1]) == " x\ufffd\ufffd\ufffd"
    assert tokenizer.decode([0]) == "<|endoftext|>"
    assert tokenizer.decode(load(polycoder, missing_bytes="extend").encode_bytes(b"\xff")) == "\ufffd"


def test_the_fingerprint_tells_readings_apart(polycoder: Path) -> None:
    fingerprint = load(polycoder).fingerprint()
    assert fingerprint == {
        "type": "GPT2BPETokenizer",
        "vocab_sha256": "b549c3470cc0c7adcaabeda49145aeb3d7a06213334da8e15ff588ba8a76d70e",
        "merges_sha256": "e0c2172461969a113734d4c791eafa187b1e911f590cd393e6bc09764b31dacc",
        "merges_header": "drop_first_line",
        "missing_bytes": "eod",
        "vocab_size": 50257,
    }
    assert load(polycoder, "auto").fingerprint() == {**fingerprint, "merges_header": "auto"}


def write_pair(folder: Path, vocabulary: object, merges: str | bytes) -> TokenizerConfig:
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_bytes(merges if isinstance(merges, bytes) else merges.encode())
    return TokenizerConfig(vocab_file=str(folder / "vocab.json"), merge_file=str(folder / "merges.txt"))


SMALL = {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3, "aba": 4}


def test_how_the_first_and_last_lines_are_read(tmp_path: Path) -> None:
    def rules(merges: str, header: str) -> tuple[list[int], str]:
        section = write_pair(tmp_path, SMALL, merges).model_copy(update={"merges_header": header})
        tokenizer = build_tokenizer(section)
        return tokenizer.encode("aba"), tokenizer.fingerprint()["merges_header"]

    headed = "#version: 0.2\na b\nab a\n"
    assert rules(headed, "drop_first_line") == ([4], "present")
    assert rules(headed, "auto") == ([4], "present")
    assert rules("a b\nab a\n", "drop_first_line") == ([1, 2, 1], "drop_first_line")
    assert rules("a b\nab a\n", "auto") == ([4], "auto")
    assert rules("a b\r\nab a\r\n", "auto") == ([4], "auto")
    # GPT-NeoX takes what follows the last line end for nothing, so a rule without one is lost.
    assert rules("#version: 0.2\na b\nab a", "drop_first_line") == ([3, 1], "drop_first_line")
    assert rules("#version: 0.2\na b\nab a", "auto") == ([4], "auto")


@pytest.mark.parametrize(
    ("vocabulary", "merges", "message"),
    [
        (SMALL, "#version\na c\n", "1 of its 1 rules use or make pieces that the vocabulary lacks"),
        (SMALL, "#version\na b\nb a\n", "the first: 'b a'"),
        (SMALL, "#version\na b c\n", "merges.txt:2: a rule is two pieces"),
        (SMALL, b"#version\n\xff b\n", "merges.txt is not UTF-8"),
        ({"a": 1}, "#version\n", "has no <|endoftext|>"),
        ({"a": 1, "b": 1}, "#version\n", "one id to several pieces"),
        ({"a": "1"}, "#version\n", "not a vocabulary"),
        ([1, 2], "#version\n", "not a vocabulary"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, vocabulary: object, merges: str | bytes, message: str) -> None:
    with pytest.raises(VocabularyError, match=r"vocab\.json|merges\.txt") as raised:
        build_tokenizer(write_pair(tmp_path, vocabulary, merges))
    assert message in str(raised.value)


def test_a_missing_vocabulary_says_where_polycoders_is(tmp_path: Path) -> None:
    section = TokenizerConfig(vocab_file=str(tmp_path / "code-vocab.json"), merge_file="x")
    with pytest.raises(VocabularyError, match=r"code-vocab\.json.*No such file") as raised:
        build_tokenizer(section)
    assert f"tools/download_checkpoint.py vocab --output {tmp_path}\n" in str(raised.value)
    with pytest.raises(VocabularyError, match=r"needs the key vocab_file(.|\n)*tools/train_tokenizer\.py"):
        build_tokenizer(TokenizerConfig())
    (tmp_path / "vocab.json").write_text("{")
    (tmp_path / "merges.txt").write_text("#version\n")
    with pytest.raises(VocabularyError, match="is not JSON"):
        build_tokenizer(
            TokenizerConfig(vocab_file=str(tmp_path / "vocab.json"), merge_file=str(tmp_path / "merges.txt"))
        )


def test_an_unknown_type_is_refused_by_name() -> None:
    with pytest.raises(UnknownPartError, match="did you mean GPT2BPETokenizer"):
        build_tokenizer(TokenizerConfig(tokenizer_type="GPT2BPETokeniser"))
