"""What a run knows of a vocabulary whose files it was not given."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.config import Config, TokenizerConfig
from megatron.neox.data.tokenize import TokenizeSettings, tokenize
from megatron.neox.errors import DatasetError
from megatron.neox.training.inputs import find_vocabulary
from tests.integration.training_case import TINY


@pytest.fixture
def dataset(polycoder: Path, tmp_path: Path) -> str:
    """Prefix of one document in PolyCoder's vocabulary."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.py").write_text("def f(x):\n    return x\n" * 40)
    tokenizer = TokenizerConfig(
        vocab_file=str(polycoder / "code-vocab.json"), merge_file=str(polycoder / "code-merges.txt")
    )
    settings = TokenizeSettings(
        inputs=[tmp_path / "source"], output_prefix=str(tmp_path / "code"), tokenizer=tokenizer
    )
    return str(tokenize(settings)[0])


def without_vocabulary_files(dataset: str) -> Config:
    keys = {**TINY, "tokenizer_type": "GPT2BPETokenizer", "padded_vocab_size": 50304, "data_path": dataset}
    return Config.from_flat({**keys, "eod_mask_loss": True})


def test_the_end_of_document_is_the_datasets(dataset: str) -> None:
    vocabulary = find_vocabulary(without_vocabulary_files(dataset))
    assert (vocabulary.padded_size, vocabulary.eod) == (50304, 0)
    assert vocabulary.fingerprint["vocab_size"] == 50257


@pytest.mark.parametrize("content", ['{"eod": "x", "tokenizer": {}}', '{"eod": 0, "tokenizer": 5}', "[]"])
def test_a_damaged_record_is_said(dataset: str, content: str) -> None:
    Path(f"{dataset}.json").write_text(content)
    with pytest.raises(DatasetError, match=r"code_text_document\.json is damaged"):
        find_vocabulary(without_vocabulary_files(dataset))
