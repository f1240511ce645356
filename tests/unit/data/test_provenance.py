from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from megatron.neox.data.provenance import check_tokenizer
from megatron.neox.errors import DatasetError, VocabularyError

FINGERPRINT = {"type": "GPT2BPETokenizer", "vocab_size": 300, "vocab_sha256": "a" * 64}


def record(prefix: Path, tokenizer: dict[str, object]) -> str:
    Path(f"{prefix}.json").write_text(json.dumps({"tokenizer": tokenizer, "num_documents": 1}))
    return str(prefix)


def test_the_same_tokenizer_passes(tmp_path: Path) -> None:
    check_tokenizer([record(tmp_path / "code", FINGERPRINT)], fingerprint=FINGERPRINT, padded_vocab_size=384)


def test_another_tokenizer_is_refused_with_what_differs(tmp_path: Path) -> None:
    prefix = record(tmp_path / "code", {**FINGERPRINT, "vocab_size": 299})
    with pytest.raises(VocabularyError) as error:
        check_tokenizer([prefix], fingerprint=FINGERPRINT, padded_vocab_size=384)
    assert "another tokenizer than this run's: vocab_size 299 in the dataset, 300 here\n" in str(error.value)
    assert "tools/preprocess_data.py" in str(error.value)


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    prefix = record(tmp_path / "code", FINGERPRINT)
    with pytest.raises(
        VocabularyError, match=r"vocabulary of 300, but padded_vocab_size is 256; give .* 300 rows"
    ):
        check_tokenizer([prefix], fingerprint=None, padded_vocab_size=256)


def test_a_dataset_without_metadata_is_trusted_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = str(tmp_path / "code")
    with caplog.at_level(logging.INFO):
        check_tokenizer([prefix, prefix], fingerprint=FINGERPRINT, padded_vocab_size=384)
    assert caplog.text.count("its tokenizer is taken on trust") == 1


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_metadata_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "code.json").write_text(text)
    with pytest.raises(DatasetError, match=r"code\.json is damaged"):
        check_tokenizer([str(tmp_path / "code")], fingerprint=FINGERPRINT, padded_vocab_size=384)
