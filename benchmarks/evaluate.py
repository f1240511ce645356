#!/usr/bin/env python3
"""Perplexity on this CPU against lm-eval's own `hf` model: same weights, same files, one interleaved run.

Both answer the same rolling requests (files of the Python standard library, a window of all positions, fp32, as many
rows in a batch), encoding included. First the log-likelihoods must agree to 1e-5, file by file. The two take turns,
so that a machine whose speed drifts slows both alike; the figures are the medians over the turns of (our tokens per
second) / (theirs), by the clock and by the processor time that was taken.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import json
import logging
import os
import statistics
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from megatron.neox.config import EvaluationConfig
from megatron.neox.conversion.check import model_of
from megatron.neox.conversion.inputs import open_input
from megatron.neox.engine.inference import InferenceModel
from megatron.neox.errors import run_door
from megatron.neox.evaluation.harness_model import HarnessModel, SharedWork
from megatron.neox.generation.workers import Workers
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.tokenizers import HFTokenizer
from megatron.neox.tokenizers.gpt2_bpe import END_OF_DOCUMENT
from megatron.neox.tokenizers.train import train_vocabulary

EXAMPLES = """examples:
  benchmarks/evaluate.py
  benchmarks/evaluate.py --shapes 6x512x8x50304x1024 --tokens 8192 --batch 1 --turns 5
"""


@dataclass(frozen=True)
class Shape:
    """Layers, hidden size, heads, vocabulary and positions, which are the window."""

    layers: int
    hidden: int
    heads: int
    vocab: int
    positions: int

    def __str__(self) -> str:
        return f"{self.layers} x {self.hidden}, {self.heads} heads, vocabulary {self.vocab}, window {self.positions}"


def main(arguments: Sequence[str]) -> int:
    """Print a line for each shape; 1 where the two disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes", type=_shape, nargs="+", default=[Shape(3, 128, 4, 4096, 256), Shape(6, 512, 8, 50304, 1024)],
        help="LAYERSxHIDDENxHEADSxVOCABULARYxPOSITIONS (default: configs/quickstart.yml, and one of middle size)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=8, help="rows in a batch (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32768, help="in a turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(default: cores)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each that are counted")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # other people's, about their own future
    logging.disable(logging.WARNING)
    return max(_compare(options, shape) for shape in options.shapes)


def _shape(text: str) -> Shape:
    return Shape(*map(int, text.split("x")))


def _compare(options: argparse.Namespace, shape: Shape) -> int:
    """Check that both say the same, then time them in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts, num_tokens = _write_data(folder, options.tokens, shape.vocab)
        _write_model(folder, shape)
        requests = [_request(text) for text in texts]
        both: tuple[Any, Any] = (_our_model(folder, options.batch), _their_model(folder, options.batch))
    runs = [lambda model=model: model.loglikelihood_rolling(requests, disable_tqdm=True) for model in both]
    ours, theirs = (run() for run in runs)
    difference = max(abs(one / other - 1) for one, other in zip(ours, theirs, strict=True))
    if difference > 1e-5:
        print(f"{shape}: the log-likelihoods differ by {difference:.1e}: the models do not do the same work")
        return 1
    spent: list[list[tuple[float, float]]] = [[], []]
    for turn in range(options.turns):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            clock, processor = time.perf_counter(), time.process_time()
            runs[which]()
            spent[which].append((time.perf_counter() - clock, time.process_time() - processor))
    print(
        f"{shape}: fp32, {len(texts)} files, {num_tokens} tokens, batch {options.batch}, "
        f"{options.threads} threads; log-likelihoods within {difference:.1e} of one another"
    )
    for kind, name in enumerate(("by the clock", "by processor time")):
        ratios = sorted(their[kind] / our[kind] for our, their in zip(*spent, strict=True))
        speeds = [num_tokens / statistics.median(turn[kind] for turn in column) for column in spent]
        print(
            f"  {name}: ours {speeds[0]:.0f} tokens/s, hf {speeds[1]:.0f} tokens/s, "
            f"ratio median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} turns"
        )
    return 0


def _write_data(folder: Path, wanted: int, vocab: int) -> tuple[list[str], int]:
    """Files of the standard library of at most so many tokens, and their number; tokenizer.json of `vocab` ids.

    The vocabulary is learned from them; ids beyond what there is to learn stand for nothing.
    """
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::7]
    texts = [text for path in paths if (text := path.read_text(encoding="utf-8", errors="replace"))]
    settings = json.loads(train_vocabulary(texts, vocab_size=min(vocab, 8192)).to_str())
    ids = settings["model"]["vocab"]
    ids |= {f"<{number}>": number for number in range(len(ids), vocab)}
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = HFTokenizer(vocab_file=str(folder / "tokenizer.json"))
    chosen: list[str] = []
    total = 0
    for text, length in zip(texts, map(len, tokenizer.encode_batch(texts)), strict=True):
        if total + length <= wanted:
            chosen.append(text)
            total += length
    return chosen, total


def _write_model(folder: Path, shape: Shape) -> None:
    """A folder of transformers: PolyCoder's architecture (sequential residual, full rotary) with random weights."""
    end = END_OF_DOCUMENT
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token=end, pad_token=end
    ).save_pretrained(folder)
    settings: dict[str, Any] = {
        "vocab_size": shape.vocab, "hidden_size": shape.hidden, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "intermediate_size": 4 * shape.hidden, "hidden_act": "gelu",
        "max_position_embeddings": shape.positions, "rotary_pct": 1.0, "use_parallel_residual": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**settings))
    for parameter in model.parameters():
        if parameter.dim() > 1:  # larger than at the start of training, so that probabilities differ
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)


def _our_model(folder: Path, batch: int) -> HarnessModel:
    with tempfile.TemporaryDirectory() as workspace:
        stored = open_input(str(folder), workspace=Path(workspace)).stored
    parallel = TensorParallel.single()
    vocab = stored.model.padded_vocab_size
    assert vocab is not None
    model = InferenceModel(
        model_of(stored), stored.model, parallel, vocab_size=vocab, padded_vocab_size=vocab, checkpoint=folder
    )
    tokenizer = HFTokenizer(vocab_file=str(folder / "tokenizer.json"))
    return HarnessModel(SharedWork(model, tokenizer, Workers(), EvaluationConfig(eval_batch_size=batch)))


def _their_model(folder: Path, batch: int) -> HFLM:
    make: Any = HFLM  # its arguments are hidden behind a decorator
    return make(pretrained=str(folder), dtype="float32", batch_size=batch, device="cpu")


def _request(text: str) -> Instance:
    return Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
