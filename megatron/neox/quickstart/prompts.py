"""Prompts cut from held-out files, and what really follows them there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.errors import InputError
from megatron.neox.files import write_whole

NUM_PROMPTS = 3
PROMPT_LINES = 10
PROMPT_BYTES = (
    240  # a token has a byte at least, so that a prompt always fits the quick start's 256 positions
)
REAL_LINES = 10


@dataclass(frozen=True)
class Prompt:
    """A piece of a file, and the lines after it."""

    source: str
    text: str
    real: str


def write_prompts(heldout: Path, folder: Path) -> None:
    """Write one file a prompt, `1.txt` and so on, and prompts.json, which says where each was cut.

    Raises:
        InputError: the held-out files are too short to cut prompts from.
    """
    prompts = cut_prompts(heldout)
    folder.mkdir(parents=True, exist_ok=True)
    for number, prompt in enumerate(prompts, start=1):
        (folder / f"{number}.txt").write_text(prompt.text, encoding="utf-8", newline="")
    described = [vars(prompt) for prompt in prompts]
    write_whole(folder.parent / "prompts.json", json.dumps(described, indent=1) + "\n")


def read_prompts(output: Path) -> list[Prompt]:
    """The prompts that `write_prompts` described."""
    described: list[dict[str, Any]] = json.loads((output / "prompts.json").read_text(encoding="utf-8"))
    return [Prompt(**fields) for fields in described]


def cut_prompts(heldout: Path) -> list[Prompt]:
    """One prompt from each of three files, spread over the folder's files in sorted order.

    A prompt ends with a line that opens a block (`:` or `{`), in the middle of its file. It ends before the line's
    newline: a vocabulary of GPT-2's kind joins that with the indentation after it into one token, so that a prompt
    which ends behind it asks for an unindented line. Where no file has such a line, as in other languages and in
    short files, prompts end in the middle of their files.

    Raises:
        InputError: no file has two lines.
    """
    files = [path for path in sorted(heldout.rglob("*")) if path.is_file()]
    for find_end in (_block_opening, _middle):
        prompts = [prompt for path in files if (prompt := _cut(path, heldout, find_end))]
        if prompts:
            break
    else:
        raise InputError(f"no file below {heldout} has two lines of which the first could be a prompt")
    last = len(prompts) - 1
    places = sorted({round(last * part / (NUM_PROMPTS - 1)) for part in range(NUM_PROMPTS)})
    return [prompts[place] for place in places]


def _cut(path: Path, heldout: Path, find_end: Callable[[Sequence[str]], int | None]) -> Prompt | None:
    with path.open(encoding="utf-8") as file:  # universal newlines, as the training data was read
        lines = file.read().splitlines(keepends=True)
    end = find_end(lines)
    if end is None:
        return None
    first = max(0, end - PROMPT_LINES)
    while first < end and len("".join(lines[first:end]).rstrip().encode()) > PROMPT_BYTES:
        first += 1
    text = "".join(lines[first:end]).rstrip()
    if not text.strip():
        return None
    return Prompt(str(path.relative_to(heldout)), text, "\n" + "".join(lines[end : end + REAL_LINES]))


def _block_opening(lines: Sequence[str]) -> int | None:
    """Number of the first line behind one that opens a block, searched from the middle on."""
    start = max(PROMPT_LINES, len(lines) // 2)
    for number in range(start, len(lines) - REAL_LINES):
        if lines[number - 1].rstrip().endswith((":", "{")):
            return number
    return None


def _middle(lines: Sequence[str]) -> int | None:
    return len(lines) // 2 or None
