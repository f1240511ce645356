"""How large the embedding is for a vocabulary."""

from __future__ import annotations


def padded_vocab_size(vocab_size: int, *, divisible_by: int, tensor_size: int) -> int:
    """Rows of the embedding: the vocabulary rounded up to a multiple of `divisible_by * tensor_size`.

    50257 with 128 and one tensor-parallel rank is 50304, as in GPT-NeoX.
    """
    multiple = divisible_by * tensor_size
    return -(-vocab_size // multiple) * multiple
