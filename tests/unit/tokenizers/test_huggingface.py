from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, pre_tokenizers

from megatron.neox.config import TokenizerConfig
from megatron.neox.errors import VocabularyError
from megatron.neox.tokenizers import build_tokenizer


def build(path: Path) -> object:
    return build_tokenizer(TokenizerConfig(tokenizer_type="HFTokenizer", vocab_file=str(path)))


def test_a_tokenizer_without_bytes_takes_utf8_only(tmp_path: Path) -> None:
    engine = Engine(models.WordLevel({"</s>": 0, "<unk>": 1, "x": 2, "=": 3}, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = build_tokenizer(
        TokenizerConfig(tokenizer_type="HFTokenizer", vocab_file=str(tmp_path / "tokenizer.json"))
    )
    assert (tokenizer.eod, tokenizer.vocab_size) == (0, 4)
    assert tokenizer.encode("x = x") == [2, 3, 2]
    assert tokenizer.encode_bytes(b"x =") == [2, 3]
    assert tokenizer.decode([2, 3, 0]) == "x = </s>"
    assert tokenizer.decode_bytes([2, 3]) == b"x ="
    with pytest.raises(VocabularyError, match="cannot encode what is not UTF-8"):
        tokenizer.encode_bytes(b"\xff")


def test_added_tokens_stand_for_their_own_text(tmp_path: Path) -> None:
    engine = Engine(models.BPE({"x": 0, "Ġ": 1}, []))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    engine.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    engine.add_special_tokens(["<|endoftext|>"])
    engine.add_tokens(["    "])
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = build_tokenizer(
        TokenizerConfig(tokenizer_type="HFTokenizer", vocab_file=str(tmp_path / "tokenizer.json"))
    )
    assert tokenizer.encode("    x x") == [3, 0, 1, 0]
    assert tokenizer.decode_bytes([3, 0, 2]) == b"    x<|endoftext|>"


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(VocabularyError, match=r"tokenizer\.json.*No such file"):
        build(path)
    path.write_text(json.dumps({"a": 0}))
    with pytest.raises(VocabularyError, match=r"is not a tokenizer\.json(.|\n)*GPT2BPETokenizer"):
        build(path)
    Engine(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(VocabularyError, match="has none of the tokens that end documents"):
        build(path)
