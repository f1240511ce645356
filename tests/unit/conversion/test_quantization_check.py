"""Perplexity before and after: our own computation against the definition, and its words."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from megatron.neox.conversion.quantization_check import QuantizationCheck, check_quantization
from megatron.neox.errors import InputError
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.engine_models import in_memory, random_model

BYTES = CharLevelTokenizer()


@pytest.mark.parametrize("keys", [{}, {"no_weight_tying": False, "pos_emb": "learned"}])
def test_perplexity_is_the_definitions(keys: dict[str, object], tmp_path: Path) -> None:
    text = "for i in range(10):\n    print(i)\n"
    (tmp_path / "sample.py").write_text(text)
    stored = random_model(padded_vocab_size=512, **keys)
    check = check_quantization(stored, stored, tokenizer=BYTES, sample=tmp_path / "sample.py")
    ids = torch.tensor([BYTES.encode(text)])
    with torch.inference_mode():
        chances = in_memory(stored, BYTES).net(ids)[:-1, 0].softmax(-1)
    mean = -sum(math.log(chances[place, token]) for place, token in enumerate(ids[0, 1:])) / (len(text) - 1)
    assert check.num_tokens == len(text) - 1
    assert check.before == check.after == pytest.approx(math.exp(mean), rel=1e-4)


def test_long_samples_are_cut_into_windows(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text(
        "x = 1\n" * 16 + "#"
    )  # 97 tokens, of which 48 fit: 47 + 47 are scored
    stored = random_model(padded_vocab_size=512)
    assert check_quantization(stored, stored, tokenizer=BYTES, sample=tmp_path / "sample.py").num_tokens == 94


def test_the_change_is_put_in_words() -> None:
    check = QuantizationCheck("argparse.py", 2040, 16.0, 16.08)
    assert str(check) == "perplexity of 2040 tokens of argparse.py: 16.0000 before, 16.0800 after (+0.50%)"


def test_a_sample_that_cannot_be_scored_is_named(tmp_path: Path) -> None:
    stored = random_model(padded_vocab_size=512)
    with pytest.raises(InputError, match=r"cannot read the sample .*none\.py: No such file"):
        check_quantization(stored, stored, tokenizer=BYTES, sample=tmp_path / "none.py")
    (tmp_path / "one.py").write_text("x")
    with pytest.raises(InputError, match=r"one\.py is too short a sample"):
        check_quantization(stored, stored, tokenizer=BYTES, sample=tmp_path / "one.py")
