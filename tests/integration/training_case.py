"""A dataset and a config small enough to train in seconds, and the commands that do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from megatron.neox.data.indexed_writer import IndexedDatasetWriter
from megatron.neox.tokenizers import CharLevelTokenizer

ROOT = Path(__file__).resolve().parents[2]

TINY: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "seq_length": 32,
    "max_position_embeddings": 32,
    "pos_emb": "rotary",
    "no_weight_tying": True,
    "hidden_dropout": 0.1,
    "tokenizer_type": "CharLevelTokenizer",
    "split": "80,20",
    "train_iters": 4,
    "train_batch_size": 8,
    "log_interval": 1,
    "eval_interval": 2,
    "eval_iters": 1,
    "optimizer": {"type": "adam", "params": {"lr": 0.01}},
    "gradient_accumulation_steps": 2,
    "peak_flops_per_second": 1e11,
}


def write_dataset(prefix: Path, **fingerprint: Any) -> str:
    """Source files of the standard library as bytes; `fingerprint` changes what is recorded of the tokenizer."""
    tokenizer = CharLevelTokenizer()
    metadata = {"tokenizer": {**tokenizer.fingerprint(), **fingerprint}}
    with IndexedDatasetWriter(prefix, np.uint16, metadata=metadata) as writer:
        for path in sorted(Path(os.__file__).parent.glob("a*.py")):
            writer.add([*tokenizer.encode_bytes(path.read_bytes()), tokenizer.eod])
    return str(prefix)


def write_config(path: Path, **keys: Any) -> Path:
    """The tiny config with `keys` put over it."""
    path.write_text(json.dumps({**TINY, **keys}))  # JSON is YAML
    return path


def command(config: Path) -> list[str]:
    return [sys.executable, str(ROOT / "deepy.py"), "train.py", str(config)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


def train(config: Path) -> subprocess.CompletedProcess[str]:
    """Run `./deepy.py train.py CONFIG` to its end."""
    return subprocess.run(
        command(config), capture_output=True, text=True, env=environment(), timeout=300, check=False
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl; a run may be writing the next one."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
