"""A checkpoint of 2022 is loaded in little more memory than its weights take, and generates."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.training_case import ROOT, environment
from tests.neox_2022 import Miniature, write_checkpoint_of_neox

ALLOWED = 1.3  # times the memory of the weights

# A process of its own: what it holds before loading is the interpreter, PyTorch and DeepSpeed.
MEASURE = """
import json, sys
from pathlib import Path

from megatron.neox.config import Config
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.inference import load_model
from megatron.neox.generation.decode import Decoder, Request
from megatron.neox.models import gpt_neox
from megatron.neox.tokenizers import build_tokenizer


def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


config = Config.from_flat(json.loads(sys.argv[1]))
tokenizer = build_tokenizer(config.tokenizer)
with ProcessGrid.build(config.parallelism, fold_pipeline=True) as grid:
    before = resident("VmRSS")
    model = load_model(config, grid, tokenizer=tokenizer)
    loaded = resident("VmHWM")
    decoder = Decoder(model, tokenizer, config.generation)
    record = decoder.decode([Request("def add(one, two):", 0)])[0]
    weights = sum(p.numel() * p.element_size() for p in model.model.parameters())
    print(json.dumps({
        "before": before, "loaded": loaded - before, "generated": resident("VmHWM") - before, "weights": weights,
        "tokens": record.length,
    }))
"""


def measured(folder: Path, mini: Miniature, precision: str) -> dict[str, Any]:
    """Bytes: resident before loading, the peak above that when loaded and when generated, and the weights."""
    keys = {
        "num_layers": mini.num_layers, "hidden_size": mini.hidden_size, "num_attention_heads": mini.num_heads,
        "seq_length": 2048, "max_position_embeddings": 2048, "pos_emb": "rotary", "no_weight_tying": True,
        "bias_gelu_fusion": True, "precision": precision, "load": str(folder),
        "tokenizer_type": "CharLevelTokenizer", "maximum_tokens": 16,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(keys)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not outlive its test, as pytest's own do."""
    yield tmp_path / "checkpoints"
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("is_sequential", [False, True], ids=["layer files", "rank files"])
def test_loading_takes_little_more_memory_than_the_weights(folder: Path, is_sequential: bool) -> None:
    shape = {"num_layers": 8, "hidden_size": 1024, "num_heads": 16, "rows": 8192}
    mini = Miniature(**shape, scale=0.02, repeats=True, is_sequential=is_sequential)
    write_checkpoint_of_neox(folder, mini)
    found = measured(folder, mini, "bf16")
    assert found["weights"] == 2 * 117_549_056
    assert found["tokens"] == 16
    assert found["generated"] <= ALLOWED * found["weights"], found


@pytest.mark.large
def test_2_7b_is_loaded_in_little_more_memory_than_its_weights(folder: Path) -> None:
    """PolyCoder's size: 5.6 GB on the disk and in memory."""
    mini = Miniature(num_layers=32, hidden_size=2560, num_heads=32, scale=0.02, repeats=True)
    write_checkpoint_of_neox(folder, mini)
    found = measured(folder, mini, "bf16")
    print(found)  # noqa: T201  for the log of what was measured
    assert found["weights"] == 2 * 2_775_208_960
    assert found["tokens"] == 16
    assert found["generated"] <= ALLOWED * found["weights"], found
