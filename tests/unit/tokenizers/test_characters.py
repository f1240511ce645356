from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from megatron.neox.config import TokenizerConfig
from megatron.neox.tokenizers import build_tokenizer

TOKENIZER = build_tokenizer(TokenizerConfig(tokenizer_type="CharLevelTokenizer"))


def test_ids_are_utf8_bytes() -> None:
    assert TOKENIZER.encode("aé\n") == [97, 0xC3, 0xA9, 10]
    assert TOKENIZER.encode_batch(["a", ""]) == [[97], []]
    assert (TOKENIZER.vocab_size, TOKENIZER.eod) == (512, 0)
    assert TOKENIZER.decode([97, 300, 0xFF]) == "a\ufffd\ufffd"
    assert TOKENIZER.fingerprint() == {"type": "CharLevelTokenizer", "vocab_size": 512}
    assert TOKENIZER.encode("\udcff") == [255]


@given(data=st.binary())
def test_any_bytes_come_back(data: bytes) -> None:
    assert TOKENIZER.decode_bytes(TOKENIZER.encode_bytes(data)) == data
