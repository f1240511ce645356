"""First half of `make test-compat`: models of every family, written here, with the logits and ids they must give.

.venv/bin/python -m tests.compat.export build/compat
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from megatron.neox.conversion.check import logits_of, prompts_for
from megatron.neox.layouts.huggingface import write_folder
from megatron.neox.tokenizers import CharLevelTokenizer, Tokenizer, build_tokenizer
from tests.integration.miniature import stored_miniature

ROOT = Path(__file__).resolve().parents[2]
POLYCODER = Path(os.environ.get("POLYCODER_DIR", ROOT.parent / "shared" / "polycoder"))

TEXTS = (
    "def f(x):\n    if x:\n        return x + 1\n\t\treturn 2\r\n",
    "<|endoftext|>x<|padding|> <|separator|>\n<|endoftext|>",
    "\r\n\r\r\t\tif x:\r\n        pass    \n",
    "é 日本 🙂 \u2028 \xa0 \x00 \x7f Ā <s></s>",
)

_LLAMA: dict[str, Any] = {
    "norm": "rmsnorm", "activation": "swiglu", "mlp_type": "llama", "intermediate_size": 48,
    "use_bias_in_attn_linear": False, "use_bias_in_mlp": False, "bias_gelu_fusion": False, "num_attention_heads": 4,
    "rows": 512,
}  # fmt: skip
_LEARNED: dict[str, Any] = {"pos_emb": "learned", "no_weight_tying": False, "rows": 512}

FAMILIES: dict[str, dict[str, Any]] = {
    "polycoder": {},
    "pythia": {"rotary_pct": 0.25, "gpt_j_residual": True, "bias_gelu_fusion": False, "num_attention_heads": 2,
               "hidden_size": 32, "rows": 512},
    "codeparrot": {**_LEARNED, "scale_attn_by_inverse_layer_idx": True},
    "llama": _LLAMA,
    "llama-grouped": {**_LLAMA, "num_kv_heads": 2, "rotary_emb_base": 500000, "no_weight_tying": False},
    "mistral": {**_LLAMA, "num_kv_heads": 2, "attention_config": [[["local"], "all"]], "sliding_window_width": 7},
}  # fmt: skip


def export(folder: Path) -> None:
    """Write a folder for each family, and what to expect of it."""
    for name, keys in FAMILIES.items():
        stored = stored_miniature(POLYCODER, **keys)
        tokenizer: Tokenizer = CharLevelTokenizer()
        if name == "polycoder":
            if not (POLYCODER / "code-merges.txt").is_file():
                sys.stderr.write(f"{name}: left out, POLYCODER_DIR names no folder with its vocabulary\n")
                continue
            assert stored.tokenizer is not None
            tokenizer = build_tokenizer(stored.tokenizer)
        place = folder / name
        place.mkdir(parents=True)
        write_folder(stored, place, tokenizer=tokenizer)
        prompts = prompts_for(stored, tokenizer)
        torch.save({"prompts": prompts, "logits": logits_of(stored, prompts)}, folder / f"{name}.pt")
        ids = [[text, tokenizer.encode(text)] for text in TEXTS]
        (folder / f"{name}.json").write_text(json.dumps({"ids": ids, "eod": tokenizer.eod}))


if __name__ == "__main__":
    export(Path(sys.argv[1]))
