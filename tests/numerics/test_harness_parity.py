"""Our model in lm-evaluation-harness against its own `hf` model with the same weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from megatron.neox.config import EvaluationConfig
from megatron.neox.evaluation.harness import Harness
from megatron.neox.evaluation.harness_model import SharedWork
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import HFTokenizer
from megatron.neox.tokenizers.byte_level import CHARACTER_OF_BYTE
from tests.harness_tasks import write_tasks
from tests.numerics.transformers_twin import twin_of
from tests.tiny_models import VOCAB_SIZE, TinyLanguageModel

huggingface = pytest.importorskip(
    "lm_eval.models.huggingface", reason="lm-eval's own model needs accelerate", exc_type=ImportError
)

NUMBER = re.compile(r"-?\d+\.\d+(e-?\d+)?")
NAMES = ["tiny_choice", "tiny_rolling", "tiny_until"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json of bytes, as many ids as the tiny model has."""
    ids = {"<|endoftext|>": 0}
    ids |= {sign: byte or 256 for byte, sign in enumerate(CHARACTER_OF_BYTE)}
    ids |= {f"<{number}>": number for number in range(257, VOCAB_SIZE)}
    made = tokenizers.Tokenizer(models.BPE(ids, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    made.save(str(path))
    return path


@pytest.fixture(scope="module")
def model() -> TinyLanguageModel:
    return TinyLanguageModel(scale=4.0)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_kind_of_request_is_answered_as_hf_does(
    model: TinyLanguageModel, vocabulary: Path, tmp_path: Path, batch_size: int
) -> None:
    folder = write_tasks(tmp_path / "tasks", *NAMES)
    settings = EvaluationConfig(
        eval_tasks=NAMES, eval_include_path=[str(folder)], eval_batch_size=batch_size, eval_num_fewshot=1
    )
    ours, theirs = Harness(settings), Harness(settings)
    for harness in (ours, theirs):
        assert harness.choose() == ([], NAMES)
        harness.load(NAMES)
    found = ours.run(SharedWork(model, HFTokenizer(vocab_file=str(vocabulary)), Workers(), settings))
    end = "<|endoftext|>"
    theirs_tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(vocabulary), eos_token=end, pad_token=end)
    twin = huggingface.HFLM(
        pretrained=twin_of(model), tokenizer=theirs_tokenizer, batch_size=batch_size, device="cpu"
    )
    expected = theirs.run_with(twin)
    for name in NAMES:
        assert len(found["samples"][name]) == len(expected["samples"][name]) > 0
        for mine, other in zip(found["samples"][name], expected["samples"][name]):
            assert mine["arguments"] == other["arguments"]
            assert mine["doc_hash"] == other["doc_hash"]
            assert numbers(mine["resps"]) == pytest.approx(numbers(other["resps"]), rel=1e-5)
            assert others(mine["resps"]) == others(other["resps"])
    for name in NAMES:
        for metric, value in expected["results"][name].items():
            assert found["results"][name][metric] == (
                pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            )


def parts(answers: Any) -> list[str]:
    """Nested lists and tuples, flat."""
    if isinstance(answers, list | tuple):
        return [part for answer in answers for part in parts(answer)]
    return [str(answers)]


def numbers(answers: Any) -> list[float]:
    return [float(part) for part in parts(answers) if NUMBER.fullmatch(part)]


def others(answers: Any) -> list[str]:
    return [part for part in parts(answers) if not NUMBER.fullmatch(part)]
