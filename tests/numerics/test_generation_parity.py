"""Greedy decoding against transformers' generate on the same weights."""

from __future__ import annotations

import pytest
import torch

from megatron.neox.config import GenerationConfig
from megatron.neox.generation.decode import generate
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.numerics.transformers_twin import twin_of
from tests.tiny_models import TinyLanguageModel, tiny_config

TOKENIZER = CharLevelTokenizer()
PROMPTS = ["def f(x):", "x", "import os\nimport sys\n", "while", "for i in range(10)"]


@pytest.mark.parametrize("rotary_pct", [0.25, 1.0])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_greedy_ids_equal_transformers(rotary_pct: float, parallel: bool, recompute: bool) -> None:
    config = tiny_config(rotary_pct=rotary_pct, gpt_j_residual=parallel)
    for seed in range(3):
        model = TinyLanguageModel(config, seed=seed)
        settings = GenerationConfig(maximum_tokens=25, generation_batch_size=4, recompute=recompute)
        ours = [list(record.token_ids) for record in generate(model, TOKENIZER, PROMPTS, settings)]
        twin = twin_of(model)
        assert ours == [continuation(twin, prompt) for prompt in PROMPTS]
        assert len(ours[1]) > 1


def continuation(twin: torch.nn.Module, prompt: str) -> list[int]:
    ids = torch.tensor([TOKENIZER.encode(prompt)])
    out = twin.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=25, do_sample=False)
    new = out[0, ids.shape[1] :].tolist()
    return new[:-1] if new[-1] == TOKENIZER.eod else new
