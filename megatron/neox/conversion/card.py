"""README.md of an exported model: what it is, what to beware of, whom to cite."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from megatron.neox.config import ModelConfig
from megatron.neox.config.parameters import num_parameters
from megatron.neox.conversion.check import Check
from megatron.neox.files import write_whole
from megatron.neox.tokenizers import GPT2BPETokenizer, Tokenizer
from megatron.neox.tokenizers.export import first_token, tokenizer_json

_HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- code
- {model_type}
---

# {name}

A language model of source code: it continues a program text.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = AutoModelForCausalLM.from_pretrained("{name}")
prompt = "def binarySearch(arr, left, right, x):\\n    mid = (left +"
input_ids = tokenizer.encode(prompt, return_tensors="pt")
for ids in model.generate(input_ids, max_length=50, num_beams=4, num_return_sequences=4):
    print(tokenizer.decode(ids))
```
"""

_SCALED = """
## Attention

The scores of layer n are divided by n (`scale_attn_by_inverse_layer_idx`). Releases of transformers before 5 do so in
their plain attention alone, which config.json has them choose: ask for no other `attn_implementation` there.
"""

_CAVEATS = """
## Before you use it

- **It completes, it does not obey.** It saw files of code and nothing else, and was not tuned to follow
  instructions: write the beginning of the file that you want.
- **White space counts.** Indentation, tabs, line ends and blanks at the end of a prompt are part of what it
  continues; a prompt that was stripped, or whose tabs became spaces, is another prompt.
- **It may not know when to stop.** PolyCoder's training data had no token at the end of its files, so the released
  models never learned to end one: after a file they go on with another, invented one. Unless you know better of
  these weights, limit the number of tokens, or cut at a text that ends what you asked for.
- **Licences and people.** Models of public code can repeat passages of it word for word, with whatever licence they
  stand under, and with names, addresses, keys or passwords that someone left in. Check what you publish.
- **Programs can be wrong.** Generated code compiles more often than it is right, and may be unsafe; run it in a
  sandbox, and read it before you trust it.
"""

_POLYCODER = """
## PolyCoder

This model has PolyCoder's vocabulary. The released PolyCoder models (160M, 0.4B and 2.7B parameters) are multi-lingual:
they were trained on public repositories in twelve languages, which are C, C#, C++, Go, Java, JavaScript, PHP, Python,
Ruby, Rust, Scala and TypeScript. They met natural language in comments alone and were not made for programming
problems, so that benchmarks with a task in words, such as HumanEval, show them at their weakest. An indented method at
the top of a Java file, to take an example, is a place where no method belongs: the class around it is part of a good
prompt.
"""

_POLYCODER_IDS = 50257
_POLYCODER_SAMPLE = (
    "def f(x):\n\treturn x + 1\n",
    [319, 282, 10, 90, 1050, 188, 187, 397, 754, 431, 352, 188],
)

_CITATION = """
## Citation

```bibtex
@article{xu2022systematic,
  title   = {A Systematic Evaluation of Large Language Models of Code},
  author  = {Xu, Frank F. and Alon, Uri and Neubig, Graham and Hellendoorn, Vincent J.},
  journal = {arXiv preprint arXiv:2202.13169},
  year    = {2022}
}
```
"""


def write_card(
    folder: Path,
    model: ModelConfig,
    tokenizer: Tokenizer | None,
    check: Check | None,
    *,
    name: str,
    origin: str,
    step: int,
    command: str,
    notes: Sequence[str],
) -> None:
    """Write README.md into an exported folder.

    Args:
        check: what the check found; none where it was left out.
        name: of the folder in the end.
        origin: what the model was made of.
        step: of its training; 0 where that is not known, or there was none.
        command: that writes the folder.
        notes: in what it is not the original.
    """
    model_type = (
        "gpt2" if model.pos_emb == "learned" else "llama" if model.norm.name == "rmsnorm" else "gpt_neox"
    )
    parts = [
        _HEAD.format(name=name, model_type=model_type),
        _facts(model, folder, origin, step),
        _checked(
            check, command, notes, samples="random ids" if tokenizer is None else "code in five languages"
        ),
        _SCALED if model.scale_attn_by_inverse_layer_idx else "",
        _vocabulary(model, tokenizer),
        _CAVEATS,
        _POLYCODER if _is_polycoders(tokenizer) else "",
        _CITATION,
    ]
    write_whole(folder / "README.md", "".join(parts))


def _facts(model: ModelConfig, folder: Path, origin: str, step: int) -> str:
    rows = model.padded_vocab_size or 0
    facts = {
        "Parameters": f"{num_parameters(model, rows):,}",
        "Layers, width, heads": f"{model.num_layers}, {model.hidden_size}, {model.num_attention_heads}",
        "Positions": f"{model.max_position_embeddings} ({model.pos_emb})",
        "Rows of the embedding": str(rows),
        **({"Training steps": str(step)} if step else {}),
        "Made of": origin,
    }
    lines = ["\n## Facts\n\n| | |\n|---|---|\n", *(f"| {key} | {value} |\n" for key, value in facts.items())]
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"| SHA-256 of {path.name} | `{digest}` |\n")
    return "".join(lines)


def _checked(check: Check | None, command: str, notes: Sequence[str], *, samples: str) -> str:
    if check is None:
        return f"\nWritten by `{command}`: its logits were not compared with those of the original.\n"
    found = (
        f"\nWritten by `{command}`, which compared the logits of this folder in transformers with those that the "
        f"training code computes with the same weights, both in fp32, on {samples}: {check}.\n"
    )
    return found + "".join(f"\nNote: {note}.\n" for note in notes)


def _is_polycoders(tokenizer: Tokenizer | None) -> bool:
    """Whether the vocabulary is the released one, whatever its files look like."""
    if not isinstance(tokenizer, GPT2BPETokenizer) or tokenizer.vocab_size != _POLYCODER_IDS:
        return False
    return tokenizer.encode(_POLYCODER_SAMPLE[0]) == _POLYCODER_SAMPLE[1]


def _vocabulary(model: ModelConfig, tokenizer: Tokenizer | None) -> str:
    if tokenizer is None:
        return "\n## Vocabulary\n\nThis folder holds no tokenizer.\n"
    rows = model.padded_vocab_size or 0
    parts = [
        "\n## Vocabulary\n\nLoad the tokenizer with `AutoTokenizer`: it gives the ids of training for any text. "
        "A special token that is written out in a text is read as plain text.\n"
    ]
    if first_token(tokenizer_json(tokenizer)) is not None:
        parts.append(
            "\nIts tokenizer.json asks for a token before each text. transformers adds it, training here does not: "
            "`add_special_tokens=False` leaves it out.\n"
        )
    if rows > tokenizer.vocab_size:
        parts.append(
            f"\nRows {tokenizer.vocab_size} to {rows - 1} of the embedding are padding and stand for no text; "
            "`generation_config.json` keeps `generate()` from choosing them.\n"
        )
    if isinstance(tokenizer, GPT2BPETokenizer) and tokenizer.num_missing_bytes:
        parts.append(
            f"\n{tokenizer.num_missing_bytes} bytes have no token, the carriage return among them as a rule, "
            "and are read as id 0: give texts with line feeds alone.\n"
        )
    return "".join(parts)
