"""Miniature checkpoints with every detail of GPT-NeoX's own, of 2022 (PolyCoder's tars) and of today.

    python -m tests.neox_2022 DIR --size 2-7B

writes DIR/checkpoints as `2-7B-150K.tar` unpacks: names, order and types of the tensors, buffers, replicas, random
states, configs; only the sizes are small. Nothing here imports the reader. Sources: EleutherAI/gpt-neox at 8229d92
(`model/transformer.py`, `mpu/layers.py`, `checkpointing.py`), DeepSpeed 0.3.15 (`runtime/engine.py`,
`runtime/pipe/module.py`), the config printed in VHellendoorn/Code-LMs#27.
"""

from __future__ import annotations

import argparse
import math
import pickle
import random
import types
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from torch import Tensor

Layers = dict[int, dict[str, Tensor]]
"""Whole tensors by layer number and today's names of GPT-NeoX's modules, as one rank would hold them."""

_BLOCK = 2**20  # numbers

CONFIG_NAMES = {"2-7B": "2-7B.yml", "0-4B": "medium.yml", "160M": "small.yml"}


@dataclass(frozen=True)
class Miniature:
    """What to write.

    Args:
        rows: of the embedding, padding included: 50257 ids make 50304.
        tensor_size: model_parallel_size of the run that wrote it.
        is_sequential: one file for each rank (pipe-parallel-size 0) instead of layer files.
        names: of the MLP: "2022" dense_h_to_4h, "today" linear1 (since 2024-09), "llama" w1, w3, w2 (before).
        parallel_residual: gpt_j_residual.
        num_kv_heads: grouped queries, laid out as was usual when `names` were.
        row_head: final_linear split by hidden size: output_layer_parallelism "row".
        drift: how far the replicas of norms differ from one another, relative.
        scale: standard deviation of the weights; choices are clear-cut with large ones.
        repeats: make every tensor of one block, which is cheap for large models.
    """

    num_layers: int = 2
    hidden_size: int = 64
    num_heads: int = 4
    rows: int = 50304
    tensor_size: int = 1
    is_sequential: bool = False
    names: str = "2022"
    parallel_residual: bool = False
    num_kv_heads: int | None = None
    row_head: bool = False
    drift: float = 0.0
    scale: float = 0.1
    step: int = 150000
    dtype: torch.dtype = torch.float16
    seed: int = 1
    repeats: bool = False

    @property
    def layer_numbers(self) -> list[int]:
        """Layers that have weights; 1 and L + 2 were functions."""
        return [0, *range(2, self.num_layers + 2), self.num_layers + 3, self.num_layers + 4]

    @property
    def is_llama(self) -> bool:
        """Whether it has a gated MLP, rmsnorm and no biases."""
        return self.names == "llama" or self.num_kv_heads is not None

    @property
    def mlp_size(self) -> int:
        """Width of the MLP."""
        return 2 * self.hidden_size if self.is_llama else 4 * self.hidden_size

    @property
    def head_size(self) -> int:
        """Features of a head, all of which turn."""
        return self.hidden_size // self.num_heads


def write_checkpoint_of_neox(folder: Path, mini: Miniature) -> Layers:
    """Write `folder/global_step150000` and `folder/latest`; returns the whole tensors, exact in `mini.dtype`.

    Of a model whose weights repeat themselves nothing is returned, and no more than a layer is held in memory.
    """
    step = folder / f"global_step{mini.step}"
    step.mkdir(parents=True)
    layers: Layers = {}
    modules: list[dict[int, OrderedDict[str, Tensor]]] = [{} for _ in range(mini.tensor_size)]
    for number in mini.layer_numbers:
        whole, shards = random_layer(number, mini)
        if not mini.repeats:
            layers[number] = whole
        for rank, shard in enumerate(shards):
            state = _module(shard, number, mini)
            if mini.is_sequential:
                modules[rank][number] = state
            else:
                _save_as_2022(state, step / f"layer_{number:02d}-model_{rank:02d}-model_states.pt")
    for rank in range(mini.tensor_size):
        _save_as_2022(_rank_state(modules[rank], mini), step / f"mp_rank_{rank:02d}_model_states.pt")
    (folder / "latest").write_text(step.name)
    return layers


def unpack_tar(folder: Path, size: str = "2-7B", mini: Miniature | None = None) -> Layers:
    """Write `folder/checkpoints` as the tar of a released size leaves it."""
    mini = mini or Miniature()
    checkpoints = folder / "checkpoints"
    layers = write_checkpoint_of_neox(checkpoints, mini)
    for configs in (checkpoints / "configs", checkpoints / f"global_step{mini.step}" / "configs"):
        configs.mkdir()
        (configs / "local_setup.yml").write_text(LOCAL_SETUP)
        (configs / "text_generation.yml").write_text(TEXT_GENERATION)
        (configs / CONFIG_NAMES[size]).write_text(model_config(mini))
    return layers


# --- tensors ------------------------------------------------------------------------------------------------


def random_model(mini: Miniature) -> Layers:
    """Its whole tensors."""
    return {number: random_layer(number, mini)[0] for number in mini.layer_numbers}


def random_layer(number: int, mini: Miniature) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """A layer's whole tensors, and what each rank holds of them."""
    generator = torch.Generator().manual_seed(1000 * mini.seed + number)

    def draw(*shape: int, mean: float = 0.0) -> Tensor:
        count = math.prod(shape)
        drawn = torch.randn(min(count, _BLOCK) if mini.repeats else count, generator=generator)
        values = (drawn * mini.scale + mean).to(mini.dtype)
        return values.repeat(-(-count // values.numel()))[:count].view(shape)

    def small(*shape: int) -> Tensor:
        """Multiples of 1/1024, so that the sum of some of them is exact in 16 bits."""
        return (torch.randint(-64, 65, shape, generator=generator) / 1024).to(mini.dtype)

    whole: dict[str, Tensor]
    summands: dict[str, list[Tensor]] = {}
    if number == 0:
        whole = {"word_embeddings.weight": draw(mini.rows, mini.hidden_size)}
    elif number == mini.num_layers + 3:
        whole = _norm("norm", mini, draw)
    elif number == mini.num_layers + 4:
        whole = {"final_linear.weight": draw(mini.rows, mini.hidden_size)}
    else:
        whole, summands = _random_layer(mini, draw, small)
    shards = [
        {
            name: summands[name][rank] if name in summands else _shard(name, tensor, rank, mini)
            for name, tensor in whole.items()
        }
        for rank in range(mini.tensor_size)
    ]
    return whole, shards


def _random_layer(
    mini: Miniature, draw: Any, small: Any
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """A layer's whole tensors, and those that are the sum of different ones on each rank."""
    h, m, d = mini.hidden_size, mini.mlp_size, mini.head_size
    groups = mini.num_kv_heads or mini.num_heads
    layer = {
        **_norm("input_layernorm", mini, draw),
        "attention.query_key_value.weight": draw((mini.num_heads + 2 * groups) * d, h),
        "attention.dense.weight": draw(h, h),
        **_norm("post_attention_layernorm", mini, draw),
    }
    if mini.is_llama:
        # up_proj, then gate_proj, then down_proj of a llama
        layer |= {"value": draw(m, h), "gate": draw(m, h), "mlp.linear2.weight": draw(h, m)}
        return layer, {}
    layer |= {"mlp.linear1.weight": draw(m, h), "mlp.linear2.weight": draw(h, m)}
    layer |= {"attention.query_key_value.bias": draw(3 * h), "mlp.linear1.bias": draw(m)}
    row_biases = ("attention.dense.bias", "mlp.linear2.bias")
    if not mini.parallel_residual:
        return layer | {name: draw(h) for name in row_biases}, {}
    summands = {name: [small(h) for _ in range(mini.tensor_size)] for name in row_biases}
    return layer | {name: torch.stack(parts).sum(0) for name, parts in summands.items()}, summands


def _norm(name: str, mini: Miniature, draw: Any) -> dict[str, Tensor]:
    if mini.is_llama:
        return {f"{name}.scale": draw(mini.hidden_size, mean=1.0)}
    return {f"{name}.weight": draw(mini.hidden_size, mean=1.0), f"{name}.bias": draw(mini.hidden_size)}


def _shard(name: str, whole: Tensor, rank: int, mini: Miniature) -> Tensor:
    """What a rank holds of a tensor: rows of a column-parallel layer, columns of a row-parallel one."""
    size = mini.tensor_size
    if "norm" in name:
        # The same on every rank, but for what rounding did to it in many steps.
        return (whole.float() * (1 + mini.drift * (rank - (size - 1) / 2))).to(whole.dtype)
    if name.endswith(("dense.bias", "linear2.bias")):
        return whole.clone()
    if name.endswith(("dense.weight", "linear2.weight")) or (mini.row_head and name == "final_linear.weight"):
        return whole.chunk(size, 1)[rank].contiguous()
    if "query_key_value" in name and mini.num_kv_heads is not None:
        counts = [count * mini.head_size for count in (mini.num_heads, mini.num_kv_heads, mini.num_kv_heads)]
        q, k, v = (part.chunk(size, 0)[rank] for part in whole.split(counts))
        return torch.cat((q, k, v)) if mini.names == "today" else _interleaved(q, k, v, mini)
    return whole.chunk(size, 0)[rank].contiguous()


def _interleaved(q: Tensor, k: Tensor, v: Tensor, mini: Miniature) -> Tensor:
    """Grouped queries before 2024-11: as many heads as queries have, each with a slice of the keys and values."""
    heads = mini.num_heads // mini.tensor_size
    parts = [x.reshape(heads, x.shape[0] // heads, x.shape[1]) for x in (q, k, v)]
    return torch.cat(parts, 1).reshape(-1, q.shape[1])


# --- files --------------------------------------------------------------------------------------------------


def _module(shard: dict[str, Tensor], number: int, mini: Miniature) -> OrderedDict[str, Tensor]:
    """A layer's state dict, in the order in which its modules are made."""
    if not 2 <= number < mini.num_layers + 2:
        return OrderedDict(shard)
    get = shard.get
    state: dict[str, Tensor | None] = {
        name: tensor for name, tensor in shard.items() if "input_layernorm" in name
    }
    for part in ("weight", "bias"):
        state[f"attention.query_key_value.{part}"] = get(f"attention.query_key_value.{part}")
    if mini.names != "today":  # rotary_save_freqs_buffer is false since 2024
        state["attention.rotary_emb.inv_freq"] = inverse_frequencies(mini)
    for part in ("weight", "bias"):
        state[f"attention.dense.{part}"] = get(f"attention.dense.{part}")
    state |= {name: tensor for name, tensor in shard.items() if "post_attention" in name}
    state |= _mlp(shard, mini)
    return OrderedDict((name, tensor) for name, tensor in state.items() if tensor is not None)


def _mlp(shard: dict[str, Tensor], mini: Miniature) -> dict[str, Tensor | None]:
    down = shard["mlp.linear2.weight"]
    if mini.names == "llama":
        return {"mlp.w1.weight": shard["gate"], "mlp.w3.weight": shard["value"], "mlp.w2.weight": down}
    up = torch.cat((shard["value"], shard["gate"])) if mini.is_llama else shard["mlp.linear1.weight"]
    first, second = ("linear1", "linear2") if mini.names == "today" else ("dense_h_to_4h", "dense_4h_to_h")
    return {
        f"mlp.{first}.weight": up,
        f"mlp.{first}.bias": shard.get("mlp.linear1.bias"),
        f"mlp.{second}.weight": down,
        f"mlp.{second}.bias": shard.get("mlp.linear2.bias"),
    }


def inverse_frequencies(mini: Miniature) -> Tensor:
    """The rotary buffer, which DeepSpeed made fp16 with the rest of the module."""
    exact = 1.0 / (10000 ** (torch.arange(0, mini.head_size, 2).float() / mini.head_size))
    return exact.to(mini.dtype)


def _rank_state(modules: dict[int, OrderedDict[str, Tensor]], mini: Miniature) -> dict[str, Any]:
    """What DeepSpeed wrote of a rank, with GPT-NeoX's client state."""
    module: OrderedDict[str, Tensor] | None = None
    if mini.is_sequential:
        module = OrderedDict(
            (f"sequential.{number}.{name}", tensor)
            for number, state in modules.items()
            for name, tensor in state.items()
        )
        # What nn.Module.state_dict leaves on its result, and pickle keeps.
        module._metadata = OrderedDict({"": {"version": 1}, "sequential": {"version": 1}})  # pyright: ignore
    stream = torch.Generator().manual_seed(7).get_state()
    return {
        "module": module,
        "optimizer": None,
        "lr_scheduler": {
            "start_lr": 0.00016, "warmup_iter": 1600.0, "num_iters": mini.step, "decay_style": "cosine",
            "end_iter": 160000, "min_lr": 0.0,
        },
        "csr_tensor_module_names": set(),
        "skipped_steps": 16,
        "global_steps": mini.step,
        "global_samples": mini.step * 128,
        "dp_world_size": 4,
        "mp_world_size": mini.tensor_size,
        "iteration": mini.step,
        "args": {
            "num_layers": mini.num_layers,
            "hidden_size": mini.hidden_size,
            "num_attention_heads": mini.num_heads,
            "max_position_embeddings": 2048,
            "make_vocab_size_divisible_by": 128,
            "padded_vocab_size": mini.rows,
            "tokenizer_type": "GPT2BPETokenizer",
            "model_parallel_size": mini.tensor_size,
        },
        "random_rng_state": random.Random(1234).getstate(),
        "np_rng_state": numpy.random.RandomState(1234).get_state(),
        "torch_rng_state": stream,
        "cuda_rng_state": stream[:816].clone(),
        "rng_tracker_states": {"model-parallel-rng": stream[:816].clone()},
    }  # fmt: skip


class _Pickler2022(pickle._Pickler):  # pyright: ignore
    """Names numpy's rebuilding function as before numpy 2, and says of weights that they lay on a GPU."""

    def save_pers(self, pid: Any) -> None:
        kind, storage_type, key, location, size = pid
        if storage_type in (torch.HalfStorage, torch.BFloat16Storage):
            location = "cuda:0"
        super().save_pers((kind, storage_type, key, location, size))  # pyright: ignore

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__module__", "").startswith("numpy._core."):
            self.write(f"c{obj.__module__.replace('_core', 'core')}\n{obj.__qualname__}\n".encode())
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch: ClassVar[dict[Any, Any]] = {
        **pickle._Pickler.dispatch,  # pyright: ignore
        types.FunctionType: save_global,
        types.BuiltinFunctionType: save_global,
    }


def _save_as_2022(state: Mapping[str, Any], path: Path) -> None:
    # torch.save asks for a module with a Pickler.
    module: Any = types.SimpleNamespace(Pickler=_Pickler2022, __name__="pickle")
    torch.save(state, path, pickle_module=module, pickle_protocol=2)


# --- configs ------------------------------------------------------------------------------------------------

LOCAL_SETUP = """\
# Where a 2022 user's files lay.
{
  "data-path": "data/code/code_text_document",

  "vocab-file": "data/code-vocab.json",
  "merge-file": "data/code-merges.txt",

  "save": "checkpoints",
  "load": "checkpoints",
  "checkpoint_validation_with_forward_pass": False,

  "tensorboard-dir": "tensorboard",
  "log-dir": "logs",
  "use_wandb": True,
  "wandb_host": "https://api.wandb.ai",
  "wandb_project": "neox"
}
"""

TEXT_GENERATION = """\
# How to sample.
{
  "text-gen-type": "interactive",

  "maximum_tokens": 256,
  "temperature": 0.5,
  "top_p": 0.0,
  "top_k": 0,
  "recompute": false,

  "num-samples": 10,
  "sample-input-file": "sample_input.txt",
  "sample-output-file": "sample_output.txt",
}
"""


def model_config(mini: Miniature) -> str:
    """2-7B.yml (medium.yml, small.yml) with the miniature's sizes; PolyCoder's is of pipe-parallel-size 1."""
    return f"""\
# A released size, scaled down.
{{
   # the grid
   "pipe-parallel-size": {0 if mini.is_sequential else 1},
   "model-parallel-size": {mini.tensor_size},

   # the model
   "num-layers": {mini.num_layers},
   "hidden-size": {mini.hidden_size},
   "num-attention-heads": {mini.num_heads},
   "seq-length": 2048,
   "max-position-embeddings": 2048,
   "norm": "layernorm",
   "pos-emb": "rotary",
   "no-weight-tying": true,

   # kernels
   "scaled-upper-triang-masked-softmax-fusion": true,
   "bias-gelu-fusion": true,

   # the optimizer
   "zero_allow_untested_optimizer": true,
   "optimizer": {{
     "type": "adam",
     "params": {{
       "lr": 0.00016,
       "betas": [0.9, 0.999],
       "eps": 1.0e-8,
     }}
   }},
   "zero_optimization": {{
    "stage": 1,
    "allgather_partitions": True,
    "allgather_bucket_size": 500000000,
    "overlap_comm": True,
    "reduce_scatter": True,
    "reduce_bucket_size": 500000000,
    "contiguous_gradients": True,
    "cpu_offload": False
  }},

   # batches and data
   "train_micro_batch_size_per_gpu": 8,
   "gradient_accumulation_steps": 4,
   "data-impl": "mmap",
   "split": "989,10,1",

   # recomputation
   "checkpoint-activations": true,
   "checkpoint-num-layers": 1,
   "partition-activations": true,
   "synchronize-each-layer": true,

   # dropout and decay
   "gradient_clipping": 1.0,
   "weight-decay": 0,
   "hidden-dropout": 0,
   "attention-dropout": 0,

   # number format
   "fp16": {{
     "fp16": true,
     "enabled": true,
     "loss_scale": 0,
     "loss_scale_window": 1000,
     "initial_scale_power": 16,
     "hysteresis": 2,
     "min_loss_scale": 1
   }},

   # the run
   "train-iters": 160000,
   "lr-decay-iters": 160000,
   "distributed-backend": "nccl",
   "lr-decay-style": "cosine",
   "warmup": 0.01,
   "save-interval": 1000,
   "eval-interval": 1000,
   "eval-iters": 10,

   # what is told
   "log-interval": 100,
   "steps_per_print": 10,
   "keep-last-n-checkpoints": 1,
   "wall_clock_breakdown": true,
}}
"""


def main() -> None:
    """Write one by hand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where checkpoints/ goes")
    parser.add_argument("--size", choices=CONFIG_NAMES, default="2-7B", help="whose tar it looks like")
    parser.add_argument("--model-parallel-size", type=int, default=1, help="ranks that wrote it")
    parser.add_argument("--sequential", action="store_true", help="one file for each rank, no layer files")
    options = parser.parse_args()
    size = options.model_parallel_size
    rows = math.ceil(50257 / (128 * size)) * 128 * size
    mini = Miniature(rows=rows, tensor_size=size, is_sequential=options.sequential)
    unpack_tar(options.folder, options.size, mini)


if __name__ == "__main__":
    main()
