"""Text to ids and back: one tokenizer a file, all exact on what they claim, plugins of kind `tokenizer`."""

from __future__ import annotations

from megatron.neox.config import TokenizerConfig
from megatron.neox.plugins import tokenizers as registry
from megatron.neox.tokenizers.characters import CharLevelTokenizer
from megatron.neox.tokenizers.gpt2_bpe import GPT2BPETokenizer
from megatron.neox.tokenizers.huggingface import HFTokenizer
from megatron.neox.tokenizers.tokenizer import Tokenizer

__all__ = ["CharLevelTokenizer", "GPT2BPETokenizer", "HFTokenizer", "Tokenizer", "build_tokenizer"]


def build_tokenizer(section: TokenizerConfig) -> Tokenizer:
    """The tokenizer that a config names, its files read and checked.

    Raises:
        UnknownPartError: nothing is registered as `tokenizer_type`.
        VocabularyError: a vocabulary file is absent, unreadable, or does not fit the other.
    """
    return registry.build(section.tokenizer_type, **dict(section))
