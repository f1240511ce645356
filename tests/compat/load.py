"""Second half of `make test-compat`: another release of transformers must compute and encode as is written down.

    .venv-compat/bin/python tests/compat/load.py build/compat

It needs torch and transformers alone, and nothing of this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-5


def difference(folder: Path) -> float:
    """Largest difference of the logits from those written down."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = torch.load(folder.with_suffix(".pt"), weights_only=True)
    with torch.inference_mode():
        found = [model(ids).logits for ids in expected["prompts"]]
    return max((a - b).abs().max().item() for a, b in zip(found, expected["logits"], strict=True))


def wrong_texts(folder: Path) -> list[str]:
    """Texts whose ids are not those written down."""
    expected = json.loads(folder.with_suffix(".json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id == expected["eod"]
    wrong = [text for text, ids in expected["ids"] if tokenizer.encode(text) != ids]
    return wrong + [text for text, ids in expected["ids"] if tokenizer(text)["input_ids"] != ids]


def say(line: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(f"{line}\n")


def main() -> int:
    """Print a line for each model; 1 where one is not as it must be."""
    failures = 0
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    say(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for folder in folders:
        found, wrong = difference(folder), wrong_texts(folder)
        is_right = found < TOLERANCE and not wrong
        failures += not is_right
        ids = f"differ: {wrong!r}" if wrong else "equal"
        say(f"{folder.name:14} logits within {found:.1e}, ids {ids}{'' if is_right else ', FAILED'}")
    return 1 if failures or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
