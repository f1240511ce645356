"""vocab.json and merges.txt, read with every mistake named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from megatron.neox.errors import VocabularyError

MergesHeader = Literal["drop_first_line", "auto"]
Merge = tuple[str, str]

HEADER_START = "#version"

# Names under which PolyCoder's configs look for its vocabulary.
POLYCODER_FILES = ("code-vocab.json", "code-merges.txt")
_FROM_POLYCODER = (
    "  fetch PolyCoder's: tools/download_checkpoint.py vocab --output {folder}\n  or give other paths"
)
_FROM_TRAINER = "  make one from your own files: tools/train_tokenizer.py --input FOLDER --output vocabulary"


def read_bytes(path: str | None, *, key: str, tokenizer: str) -> bytes:
    """Content of a vocabulary file.

    Args:
        key: YAML key that names the file.
        tokenizer: tokenizer_type that needs it.

    Raises:
        VocabularyError: no path is given, or there is no readable file.
    """
    if not path:
        raise VocabularyError(
            f"{tokenizer} needs the key {key} (option --{key.replace('_', '-')}), which is not given\n"
            f"{_FROM_TRAINER}"
        )
    try:
        return Path(path).read_bytes()
    except OSError as error:
        is_polycoders = Path(path).name in POLYCODER_FILES
        remedy = _FROM_POLYCODER.format(folder=Path(path).parent) if is_polycoders else _FROM_TRAINER
        raise VocabularyError(
            f"cannot read {path} ({key} of {tokenizer}; in full: {Path(path).absolute()}): "
            f"{error.strerror}\n{remedy}"
        ) from error


def parse_json(data: bytes, path: str | None) -> Any:
    """JSON of a vocabulary file.

    Raises:
        VocabularyError: the file is not JSON in UTF-8.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{path} is not JSON: {error}; give the right file, or make it anew") from error


def parse_vocabulary(data: bytes, path: str | None) -> dict[str, int]:
    """Ids by piece.

    Raises:
        VocabularyError: not an object of distinct non-negative ids.
    """
    vocabulary = parse_json(data, path)
    if not isinstance(vocabulary, dict) or not all(_is_id(number) for number in vocabulary.values()):
        raise VocabularyError(
            f"{path} is not a vocabulary: a vocab.json is one JSON object of pieces and their ids "
            "(a tokenizer.json goes with tokenizer_type HFTokenizer)"
        )
    if len(set(vocabulary.values())) != len(vocabulary):
        raise VocabularyError(f"{path} gives one id to several pieces; it is damaged, take a fresh copy")
    return vocabulary


def _is_id(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


@dataclass(frozen=True)
class Merges:
    """The rules of a merges.txt, first rule first, and how its first line was read.

    `header` is "present" where the file is so written that both readings agree, else the reading taken.
    """

    rules: list[Merge]
    header: str


def parse_merges(data: bytes, path: str | None, *, header: MergesHeader) -> Merges:
    """Rules of a merges.txt.

    Args:
        header: `drop_first_line` is GPT-NeoX's reading, which also leaves out whatever follows the last line
            end; `auto` leaves out a `#version` line and keeps every rule.

    Raises:
        VocabularyError: a line is not two pieces; it is named.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path} is not UTF-8 ({error}); give the right file") from error
    # The line ends of text mode; str.splitlines would break inside rules of unusual characters.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    has_header = lines[0].startswith(HEADER_START)
    first = 1 if has_header or header == "drop_first_line" else 0
    kept = lines[first:-1] if header == "drop_first_line" else lines[first:]
    rules = [
        _rule(line, f"{path}:{number}") for number, line in enumerate(kept, start=first + 1) if line.strip()
    ]
    readings_agree = has_header and not lines[-1]
    return Merges(rules, "present" if readings_agree else header)


def _rule(line: str, place: str) -> Merge:
    pieces = line.split()
    if len(pieces) != 2:
        raise VocabularyError(
            f"{place}: a rule is two pieces with a space between, this is {line[:60]!r}; is it a merges.txt?"
        )
    return pieces[0], pieces[1]


def check_rules(
    rules: list[Merge], vocabulary: dict[str, int], *, vocab_file: str | None, merge_file: str | None
) -> None:
    """Refuse a merges.txt that belongs to another vocab.json.

    Raises:
        VocabularyError: rules use or make pieces that the vocabulary lacks.
    """
    wrong = [rule for rule in rules if not {*rule, rule[0] + rule[1]} <= vocabulary.keys()]
    if wrong:
        raise VocabularyError(
            f"{merge_file} does not belong to {vocab_file}: {len(wrong)} of its {len(rules)} rules use or "
            f"make pieces that the vocabulary lacks (the first: {' '.join(wrong[0])!r}); "
            "give the two files of one vocabulary"
        )


def digest(data: bytes) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    return sha256(data).hexdigest()
