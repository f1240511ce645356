"""Small models trained on real code, as stored models, and how another engine's greedy choices are compared."""

from __future__ import annotations

import functools
import inspect
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from megatron.neox.config import ModelConfig
from megatron.neox.conversion.check import model_of
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import PlainModel, plain_model
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.tokenizers import HFTokenizer, Tokenizer
from megatron.neox.tokenizers.train import train_vocabulary, write_vocabulary
from tests.tiny_models import tiny_config

NUM_TOKENS = 128
PROMPTS = (
    "def wrap(text, width=70, **kwargs):\n",
    "    for line in lines:\n        if",
    "class TextWrapper:\n    ",
    "import re\n\n# ",
    "        while chunks:\n            l = len(chunks[-1])\n",
)

_SIZES = {
    "num_layers": 3, "hidden_size": 96, "num_attention_heads": 4, "padded_vocab_size": 1024,
    "seq_length": 256, "max_position_embeddings": 256,
}  # fmt: skip
_LLAMA = {
    "norm": "rmsnorm", "rms_norm_epsilon": 1e-5, "activation": "swiglu", "num_kv_heads": 2,
    "intermediate_size": 256, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False,
}  # fmt: skip
ARCHITECTURES = {
    "sequential": {"activation": "gelu_tanh"},
    "parallel": {"activation": "gelu_tanh", "gpt_j_residual": True, "rotary_pct": 0.25},
    "gpt2": {
        "activation": "gelu_tanh", "pos_emb": "learned", "no_weight_tying": False,
        "scale_attn_by_inverse_layer_idx": True,
    },
    "llama": _LLAMA,
}  # fmt: skip


@dataclass(frozen=True)
class TrainedModel:
    """A model in memory, and as what the layouts write."""

    stored: StoredModel
    net: PlainModel
    tokenizer: Tokenizer

    def greedy(self, prompt: list[int]) -> tuple[list[int], list[float]]:
        """The likeliest continuation, and by how much each of its logits is above the next best."""
        parallel = TensorParallel.single()
        cache = KeyValueCache(1, len(prompt) + NUM_TOKENS, self.stored.model, parallel)
        fed, ids, margins = prompt, [], []
        with torch.inference_mode():
            for _ in range(NUM_TOKENS):
                logits = self.net(torch.tensor([fed]), cache=cache)[-1, 0, : self.tokenizer.vocab_size]
                best = logits.topk(2)
                fed = [int(best.indices[0])]
                ids += fed
                margins.append(float(best.values[0] - best.values[1]))
        return ids, margins


@functools.cache
def code_tokenizer() -> Tokenizer:
    """A vocabulary of 1000 pieces, learned from a module of the standard library."""
    with tempfile.TemporaryDirectory() as folder:
        write_vocabulary(train_vocabulary([_text()], vocab_size=1000), Path(folder))
        return HFTokenizer(vocab_file=str(Path(folder) / "tokenizer.json"))


def _text() -> str:
    return inspect.getsource(textwrap)


def stored_model(config: ModelConfig, net: PlainModel) -> StoredModel:
    """A model in memory as a stored one; its tensors are not to be changed."""
    layers = {number: dict(layer.state_dict()) for number, layer in net.numbered_layers().items()}
    return StoredModel("in memory", Path("memory"), config, None, layers.__getitem__)


def random_model(*, dtype: torch.dtype = torch.float32, **keys: object) -> StoredModel:
    """Two layers of random weights, biases among them."""
    config = tiny_config(**{"padded_vocab_size": 1024, **keys})
    net = untrained(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.2)
    return stored_model(config, net.to(dtype))


def in_memory(stored: StoredModel, tokenizer: Tokenizer) -> TrainedModel:
    """Our own model with a stored one's weights."""
    return TrainedModel(stored, model_of(stored), tokenizer)


def untrained(config: ModelConfig) -> PlainModel:
    """A plain model as it is initialised."""
    torch.manual_seed(0)
    plans = build_layers(config, padded_vocab_size=config.padded_vocab_size, parallel=TensorParallel.single())
    return plain_model(plans)


@functools.cache
def trained_model(name: str) -> TrainedModel:
    """One of ARCHITECTURES, trained until it half knows 1500 tokens: its choices are varied and often narrow."""
    config = tiny_config(**{**_SIZES, **ARCHITECTURES[name]})
    net = untrained(config)
    tokenizer = code_tokenizer()
    ids = torch.tensor(tokenizer.encode(_text())[:1500])
    optimizer = torch.optim.AdamW(net.parameters(), lr=6e-3, betas=(0.9, 0.95))
    num_steps = 120
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 10) * (1 - 0.9 * step / num_steps)
    )
    for _ in range(num_steps):
        starts = torch.randint(len(ids) - 65, (8,))
        batch = torch.stack([ids[start : start + 65] for start in starts])  # [b, s + 1]
        loss = F.cross_entropy(net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].t().flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return TrainedModel(stored_model(config, net.eval()), net, tokenizer)


@dataclass
class Comparison:
    """How an engine's greedy choices relate to ours."""

    num_equal: int = 0
    widest_difference: float = 0.0  # largest margin of ours at which the engine chose otherwise

    def __str__(self) -> str:
        total = NUM_TOKENS * len(PROMPTS)
        return f"{self.num_equal} of {total} ids equal, widest margin of another choice {self.widest_difference:.2g}"


def compare_greedy(
    model: TrainedModel, continue_greedily: Callable[[list[int], int], list[int]]
) -> Comparison:
    """Compare all positions: where the engine chooses otherwise it is put back on our path.

    Args:
        continue_greedily: from ids, and how many to add, to the engine's ids; fewer where it ends a document.
    """
    found = Comparison()
    for text in PROMPTS:
        prompt = model.tokenizer.encode(text)
        ours, margins = model.greedy(prompt)
        place = 0
        while place < NUM_TOKENS:
            theirs = continue_greedily(prompt + ours[:place], NUM_TOKENS - place)
            if len(theirs) < NUM_TOKENS - place:
                theirs = [*theirs, model.tokenizer.eod]
            for token in theirs:
                place += 1
                if token != ours[place - 1]:
                    found.widest_difference = max(found.widest_difference, margins[place - 1])
                    break
                found.num_equal += 1
    return found
