from __future__ import annotations

import logging
import platform
import random
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Engine
from tokenizers.models import WordLevel

from megatron.neox.config import TokenizerConfig
from megatron.neox.errors import NeoXError, VocabularyError
from megatron.neox.memory import resident_bytes, trim_heap
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


@pytest.mark.parametrize("limit", ["text", "growth"])
def test_an_engine_that_was_built_anew_gives_the_same_ids(polycoder: Path, limit: str) -> None:
    """Ever new words, of which each makes it grow."""
    if limit == "growth" and resident_bytes() == 0:
        pytest.skip("the system does not tell how large a process is")
    tokenizer, order = vocabulary(polycoder, "eod", "drop_first_line"), random.Random(1)
    limits = {"most_text": 1 << 18} if limit == "text" else {"growth": 1 << 20, "least_text": 1 << 17}
    encoder = GigatokenEncoder(tokenizer, **limits)
    one_engine, plain = GigatokenEncoder(tokenizer), PlainEncoder(tokenizer)
    for number in range(12):
        texts = ["\n".join(order.randbytes(6).hex() + " = x\r" for _ in range(2000)) for _ in range(3)]
        ids, sizes = encoder.encode(texts)
        others = [one_engine, plain] if number % 4 == 0 else [one_engine]
        for expected_ids, expected_sizes in (other.encode(texts) for other in others):
            np.testing.assert_array_equal(ids, expected_ids)
            np.testing.assert_array_equal(sizes, expected_sizes)
    assert (
        (encoder.num_builds, one_engine.num_builds) == (4, 1) if limit == "text" else encoder.num_builds >= 3
    )


def test_what_is_held_grows_with_what_is_taken() -> None:
    if not (before := resident_bytes()):
        pytest.skip("the system does not tell how large a process is")
    # Memory that was free in the process already may be taken first, so the half of it is asked for.
    taken, half = b"x" * (256 << 20), 128 << 20
    assert resident_bytes() > before + half
    del taken
    trim_heap()
    assert resident_bytes() < before + half


_LARGE_BLOCKS = """
import sys
from megatron.neox.memory import resident_bytes, spare_large_blocks
before = resident_bytes()
if sys.argv[1] == "spare":
    spare_large_blocks()
bytearray(30 << 20)  # freed at once: from here on glibc keeps blocks of that size
blocks = [bytearray(4 << 20) for _ in range(16)]
del blocks[:-1]  # what is below the last one cannot be cut off
print(resident_bytes() - before)
"""


def test_large_blocks_go_back_to_the_system_at_once() -> None:
    if not resident_bytes() or platform.libc_ver()[0] != "glibc":
        pytest.skip("the system's malloc is not glibc's, or it does not tell how large a process is")
    kept, spared = (
        int(subprocess.check_output([sys.executable, "-c", _LARGE_BLOCKS, how])) for how in ("keep", "spare")
    )
    assert kept > 32 << 20  # else there is nothing to mend
    assert spared < 8 << 20, spared


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
