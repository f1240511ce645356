"""GGUF files of trained models in llama.cpp itself (the package xllamacpp): the same ids, the same choices."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import textwrap
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Tokenizers
from tokenizers import pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from megatron.neox.conversion.quantization_check import check_quantization
from megatron.neox.layouts import gguf
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.tokenizers import CharLevelTokenizer, GPT2BPETokenizer, HFTokenizer, Tokenizer
from tests.engine_models import (
    ARCHITECTURES,
    TrainedModel,
    code_tokenizer,
    compare_greedy,
    in_memory,
    random_model,
    trained_model,
)

xllamacpp = pytest.importorskip("xllamacpp")

log = logging.getLogger(__name__)

# llama.cpp looks gelu up in a table of fp16 values (11 bits), which moves the logits of these models by up to 0.0016,
# so that two of them may change places below 0.0032. Nothing in its llama is rounded below fp32; only the order of
# sums differs there (0.00002).
MARGINS = {"sequential": 0.005, "parallel": 0.005, "gpt2": 0.005, "llama": 1e-4}
# With 8 bits and fewer, llama.cpp rounds what it multiplies the weights with to 8 bits too, which we do not.
QUANTISED_MARGIN = 0.1
# Architectures that differ from the trained ones, with random weights.
OTHERS = {
    "tied": {"no_weight_tying": False},
    "grouped": {"num_kv_heads": 2, "use_bias_in_mlp": False},
    "one norm for both branches": {"gpt_j_residual": True, "gpt_j_tied": True, "use_bias_in_norms": False},
    "llama with biases": {"norm": "rmsnorm", "rms_norm_epsilon": 1e-5, "activation": "swiglu"},
    "gpt2 untied": {"pos_emb": "learned", "rotary_emb_base": 500.0},
    "base": {"rotary_emb_base": 500.0},
}

CODE = (
    "def f(x):\n    if x:\n        return x + 1\n\t\treturn 2\n\n\n# naïve — ünïcode  \n  a1b22 = 'it''s'  \n"
)


class LlamaCpp:
    """A llama.cpp server on this machine's loopback."""

    def __init__(self, path: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_gpu_layers = 0
        params.n_parallel = 1
        params.warmup = False
        params.verbosity = -1
        params.fit_params = False
        for threads in (params.cpuparams, params.cpuparams_batch):
            threads.n_threads = 1  # more of them would spin where other tests run beside this
        # Keys and values as the weights are, so that nothing but the model's own arithmetic is compared.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            self._server.listening_address + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def tokens(self, text: str) -> list[int]:
        """Ids of a text; special tokens written out in it are plain text."""
        return self._post("/tokenize", {"content": text, "parse_special": False, "add_special": True})[
            "tokens"
        ]

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """The likeliest `count` ids after `ids`, fewer where a document ends."""
        settings = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "return_tokens": True}
        return self._post("/completion", {"prompt": ids, "n_predict": count, **settings})["tokens"][:count]


@pytest.fixture(scope="module", autouse=True)
def no_proxy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        yield


@pytest.fixture(autouse=True)
def quiet_llama_cpp(capfd: pytest.CaptureFixture[str]) -> None:
    """llama.cpp writes to the standard error as it likes."""


def written(model: TrainedModel, path: Path, quantization: str | None = None) -> StoredModel:
    gguf.write_file(model.stored, path, tokenizer=model.tokenizer, quantization=quantization)
    return gguf.open_file(path)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_llama_cpp_chooses_the_ids_that_we_choose(name: str, tmp_path: Path) -> None:
    model = trained_model(name)
    written(model, tmp_path / "model.gguf")
    engine = LlamaCpp(tmp_path / "model.gguf")
    assert engine.tokens(CODE) == model.tokenizer.encode(CODE)
    comparison = compare_greedy(model, engine.greedy)
    log.info("%s: %s", name, comparison)
    assert comparison.widest_difference <= MARGINS[name], comparison
    assert comparison.num_equal > 600, comparison


@pytest.mark.parametrize("quantization", ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_llama_cpp_runs_quantised_weights_as_we_run_them_dequantised(
    quantization: str, tmp_path: Path
) -> None:
    trained = trained_model("sequential")
    stored = written(trained, tmp_path / "model.gguf", quantization)
    known = Path(textwrap.__file__)
    check = check_quantization(trained.stored, stored, tokenizer=trained.tokenizer, sample=known)
    log.info("%s: %s", quantization, check)
    assert abs(check.after / check.before - 1) < (0.02 if quantization in ("f16", "bf16", "q8_0") else 0.2)
    comparison = compare_greedy(
        in_memory(stored, trained.tokenizer), LlamaCpp(tmp_path / "model.gguf").greedy
    )
    log.info("%s: %s", quantization, comparison)
    assert comparison.widest_difference <= QUANTISED_MARGIN, comparison


@pytest.mark.parametrize("name", OTHERS)
def test_llama_cpp_runs_other_architectures(name: str, tmp_path: Path) -> None:
    sizes = {"max_position_embeddings": 160, "activation": "gelu_tanh", "padded_vocab_size": 1000}
    stored = random_model(**{**sizes, **OTHERS[name]})
    model = in_memory(stored, code_tokenizer())
    written(model, tmp_path / "model.gguf")
    comparison = compare_greedy(model, LlamaCpp(tmp_path / "model.gguf").greedy)
    assert comparison.widest_difference <= 0.005, comparison
    assert comparison.num_equal > 600, comparison


def test_llama_cpp_reads_polycoders_vocabulary_as_neox_did(polycoder: Path, tmp_path: Path) -> None:
    tokenizer = GPT2BPETokenizer(
        vocab_file=str(polycoder / "code-vocab.json"), merge_file=str(polycoder / "code-merges.txt")
    )
    gguf.write_file(random_model(padded_vocab_size=50304), tmp_path / "model.gguf", tokenizer=tokenizer)
    engine = LlamaCpp(tmp_path / "model.gguf")
    assert engine.tokens(CODE) == tokenizer.encode(CODE)
    module = inspect.getsource(argparse)
    assert engine.tokens(module) == tokenizer.encode(module)
    assert engine.tokens("a<|endoftext|>b") == tokenizer.encode("a<|endoftext|>b")
    # The vocabulary has no token for CR: GPT-NeoX has id 0, llama.cpp drops it.
    assert tokenizer.encode("x\r\ny") == [90, 0, 188, 91]
    assert engine.tokens("x\r\ny") == [90, 188, 91]


def test_llama_cpp_reads_bytes_as_tokens(tmp_path: Path) -> None:
    tokenizer: Tokenizer = CharLevelTokenizer()
    gguf.write_file(random_model(padded_vocab_size=512), tmp_path / "model.gguf", tokenizer=tokenizer)
    assert LlamaCpp(tmp_path / "model.gguf").tokens(CODE) == tokenizer.encode(CODE)


def test_llama_cpp_splits_single_digits_as_starcoder(tmp_path: Path) -> None:
    engine = Tokenizers(BPE())
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    engine.pre_tokenizer = pre_tokenizers.Sequence(splits)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    module = inspect.getsource(argparse)
    engine.train_from_iterator([module, "1234 567 " * 99], trainer)
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = HFTokenizer(vocab_file=str(tmp_path / "tokenizer.json"))
    gguf.write_file(random_model(), tmp_path / "model.gguf", tokenizer=tokenizer)
    text = module + CODE + " 1234 567x89 ٣٤ ½\n"
    assert LlamaCpp(tmp_path / "model.gguf").tokens(text) == tokenizer.encode(text)
