#!/usr/bin/env python3
"""Greedy decoding on this CPU against transformers' generate: same weights, same prompts, one interleaved run.

The two take turns, so that a machine whose speed drifts slows both alike; the figure is the median over the turns
of (our tokens per second) / (theirs), the reading of the prompts included. First the ids must be the same.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from megatron.neox.config import GenerationConfig, ModelConfig
from megatron.neox.engine.inference import InferenceModel
from megatron.neox.errors import run_door
from megatron.neox.generation.decode import generate
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import plain_model
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.tokenizers import Tokenizer

EXAMPLES = """examples:
  benchmarks/generate_cpu.py
  benchmarks/generate_cpu.py --layers 12 --hidden 768 --vocab 50304 --batches 1 --turns 5
"""


class Numbers:
    """Ids written as numbers: the benchmark decodes ids, and no text."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.eod = vocab_size - 1

    def encode(self, text: str) -> list[int]:
        """The numbers of a text."""
        return [int(number) for number in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        """Numbers with spaces between."""
        return " ".join(map(str, ids))


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--prompt", type=int, default=64, help="tokens in a prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens to generate")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="batch sizes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=5, help="turns of each that are counted")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    ours, theirs = models(options)
    print(
        f"{options.layers} x {options.hidden}, vocabulary {options.vocab}, {options.prompt} + {options.new} tokens, "
        f"fp32, {options.threads} threads, {platform.machine()}, torch {torch.__version__}"
    )
    return max(compare(options, ours, theirs, batch) for batch in options.batches)


def models(options: argparse.Namespace) -> tuple[InferenceModel, GPTNeoXForCausalLM]:
    """PolyCoder's shape (sequential residual, full rotary, gelu), ours and theirs with the same weights."""
    length = options.prompt + options.new
    config = ModelConfig(
        num_layers=options.layers, hidden_size=options.hidden, num_attention_heads=options.heads,
        seq_length=length, max_position_embeddings=length, pos_emb="rotary", no_weight_tying=True,
    )  # fmt: skip
    torch.manual_seed(0)
    parallel = TensorParallel.single()
    net = plain_model(build_layers(config, padded_vocab_size=options.vocab, parallel=parallel))
    theirs = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=options.vocab, hidden_size=options.hidden, num_hidden_layers=options.layers,
            num_attention_heads=options.heads, intermediate_size=4 * options.hidden,
            max_position_embeddings=length, rotary_pct=1.0, use_parallel_residual=False, hidden_act="gelu",  # pyright: ignore[reportCallIssue]
            tie_word_embeddings=False, attn_implementation="sdpa", eos_token_id=None, bos_token_id=None,  # pyright: ignore[reportCallIssue]
        )
    )  # fmt: skip
    for (
        parameter
    ) in net.parameters():  # larger than at the start of training, so that no two logits are close
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    theirs.load_state_dict(
        {their_name(name, options.layers): value for name, value in net.layers.state_dict().items()}
    )
    ours = InferenceModel(
        net,
        config,
        parallel,
        vocab_size=options.vocab,
        padded_vocab_size=options.vocab,
        checkpoint=Path("random"),
    )
    return ours, theirs.eval()


def their_name(name: str, num_layers: int) -> str:
    """transformers' name of a weight."""
    number, _, rest = name.partition(".")
    if int(number) == 0:
        return "gpt_neox.embed_in.weight"
    if int(number) == num_layers + 3:
        return f"gpt_neox.final_layer_norm.{rest.removeprefix('norm.')}"
    if int(number) == num_layers + 4:
        return "lm_head.weight"
    return f"gpt_neox.layers.{int(number) - 2}.{rest}"


def compare(options: argparse.Namespace, ours: InferenceModel, theirs: GPTNeoXForCausalLM, batch: int) -> int:
    """Check that both say the same, then time them in turns."""
    prompts = torch.randint(
        options.vocab - 1, (batch, options.prompt), generator=torch.Generator().manual_seed(1)
    )
    runs = [our_run(options, ours, prompts), their_run(options, theirs, prompts)]
    if runs[0]() != runs[1]():
        print(f"batch {batch}: the ids differ: the models do not do the same work")
        return 1
    speeds: list[list[float]] = [[], []]
    for turn in range(options.turns):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            start = time.perf_counter()
            runs[which]()
            speeds[which].append(batch * options.new / (time.perf_counter() - start))
    ratios = sorted(a / b for a, b in zip(*speeds, strict=True))
    print(
        f"batch {batch}: ours {statistics.median(speeds[0]):.0f} tokens/s, "
        f"transformers {statistics.median(speeds[1]):.0f} tokens/s, "
        f"ratio median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} turns"
    )
    return 0


def our_run(
    options: argparse.Namespace, model: InferenceModel, prompts: torch.Tensor
) -> Callable[[], list[list[int]]]:
    """Decode the prompts with generation/decode.py."""
    tokenizer = cast(Tokenizer, Numbers(options.vocab))
    texts = [tokenizer.decode(row) for row in prompts.tolist()]
    settings = GenerationConfig(maximum_tokens=options.new, generation_batch_size=len(texts))
    return lambda: [list(record.token_ids) for record in generate(model, tokenizer, texts, settings)]


def their_run(
    options: argparse.Namespace, model: GPTNeoXForCausalLM, prompts: torch.Tensor
) -> Callable[[], list[list[int]]]:
    """Decode the prompts with transformers' generate and its cache."""
    keywords: dict[str, Any] = {"attention_mask": torch.ones_like(prompts), "pad_token_id": 0}

    def run() -> list[list[int]]:
        ids = cast(Any, model).generate(prompts, max_new_tokens=options.new, do_sample=False, **keywords)
        return cast(torch.Tensor, ids)[:, options.prompt :].tolist()

    return run


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
