"""A model that knows texts by heart: what it has seen the beginning of, it recites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from megatron.neox.tokenizers import CharLevelTokenizer
from tests.tiny_models import TinyLanguageModel, tiny_config


class RecitingModel(TinyLanguageModel):
    """Goes on with the first text that begins as the prompt does, then ends the document; at once where none does."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(tiny_config(seq_length=4096, max_position_embeddings=4096))
        tokenizer = CharLevelTokenizer()
        self.texts = [[*tokenizer.encode(text), tokenizer.eod] for text in texts]

    def new_cache(self, *arguments: Any, **keywords: Any) -> Any:
        return None

    def logits(self, token_ids: Tensor, cache: object = None, *, at: Sequence[int] | None = None) -> Tensor:
        assert at is not None
        logits = torch.zeros(len(token_ids), 1, CharLevelTokenizer().vocab_size)
        for row, (ids, place) in enumerate(zip(token_ids.tolist(), at)):
            begun = ids[: place + 1]
            going_on = (text[len(begun)] for text in self.texts if text[: len(begun)] == begun)
            logits[row, 0, next(going_on, CharLevelTokenizer().eod)] = 50.0
        return logits
