"""Filters that ask a tokenizer."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from megatron.neox.config import TokenizerConfig
from megatron.neox.corpus.document import Document
from megatron.neox.corpus.filters.shape import num_characters
from megatron.neox.errors import UserError
from megatron.neox.plugins import filters

if TYPE_CHECKING:
    from megatron.neox.tokenizers.engines import BatchEncoder


@filters.register("char_token_ratio")
@dataclass(frozen=True, kw_only=True)
class CharTokenRatio:
    """Few characters a token: text that is unlike what the vocabulary was made from (CodeParrot: under 1.5).

    Args:
        min_ratio: the smallest ratio that is kept.
        by_language: other limits for some languages (BigCode: Python 2.5, Java 2.9, JavaScript 2.6).
        tokenizer: a folder with a tokenizer.json, or a name on the Hugging Face hub.
        vocab_file: instead of that, vocab.json (or tokenizer.json).
        merge_file: and merges.txt.
    """

    min_ratio: float = 1.5
    by_language: Mapping[str, float] | None = None
    tokenizer: str | None = None
    vocab_file: str | None = None
    merge_file: str | None = None

    def __post_init__(self) -> None:
        """Build the tokenizer at once, so that a mistake is told at once."""
        load_encoder(self.tokenizer, self.vocab_file, self.merge_file)

    def __call__(self, document: Document) -> str | None:
        """`char_token_ratio`, or None."""
        return self.of_batch([document])[0]

    def of_batch(self, documents: Sequence[Document]) -> list[str | None]:
        """The same of each document; the engines are quick at many texts alone."""
        encoder = load_encoder(self.tokenizer, self.vocab_file, self.merge_file)
        num_tokens = encoder.encode([document.data.decode("utf-8", "replace") for document in documents])[1]
        return [self._said(document, count) for document, count in zip(documents, num_tokens.tolist())]

    def _said(self, document: Document, num_tokens: int) -> str | None:
        limit = (self.by_language or {}).get(document.language, self.min_ratio)
        return "char_token_ratio" if num_characters(document.data) < limit * num_tokens else None


@lru_cache(maxsize=2)
def load_encoder(
    tokenizer: str | None = None, vocab_file: str | None = None, merge_file: str | None = None
) -> BatchEncoder:
    """The tokenizer that options name, with the fastest engine that serves.

    Raises:
        UserError: none is named, or the files do not fit.
    """
    from megatron.neox.tokenizers import build_tokenizer
    from megatron.neox.tokenizers.engines import batch_encoder
    from megatron.neox.tokenizers.pretrained import find_pretrained

    if tokenizer is not None:
        section = find_pretrained(tokenizer).section
    elif vocab_file is not None:
        kind = "HFTokenizer" if merge_file is None else "GPT2BPETokenizer"
        section = TokenizerConfig(tokenizer_type=kind, vocab_file=vocab_file, merge_file=merge_file)
    else:
        raise UserError(
            "the filter char_token_ratio needs a tokenizer: give --tokenizer, or --vocab-file and --merge-file"
        )
    return batch_encoder(build_tokenizer(section))


def add_tokenizer_options(parser: argparse.ArgumentParser, use: str) -> None:
    """Add --tokenizer, --vocab-file and --merge-file; `use` says what the tokenizer is for."""
    add = parser.add_argument
    add("--tokenizer", metavar="FOLDER_OR_NAME", help=f"{use}: one with a tokenizer.json")
    add("--vocab-file", metavar="FILE", help="vocab.json, instead of --tokenizer")
    add("--merge-file", metavar="FILE", help="and merges.txt")


def told_tokenizer(options: argparse.Namespace) -> dict[str, str]:
    """Those of `add_tokenizer_options` that were given, as `load_encoder` takes them.

    Raises:
        UserError: merges without a vocabulary.
    """
    told = {name: getattr(options, name) for name in ("tokenizer", "vocab_file", "merge_file")}
    if told["merge_file"] is not None and told["vocab_file"] is None:
        raise UserError("--merge-file goes with --vocab-file, which is not given")
    return {name: value for name, value in told.items() if value is not None}
