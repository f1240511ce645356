"""GGUF's vocabulary from a tokenizer, and a tokenizer.json from GGUF's vocabulary.

llama.cpp encodes byte-level BPE from pieces, rules and the name of a splitting pattern; `gpt-2` is the pattern of
GPT-2, of PolyCoder and of the vocabularies that tools/train_tokenizer.py makes. It differs from us in two ways: a byte
that the vocabulary lacks (in PolyCoder's: CR and 13 that UTF-8 never uses) is dropped where we have id 0, and its
server reads a special token that stands written out in a prompt as that token.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.errors import CheckpointError, VocabularyError
from megatron.neox.layouts.gguf.file import GGUFFile
from megatron.neox.layouts.inference_engines import import_package, pieces_by_id, unused_piece
from megatron.neox.tokenizers import Tokenizer
from megatron.neox.tokenizers.byte_level import CHARACTER_OF_BYTE
from megatron.neox.tokenizers.export import tokenizer_json

log = logging.getLogger(__name__)

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}

# Names of llama.cpp's splitting patterns (src/llama-vocab.cpp) that are these pre-tokenizers.
_PATTERNS = {
    "gpt-2": [],
    "mpt": [],
    "olmo": [],
    "jais": [],
    "starcoder": [_DIGITS],
    "refact": [_DIGITS],
    "command-r": [_DIGITS],
    "smollm": [_DIGITS],
    "codeshell": [_DIGITS],
}
_WRITTEN = ("gpt-2", "starcoder")

# A rule that never applies: llama.cpp insists on one.
_NO_MERGES = [f"{unused_piece(0)} {unused_piece(1)}"]

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF holds of a tokenizer.

    Args:
        pieces: by id, one for each row of the embedding.
        types: of each piece, as in `gguf.TokenType`.
        merges: rules, two pieces with a space between.
        pattern: name of the splitting pattern.
        eod: id that ends documents.
        unknown: id of bytes that the vocabulary lacks, where it has one; llama.cpp does not use it.
    """

    pieces: list[str]
    types: list[int]
    merges: list[str]
    pattern: str
    eod: int
    unknown: int | None


def vocabulary_of(tokenizer: Tokenizer, rows: int) -> Vocabulary:
    """The vocabulary for a model with so many rows in its embedding.

    Raises:
        VocabularyError: llama.cpp would encode texts otherwise, or the model has fewer rows.
    """
    settings = tokenizer_json(tokenizer)
    model = settings["model"]
    pattern = _pattern(settings)  # before anything else: it says what the vocabulary is
    pieces = pieces_by_id(settings, rows)
    known = set(model["vocab"].values())
    types = [NORMAL if number in known else UNUSED for number in range(rows)]
    for token in settings.get("added_tokens", []):
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    types[tokenizer.eod] = CONTROL
    merges = [rule if isinstance(rule, str) else " ".join(rule) for rule in model["merges"]]
    _warn(settings)
    unknown = model["vocab"].get(model["unk_token"]) if model.get("unk_token") else None
    return Vocabulary(pieces, types, merges or _NO_MERGES, pattern, tokenizer.eod, unknown)


def _pattern(settings: Mapping[str, Any]) -> str:
    """Name of llama.cpp's pattern, checked against everything else that decides the ids."""
    model, normalizer = settings["model"], settings.get("normalizer")
    plain = not (model.get("byte_fallback") or model.get("ignore_merges") or model.get("end_of_word_suffix"))
    if model.get("type") != "BPE" or not plain:
        raise VocabularyError(
            f"GGUF is written with byte-level BPE vocabularies; this tokenizer is a {model.get('type')} of another kind"
        )
    if normalizer is not None and normalizer.get("type") != "NFC":
        raise VocabularyError(
            f"llama.cpp has no normalizer {normalizer.get('type')}, which this tokenizer uses"
        )
    splits = _splits(settings.get("pre_tokenizer"))
    for name in _WRITTEN:
        if splits == [*_PATTERNS[name], _BYTE_LEVEL]:
            return name
    if not model["merges"] and splits == [{**_BYTE_LEVEL, "use_regex": False}]:
        return "gpt-2"  # where nothing merges, it does not matter where a text is split
    raise VocabularyError(
        f"no splitting pattern of llama.cpp is known for the pre-tokenizer {settings.get('pre_tokenizer')}; "
        "GPT-2's byte level can be written, alone or after single digits"
    )


def _splits(pre_tokenizer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, with what only offsets depend on made equal."""
    if pre_tokenizer is None:
        return []
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    return [
        {"use_regex": True, **step, "trim_offsets": True} if step["type"] == "ByteLevel" else dict(step)
        for step in steps
    ]


def _warn(settings: Mapping[str, Any]) -> None:
    missing = [
        byte for byte, piece in enumerate(CHARACTER_OF_BYTE) if piece not in settings["model"]["vocab"]
    ]
    # Bytes that no UTF-8 text holds cannot reach llama.cpp.
    missing = [byte for byte in missing if byte not in {0xC0, 0xC1, *range(0xF5, 0x100)}]
    if missing:
        log.warning(
            "the vocabulary has no token for the bytes %s: llama.cpp drops them from a prompt, where our tokenizer "
            "has the unknown token",
            ", ".join(f"0x{byte:02X}" for byte in missing),
        )
    if settings.get("normalizer") is not None:
        log.warning("llama.cpp does not normalise texts to NFC, as this tokenizer does")


def tokenizer_settings(path: Path) -> dict[str, Any]:
    """The content of a tokenizer.json with the vocabulary of a GGUF file.

    Raises:
        VocabularyError: the vocabulary is of a kind that is not read (SentencePiece, unknown splitting patterns).
        CheckpointError: the file is damaged.
        DependencyError: the package gguf is not installed.
    """
    keys = import_package("gguf").Keys.Tokenizer
    file = GGUFFile.open(path)
    kind, pattern = file.text(keys.MODEL), file.text(keys.PRE)
    if kind != "gpt2" or pattern not in _PATTERNS:
        raise VocabularyError(
            f"{path}: its tokenizer ({kind or 'none'}, splitting pattern {pattern or 'none'}) is not read; "
            f"byte-level BPE (gpt2) with one of {', '.join(_PATTERNS)} is. Its weights are: give a tokenizer.json"
        )
    pieces = [str(piece) for piece in file.values(keys.LIST)]
    types = [int(number) for number in file.values(keys.TOKEN_TYPE)] or [NORMAL] * len(pieces)
    if len(types) != len(pieces):
        raise CheckpointError(
            f"{path}: it has {len(pieces)} tokens and types for {len(types)}; take a fresh copy"
        )
    merges = [str(rule).split(" ") for rule in file.values(keys.MERGES) if rule not in _NO_MERGES]
    vocabulary = {piece: number for number, piece in enumerate(pieces) if types[number] in (NORMAL, CONTROL)}
    unknown = file.number(keys.UNK_ID)
    steps = [*_PATTERNS[pattern], _BYTE_LEVEL]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(number, pieces[number]) for number, kind in enumerate(types) if kind == USER_DEFINED
        ],
        "normalizer": None,
        "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "unk_token": None if unknown is None else dict(enumerate(pieces)).get(int(unknown)),
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _added(number: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"id": number, "content": content, **flags}
