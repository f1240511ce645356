from __future__ import annotations

import argparse

import pytest

from megatron.neox.corpus.filters.tokens import add_tokenizer_options, told_tokenizer
from megatron.neox.errors import UserError


def told(*arguments: str) -> dict[str, str]:
    parser = argparse.ArgumentParser()
    add_tokenizer_options(parser, "counts")
    return told_tokenizer(parser.parse_args(arguments))


def test_what_is_given_is_what_the_encoder_takes() -> None:
    assert told() == {}
    assert told("--tokenizer", "t") == {"tokenizer": "t"}
    assert told("--merge-file", "m", "--vocab-file", "v") == {"vocab_file": "v", "merge_file": "m"}


def test_merges_without_a_vocabulary_are_refused() -> None:
    with pytest.raises(UserError, match="--merge-file goes with --vocab-file"):
        told("--tokenizer", "t", "--merge-file", "m")
