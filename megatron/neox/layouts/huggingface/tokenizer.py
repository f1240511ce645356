"""Which of our tokenizers a folder's tokenizer files are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from megatron.neox.config import TokenizerConfig
from megatron.neox.tokenizers.byte_level import CHARACTER_OF_BYTE
from megatron.neox.tokenizers.export import gpt2_files, is_gpt2


def find_tokenizer(folder: Path) -> TokenizerConfig | None:
    """The tokenizer of a folder; none where it has none that is supported.

    vocab.json and merges.txt are `GPT2BPETokenizer` unless a tokenizer.json beside them does something else, which
    then is an `HFTokenizer`.
    """
    path = folder / "tokenizer.json"
    two = folder / "vocab.json", folder / "merges.txt"
    has_two = all(file.is_file() for file in two)
    gpt2 = TokenizerConfig(tokenizer_type="GPT2BPETokenizer", vocab_file=str(two[0]), merge_file=str(two[1]))
    if not path.is_file():
        return gpt2 if has_two else None
    try:
        content = _read(path)
        if _is_bytes(content):
            return TokenizerConfig(tokenizer_type="CharLevelTokenizer")
        if has_two and _agree(content, *two):
            return gpt2
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a damaged file, which whoever builds the tokenizer is told of
    return TokenizerConfig(tokenizer_type="HFTokenizer", vocab_file=str(path))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _is_bytes(content: Any) -> bool:
    """Whether it has one token a byte and nothing else, as `CharLevelTokenizer` is written."""
    alphabet = {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)}
    return content["model"].get("vocab") == alphabet and not content["model"].get("merges")


def _agree(content: Any, vocabulary: Path, merges: Path) -> bool:
    """Whether tokenizer.json gives the ids that GPT2BPETokenizer makes of the two files."""
    if not is_gpt2(content):
        return False
    model = content["model"]
    # Older files write a rule as one text.
    rules = [rule.split(" ") if isinstance(rule, str) else rule for rule in model["merges"]]
    texts = gpt2_files({"model": {"vocab": model["vocab"], "merges": rules}})
    known = model["vocab"]
    has_all_bytes = all(character in known for character in CHARACTER_OF_BYTE)
    drops_bytes = not has_all_bytes and known.get(model.get("unk_token")) != 0
    lines = merges.read_text(encoding="utf-8").strip("\n").split("\n")
    same_rules = lines[1:] == texts["merges.txt"].strip("\n").split("\n")[1:]
    return not drops_bytes and same_rules and json.loads(texts["vocab.json"]) == _read(vocabulary)
