"""Tiny models of transformers with random weights, in folders with a tokenizer, as other people's models come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

NUM_POSITIONS = 48
_TEXT = "def add(one, two):\n    return one + two\n\n\nclass Pair:\n    first = 1\n    second = 'two'\n" * 3


def save_tokenizer(folder: Path, *, bos: str | None = None, eos: str | None = "<|endoftext|>") -> int:
    """A byte-level BPE of 300 pieces; returns its size."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    marks = [mark for mark in (bos, eos) if mark is not None]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([_TEXT], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos, eos_token=eos)
    wrapped.save_pretrained(folder)
    return len(wrapped)


def random_model(name: str, vocab_size: int, *, scale: float = 0.3, **keys: Any) -> Any:
    """Two layers of gpt2, gpt_neox or llama, in eval mode."""
    torch.manual_seed(3)
    marks: dict[str, Any] = {
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "vocab_size": vocab_size,
        **keys,
    }
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": NUM_POSITIONS,
    }
    if name == "gpt2":
        model: Any = GPT2LMHeadModel(
            GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=NUM_POSITIONS, **marks)
        )
    elif name == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=64, **sizes, **marks))
    else:
        model = LlamaForCausalLM(LlamaConfig(intermediate_size=64, num_key_value_heads=2, **sizes, **marks))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=scale)
    return model.eval()


def save_model(folder: Path, name: str, *, bos: str | None = None, more_rows: int = 0, **keys: Any) -> Path:
    """The folder of a model with its tokenizer; `more_rows` of its embedding mean nothing."""
    size = save_tokenizer(folder, bos=bos)
    random_model(name, size + more_rows, **keys).save_pretrained(folder)
    return folder
