from __future__ import annotations

import logging
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Engine
from tokenizers.models import WordLevel

from megatron.neox.config import TokenizerConfig
from megatron.neox.errors import NeoXError, VocabularyError
from megatron.neox.tokenizers import Tokenizer, build_tokenizer
from megatron.neox.tokenizers.engines import GigatokenEncoder, PlainEncoder, batch_encoder, check_agreement
from megatron.neox.tokenizers.train import train_vocabulary, write_vocabulary

LIBRARY = Path(sysconfig.get_path("stdlib"))
SOURCES = [path.read_bytes().decode("utf-8", "replace") for path in sorted(LIBRARY.glob("*.py"))[:40]]
CRLF = [text.replace("\n", "\r\n") for text in SOURCES[:5]]


def vocabulary(polycoder: Path, missing_bytes: str, merges_header: str) -> Tokenizer:
    section = TokenizerConfig(
        vocab_file=str(polycoder / "code-vocab.json"),
        merge_file=str(polycoder / "code-merges.txt"),
        missing_bytes=missing_bytes,  # pyright: ignore[reportArgumentType]
        merges_header=merges_header,  # pyright: ignore[reportArgumentType]
    )
    return build_tokenizer(section)


@pytest.mark.parametrize("merges_header", ["drop_first_line", "auto"])
@pytest.mark.parametrize("missing_bytes", ["eod", "extend"])
def test_gigatoken_gives_the_ids_of_polycoders_vocabulary(
    polycoder: Path, missing_bytes: str, merges_header: str
) -> None:
    tokenizer = vocabulary(polycoder, missing_bytes, merges_header)
    texts = [*SOURCES[:12], *CRLF, "", "\r", "x\ry", "<|endoftext|>"]
    fast, plain = GigatokenEncoder(tokenizer).encode(texts), PlainEncoder(tokenizer).encode(texts)
    for ours, theirs in zip(fast, plain, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert (0 in fast[0]) == (missing_bytes == "eod")  # CR, which the vocabulary lacks


def test_gigatoken_gives_the_ids_of_a_vocabulary_of_ours(tmp_path: Path) -> None:
    write_vocabulary(train_vocabulary(SOURCES, vocab_size=2000), tmp_path)
    tokenizer = build_tokenizer(
        TokenizerConfig(tokenizer_type="HFTokenizer", vocab_file=str(tmp_path / "tokenizer.json"))
    )
    encoder = batch_encoder(tokenizer)
    assert encoder.name == "gigatoken"
    texts = [*SOURCES, *CRLF, "<|endoftext|>"]
    for ours, theirs in zip(encoder.encode(texts), PlainEncoder(tokenizer).encode(texts), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nothing_and_lone_surrogates(polycoder: Path) -> None:
    tokenizer = vocabulary(polycoder, "extend", "auto")
    encoder = GigatokenEncoder(tokenizer)
    ids, sizes = encoder.encode([])
    assert (len(ids), len(sizes)) == (0, 0)
    ids, sizes = encoder.encode(["a", "\udcff"])
    assert ids.tolist() == [*tokenizer.encode("a"), *tokenizer.encode_bytes(b"\xff")]


def test_what_gigatoken_cannot_run_is_run_by_the_tokenizer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Engine(WordLevel({"a": 0, "<eos>": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    words = build_tokenizer(
        TokenizerConfig(tokenizer_type="HFTokenizer", vocab_file=str(tmp_path / "tokenizer.json"))
    )
    with caplog.at_level(logging.INFO):
        assert batch_encoder(words).name == "tokenizer"
    assert "without gigatoken, which is much faster: gigatoken runs BPE vocabularies" in caplog.text
    with pytest.raises(VocabularyError, match="--engine tokenizer runs this one"):
        batch_encoder(words, "gigatoken")
    characters = build_tokenizer(TokenizerConfig(tokenizer_type="CharLevelTokenizer"))
    with pytest.raises(VocabularyError, match="cannot run CharLevelTokenizer"):
        batch_encoder(characters, "gigatoken")


def test_other_ids_on_the_data_are_an_error(polycoder: Path) -> None:
    encoder = GigatokenEncoder(vocabulary(polycoder, "eod", "auto"))
    check_agreement(encoder, SOURCES[:2])
    # Another vocabulary's rules stand for a data set on which the two libraries part ways.
    encoder._plain = PlainEncoder(vocabulary(polycoder, "eod", "drop_first_line"))
    with pytest.raises(NeoXError, match="--engine tokenizer is slower, and right"):
        check_agreement(encoder, SOURCES[:2])
