"""Exported folders of trained models in CTranslate2 itself: the same logits, the same choices."""

from __future__ import annotations

import json
import logging
import textwrap
from pathlib import Path

import numpy
import pytest
import torch

from megatron.neox.conversion.quantization_check import check_quantization
from megatron.neox.layouts.ctranslate2 import QUANTIZATIONS, write_folder
from megatron.neox.tokenizers import GPT2BPETokenizer
from tests.engine_models import (
    ARCHITECTURES,
    PROMPTS,
    TrainedModel,
    code_tokenizer,
    compare_greedy,
    in_memory,
    random_model,
    trained_model,
)

engine = pytest.importorskip("ctranslate2")

log = logging.getLogger(__name__)

# Both compute in fp32; only the order of sums differs.
MARGIN = 1e-4
OTHERS = {
    "tied": {"no_weight_tying": False, "activation": "gelu"},
    "grouped": {"num_kv_heads": 2, "use_bias_in_mlp": False, "rotary_pct": 0.5},
    "one norm for both branches": {"gpt_j_residual": True, "gpt_j_tied": True, "use_bias_in_norms": False},
    "parallel with learned positions": {"gpt_j_residual": True, "pos_emb": "learned"},
    "llama with biases": {"norm": "rmsnorm", "rms_norm_epsilon": 1e-5, "activation": "swiglu"},
    "geglu": {"activation": "geglu", "rotary_emb_base": 500.0},
    "relu": {"activation": "relu", "scale_attn_by_inverse_layer_idx": True},
}


class CTranslate2:
    """A folder in the engine, in fp32 unless its weights are integers."""

    def __init__(self, folder: Path, compute_type: str = "default") -> None:
        self._generator = engine.Generator(
            str(folder), device="cpu", compute_type=compute_type, intra_threads=1
        )
        self._pieces = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """The likeliest `count` ids after `ids`, fewer where a document ends."""
        (result,) = self._generator.generate_batch(
            [[self._pieces[number] for number in ids]],
            max_length=count,
            include_prompt_in_result=False,
            sampling_topk=1,
            beam_size=1,
        )
        return result.sequences_ids[0]

    def logits(self, ids: list[int]) -> torch.Tensor:
        """[s, V]."""
        return torch.from_numpy(numpy.array(self._generator.forward_batch([ids])))[0]


def written(model: TrainedModel, folder: Path, quantization: str | None = None) -> CTranslate2:
    write_folder(model.stored, folder, tokenizer=model.tokenizer, quantization=quantization)
    return CTranslate2(folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ctranslate2_chooses_the_ids_that_we_choose(name: str, tmp_path: Path) -> None:
    model = trained_model(name)
    comparison = compare_greedy(model, written(model, tmp_path / "model").greedy)
    log.info("%s: %s", name, comparison)
    assert comparison.widest_difference <= MARGIN, comparison
    assert comparison.num_equal > 600, comparison


@pytest.mark.parametrize("name", OTHERS)
def test_ctranslate2_computes_our_logits(name: str, tmp_path: Path) -> None:
    sizes = {"max_position_embeddings": 160, "padded_vocab_size": 1024}
    model = in_memory(random_model(**{**sizes, **OTHERS[name]}), code_tokenizer())
    ids = model.tokenizer.encode("".join(PROMPTS))
    theirs = written(model, tmp_path / "model").logits(ids)
    with torch.inference_mode():
        ours = model.net(torch.tensor([ids]))[:, 0]  # [s, V]
    known = model.tokenizer.vocab_size
    torch.testing.assert_close(theirs[:, :known], ours[:, :known], rtol=1e-4, atol=1e-4)
    assert theirs[:, known:].max() < -60000  # what training taught nothing is never generated


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_ctranslate2_runs_quantised_weights(quantization: str, tmp_path: Path) -> None:
    model = trained_model("sequential")
    before = model.stored.read_layer(2)["attention.dense.weight"].clone()
    write_folder(model.stored, tmp_path / "model", tokenizer=model.tokenizer, quantization=quantization)
    check = check_quantization(
        model.stored, tmp_path / "model", tokenizer=model.tokenizer, sample=Path(textwrap.__file__)
    )
    log.info("%s: %s", quantization, check)
    assert abs(check.after / check.before - 1) < 0.02
    assert torch.equal(before, model.stored.read_layer(2)["attention.dense.weight"])


def test_half_precision_weights_and_polycoders_vocabulary_are_taken_as_they_are(
    polycoder: Path, tmp_path: Path
) -> None:
    tokenizer = GPT2BPETokenizer(
        vocab_file=str(polycoder / "code-vocab.json"), merge_file=str(polycoder / "code-merges.txt")
    )
    stored = random_model(padded_vocab_size=50304, dtype=torch.float16)
    model = in_memory(stored, tokenizer)
    engine_model = written(model, tmp_path / "model")
    ids = tokenizer.encode(PROMPTS[0])
    with torch.inference_mode():
        ours = model.net(torch.tensor([ids]))[:, 0, : tokenizer.vocab_size]
    theirs = engine_model.logits(ids)[:, : tokenizer.vocab_size]
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "model" / "model.bin").stat().st_size < 2.1 * sum(
        tensor.numel() for number in stored.layer_numbers for tensor in stored.read_layer(number).values()
    )
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    assert settings["eos_token"] == settings["unk_token"] == "<|endoftext|>"
