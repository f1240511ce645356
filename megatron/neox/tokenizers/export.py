"""A tokenizer as the files that other programs read, with the same ids for every text.

::

    tokenizer.json           what the `tokenizers` library runs
    vocab.json, merges.txt   the same for readers of GPT-2's two files (byte-level vocabularies only)
    tokenizer_config.json    how transformers is to use them
    special_tokens_map.json  the same, for older readers

A special token written out in a text is plain text here, so tokenizer.json lists no added token (except where it was
somebody else's from the start) and tokenizer_config.json says `split_special_tokens`: a document that contains the
text of the end-of-document token must not end there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.neox.errors import VocabularyError
from megatron.neox.files import write_whole
from megatron.neox.tokenizers.byte_level import CHARACTER_OF_BYTE
from megatron.neox.tokenizers.characters import CharLevelTokenizer
from megatron.neox.tokenizers.gpt2_bpe import GPT2BPETokenizer
from megatron.neox.tokenizers.huggingface import HFTokenizer
from megatron.neox.tokenizers.tokenizer import Tokenizer
from megatron.neox.tokenizers.vocabulary_files import HEADER_START

TOKENIZER_FILES = (
    "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
)  # fmt: skip
"""Names of the files that `write_tokenizer` may write."""

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a tokenizer.json whose ids equal the tokenizer's on any text.

    `GPT2BPETokenizer` gives the rules it uses, so without the one that GPT-NeoX loses, and a byte without a token
    becomes the unknown token; an `HFTokenizer` gives its own file, without truncation and padding.

    Raises:
        VocabularyError: the tokenizer is of a kind that a tokenizer.json cannot describe.
    """
    if isinstance(tokenizer, GPT2BPETokenizer):
        return {**json.loads(tokenizer.engine.to_str()), "decoder": _BYTE_LEVEL}
    if isinstance(tokenizer, HFTokenizer):
        return json.loads(tokenizer.engine.to_str())
    if isinstance(tokenizer, CharLevelTokenizer):
        return _of_bytes()
    raise VocabularyError(
        f"a {type(tokenizer).__name__} cannot be written as a tokenizer.json; "
        "GPT2BPETokenizer, HFTokenizer and CharLevelTokenizer can"
    )


def tokenizer_config(tokenizer: Tokenizer, *, max_length: int) -> dict[str, Any]:
    """The content of tokenizer_config.json.

    Args:
        max_length: tokens that the model takes.
    """
    content = tokenizer_json(tokenizer)
    eod = _piece(content, tokenizer.eod)
    first = first_token(content)
    unknown = content["model"].get("unk_token")
    return {
        # The class that runs tokenizer.json as it stands, in transformers 4 and 5.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": eod if first is None else _piece(content, first),
        "eos_token": eod,
        **({"unk_token": eod} if unknown == eod else {}),
        "split_special_tokens": True,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }


def first_token(content: Mapping[str, Any]) -> int | None:
    """Id that transformers puts before a text where a tokenizer.json asks for it; this toolkit puts none."""
    step = content.get("post_processor") or {}
    for part in (step, *step.get("processors", [])):
        template = part.get("single") or [{}]
        if part.get("type") == "TemplateProcessing" and "SpecialToken" in template[0]:
            return part["special_tokens"][template[0]["SpecialToken"]["id"]]["ids"][0]
    return None


def write_tokenizer(tokenizer: Tokenizer, folder: Path, *, max_length: int) -> list[Path]:
    """Write the files into a folder that exists; each appears complete.

    Raises:
        VocabularyError: see `tokenizer_json`.
    """
    content = tokenizer_json(tokenizer)
    settings = tokenizer_config(tokenizer, max_length=max_length)
    special = {key: settings[key] for key in ("bos_token", "eos_token", "unk_token") if key in settings}
    texts = {
        "tokenizer.json": _text(content, indent=1),
        "tokenizer_config.json": _text(settings, indent=2),
        "special_tokens_map.json": _text(special, indent=2),
    }
    if is_gpt2(content):
        texts |= gpt2_files(content)
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def gpt2_files(content: Mapping[str, Any]) -> dict[str, str]:
    """vocab.json and merges.txt of a byte-level tokenizer.json; the header keeps readers from losing a rule."""
    model = content["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    merges = [f"{HEADER_START}: 0.2", *(" ".join(rule) for rule in model["merges"])]
    return {"vocab.json": _text(vocabulary), "merges.txt": "\n".join(merges) + "\n"}


def is_gpt2(content: Mapping[str, Any]) -> bool:
    """Whether the rules alone tell everything, as readers of the two files take it."""
    splits = content["pre_tokenizer"] or {}
    plain = content["normalizer"] is None and not splits.get("add_prefix_space")
    return plain and splits.get("type") == "ByteLevel" and splits.get("use_regex", True)


def _of_bytes() -> dict[str, Any]:
    """One token a byte: the ids that mean nothing have no entry."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {**_BYTE_LEVEL, "use_regex": False},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "vocab": {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)},
            "merges": [],
        },
    }


def _piece(content: Mapping[str, Any], number: int) -> str:
    """The text of an id."""
    for token in content["added_tokens"]:
        if token["id"] == number:
            return token["content"]
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # unigram models: [piece, score] by id
        return vocabulary[number][0]
    return next(piece for piece, index in vocabulary.items() if index == number)


def _text(content: Any, *, indent: int | None = None) -> str:
    return json.dumps(content, ensure_ascii=False, indent=indent) + "\n"
