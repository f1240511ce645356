#!/usr/bin/env python3
"""Training speed on this CPU against transformers' GPTNeoX: same weights, batches and optimizer, one interleaved run.

The two models take turns, a few steps each, so that a machine whose speed drifts slows both alike; the figure is
the median over the turns of (our tokens per second) / (theirs). First the losses of the first steps must agree.
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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from megatron.neox.config import Config
from megatron.neox.engine.build import TrainingEngine, build_training_engine
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.errors import run_door

LEARNING_RATE = 6e-4
EXAMPLES = """examples:
  benchmarks/train_cpu.py
  benchmarks/train_cpu.py --layers 12 --hidden 768 --vocab 50304 --precision bf16 --steps 2 --turns 5
"""
AGREEMENT = 1e-4  # nats; of the losses of the first steps, fp32


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--length", type=int, default=512, help="tokens in a sequence")
    parser.add_argument("--batch", type=int, default=4, help="sequences in a step")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=4, help="steps in a turn")
    parser.add_argument("--turns", type=int, default=9, help="turns of each model that are counted")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)

    config = our_config(options)
    with ProcessGrid.build(config.parallelism) as grid:
        engine = build_training_engine(config, grid, padded_vocab_size=options.vocab)
        theirs = their_model(options, engine)
        return compare(options, engine, theirs)


def our_config(options: argparse.Namespace) -> Config:
    """PolyCoder's shape: sequential residual, full rotary, gelu."""
    return Config.from_flat(
        {
            "num_layers": options.layers,
            "hidden_size": options.hidden,
            "num_attention_heads": options.heads,
            "seq_length": options.length,
            "max_position_embeddings": options.length,
            "pos_emb": "rotary",
            "no_weight_tying": True,
            "precision": options.precision,
            "optimizer": {"type": "adamw", "params": {"lr": LEARNING_RATE, "betas": [0.9, 0.95]}},
            "weight_decay": 0.0,
            "gradient_clipping": 1.0,
            "lr_decay_style": "constant",
            "warmup": 0.0,
            "train_iters": 10**6,
            "train_micro_batch_size_per_gpu": options.batch,
            "gradient_accumulation_steps": 1,
            "train_batch_size": options.batch,
        }
    )


def their_model(options: argparse.Namespace, engine: TrainingEngine) -> GPTNeoXForCausalLM:
    """transformers' model with the engine's weights."""
    settings: dict[str, Any] = {
        "vocab_size": options.vocab,
        "hidden_size": options.hidden,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.heads,
        "intermediate_size": 4 * options.hidden,
        "max_position_embeddings": options.length,
        "rotary_pct": 1.0,
        "use_parallel_residual": False,
        "hidden_act": "gelu",
        "tie_word_embeddings": False,
        "attn_implementation": "sdpa",
    }
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**settings))
    model.load_state_dict(their_names(engine, options.layers), strict=True)
    if options.precision == "bf16":
        model.bfloat16()
    return model


def their_names(engine: TrainingEngine, num_layers: int) -> dict[str, Tensor]:
    """The engine's weights under transformers' names."""
    weights: dict[str, Tensor] = {}
    for plan, layer in engine.owned_layers:
        number = plan.number
        for name, tensor in layer.state_dict().items():
            if number == 0:
                target = "gpt_neox.embed_in.weight"
            elif number == num_layers + 3:
                target = f"gpt_neox.final_layer_norm.{name.removeprefix('norm.')}"
            elif number == num_layers + 4:
                target = "lm_head.weight"
            else:
                target = f"gpt_neox.layers.{number - 2}.{name}"
            weights[target] = tensor.detach().clone().float()
    return weights


def compare(options: argparse.Namespace, engine: TrainingEngine, theirs: GPTNeoXForCausalLM) -> int:
    """Check that both learn the same, then time them in turns."""
    ours_step, theirs_step = our_step(engine, batches(options)), their_step(theirs, batches(options))
    first = [(ours_step(), theirs_step()) for _ in range(3)]
    worst = max(abs(a - b) for a, b in first)
    print("losses of the first steps, ours and theirs:", *(f"{a:.5f} {b:.5f}" for a, b in first), sep="  ")
    if options.precision == "fp32" and worst > AGREEMENT:
        print(f"the losses differ by {worst:.2g}: the models do not do the same work")
        return 1

    tokens = options.batch * options.length * options.steps
    ours: list[float] = []
    peers: list[float] = []
    for turn in range(options.turns):
        order = [(ours_step, ours), (theirs_step, peers)]
        for step, speeds in order if turn % 2 == 0 else reversed(order):
            start = time.perf_counter()
            for _ in range(options.steps):
                step()
            speeds.append(tokens / (time.perf_counter() - start))
    ratios = sorted(a / b for a, b in zip(ours, peers, strict=True))
    print(
        f"{options.layers} x {options.hidden}, vocabulary {options.vocab}, {options.batch} x {options.length} tokens a "
        f"step, {options.precision}, {options.threads} threads, {platform.machine()}, torch {torch.__version__}"
    )
    print(f"ours    median {statistics.median(ours):8.0f} tokens/s")
    print(f"theirs  median {statistics.median(peers):8.0f} tokens/s   (transformers GPTNeoX, sdpa)")
    print(
        f"ratio   median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} turns"
    )
    return 0


def batches(options: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches, the same for whoever asks: rows that count up by small steps, easy to learn."""
    generator = torch.Generator().manual_seed(1)
    while True:
        start = torch.randint(options.vocab, (options.batch, 1), generator=generator)
        stride = torch.randint(1, 4, (options.batch, 1), generator=generator)
        tokens = (start + stride * torch.arange(options.length + 1)) % options.vocab
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def our_step(engine: TrainingEngine, source: Iterator[tuple[Tensor, Tensor]]) -> Callable[[], float]:
    """One optimizer step of ours; returns the loss."""
    return lambda: engine.train_step(source).loss


def their_step(model: GPTNeoXForCausalLM, source: Iterator[tuple[Tensor, Tensor]]) -> Callable[[], float]:
    """One optimizer step of a plain torch loop around transformers' model; returns the loss."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    model.train()

    def step() -> float:
        token_ids, labels = next(source)
        logits = model(input_ids=token_ids, use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
