"""A checkpoint of one grid and ZeRO stage, loaded under another: the same bits, and the same losses from there on.

Saved under each of four grids and loaded under every other one, so that every value of every axis changes both ways.
DeepSpeed has no ZeRO 2 and 3 under its pipeline.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron.neox.engine.build import TrainingEngine
from megatron.neox.engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.partitions import Partitions
from megatron.neox.nn.parallel import ShardLayout, shard_layout
from tests.forked_ranks import run_ranks
from tests.numerics.tiny_run import engine_on, make_config, num_ranks, steps

pytestmark = pytest.mark.long

SAVE_STEP, NUM_STEPS_AFTER = 3, 10

GRIDS = {
    "one": {},
    "pp2": {"pp": 2},
    "tp2-zero2": {"tp": 2, "zero": 2},
    "dp2-zero3": {"dp": 2, "zero": 3},
    "pp2-tp2": {"pp": 2, "tp": 2},
    "tp2-dp2": {"tp": 2, "dp": 2},
}
TITLES = {
    "one": "pp 1, tp 1, dp 1, ZeRO 1",
    "pp2": "pp 2, tp 1, dp 1, ZeRO 1",
    "tp2-zero2": "pp 1, tp 2, dp 1, ZeRO 2",
    "dp2-zero3": "pp 1, tp 1, dp 2, ZeRO 3",
    "pp2-tp2": "pp 2, tp 2, dp 1, ZeRO 1",
    "tp2-dp2": "pp 1, tp 2, dp 2, ZeRO 1",
}

Shards = dict[tuple[int, str, str], tuple[int, ShardLayout, np.ndarray]]
"""A tensor rank's shards by layer, parameter and kind (fp32, exp_avg, ..), with the rank and how they are split."""


def shards_of(engine: TrainingEngine) -> Shards:
    """The fp32 weights and the optimizer's state of the layers that this rank's stage owns; and the step's number."""
    partitions = Partitions(engine.deepspeed, engine.grid.groups["data"])
    rank = engine.grid.tensor_rank
    shards: Shards = {}
    for plan, layer in engine.owned_layers:
        for name, parameter in layer.named_parameters():
            for kind in (None, *partitions.state_names()):
                value = partitions.read(parameter, kind).cpu().numpy()
                shards[plan.number, name, kind or "fp32"] = (rank, shard_layout(parameter), value)
        for kind, number in partitions.state_numbers().items():
            shards[plan.number, "", kind] = (rank, ShardLayout(), np.array(number))
    return shards


def joined(ranks: list[Shards]) -> dict[tuple[int, str, str], bytes]:
    """The bits of every logical tensor, from all ranks' shards; replicas are found to be equal."""
    whole: dict[tuple[int, str, str], bytes] = {}
    for key in {key for shards in ranks for key in shards}:
        found = [shards[key] for shards in ranks if key in shards]
        layout = found[0][1]
        by_rank: dict[int, np.ndarray] = {}
        for rank, _, value in found:
            place = rank if layout.dim is not None else 0
            assert by_rank.setdefault(place, value).tobytes() == value.tobytes(), key
        tensors = [torch.from_numpy(by_rank[rank]) for rank in sorted(by_rank)]
        whole[key] = layout.merge(tensors).numpy().tobytes()
    return whole


def config_on(grid: dict[str, int], keys: dict[str, Any]) -> Any:
    return make_config(grid, zero_optimization={"stage": grid.get("zero", 1)}, train_iters=20, **keys)


def save_and_go_on(
    folder: Path, grid: dict[str, int], keys: dict[str, Any], num_steps: int
) -> tuple[Shards, list[float]]:
    config = config_on(grid, keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        steps(engine, SAVE_STEP)
        save_checkpoint(engine, folder, state={}, config_keys={}, tokenizer={})
        shards = shards_of(engine)
        return shards, [result.loss for result in steps(engine, num_steps)]


def load_and_go_on(
    folder: Path, grid: dict[str, int], keys: dict[str, Any], num_steps: int
) -> tuple[Shards, list[float], list[str]]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("megatron.neox.engine.checkpoint")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    config = config_on(grid, keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = engine_on(process_grid, config)
        checkpoint = find_checkpoint(folder, strict=True)
        assert checkpoint is not None
        load_checkpoint(engine, checkpoint, weights_only=False)
        assert engine.step == SAVE_STEP
        return shards_of(engine), [r.loss for r in steps(engine, num_steps)], messages


Saved = tuple[Path, dict[tuple[int, str, str], bytes], list[float]]


MATRIX = ["one", "tp2-zero2", "dp2-zero3", "pp2-tp2"]


@pytest.fixture(scope="module")
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A checkpoint of a grid, its logical tensors, and the losses of the run that went on."""
    return save_on(tmp_path_factory.mktemp(request.param), GRIDS[request.param], {})


def save_on(
    folder: Path, grid: dict[str, int], keys: dict[str, Any], num_steps: int = NUM_STEPS_AFTER
) -> Saved:
    ranks = run_ranks(num_ranks(grid), save_and_go_on, folder, grid, keys, num_steps)
    return folder, joined([shards for shards, _ in ranks]), ranks[0][1]


def check_loaded(saved: Saved, grid: dict[str, int], keys: dict[str, Any]) -> list[str]:
    """Load under another grid, compare, and return what was logged on rank 0."""
    folder, tensors, losses = saved
    ranks = run_ranks(num_ranks(grid), load_and_go_on, folder, grid, keys, len(losses))
    found = joined([shards for shards, *_ in ranks])
    assert found.keys() == tensors.keys()
    assert [key for key in tensors if found[key] != tensors[key]] == []
    assert ranks[0][1] == pytest.approx(losses, abs=1e-5)
    return ranks[0][2]


@pytest.mark.parametrize(
    ("saved", "old", "new"),
    [(old, old, new) for old in MATRIX for new in MATRIX if new != old],
    ids=lambda name: name,
    indirect=["saved"],
)
def test_another_grid_holds_the_same_bits_and_goes_on_the_same(saved: Saved, old: str, new: str) -> None:
    assert check_loaded(saved, GRIDS[new], {}) == [f"resharding: from {TITLES[old]} to {TITLES[new]}"]


def test_what_is_compared_is_everything(tmp_path: Path) -> None:
    _, tensors, _ = save_on(tmp_path, {"pp": 2}, {}, 0)
    kinds = {"fp32", "exp_avg", "exp_avg_sq"}
    assert {kind for _, name, kind in tensors if name} == kinds
    assert {key: np.frombuffer(bits) for key, bits in tensors.items() if not key[1]} == {
        (number, "", "step"): np.array([SAVE_STEP]) for number in (0, 2, 3, 4, 5, 7, 8)
    }
    num_elements = sum(len(bits) // 4 for (_, name, kind), bits in tensors.items() if name and kind == "fp32")
    assert num_elements == 4 * (12 * 64 * 64 + 13 * 64) + 2 * 64 + 2 * 256 * 64


TIED = {"no_weight_tying": False, "pos_emb": "learned", "activation": "swiglu", "num_kv_heads": 2}


@pytest.mark.parametrize(("old", "new"), [("pp2", "tp2-dp2"), ("tp2-dp2", "pp2")])
def test_tied_weights_and_gated_and_grouped_layers_are_resharded(tmp_path: Path, old: str, new: str) -> None:
    check_loaded(save_on(tmp_path, GRIDS[old], TIED), GRIDS[new], TIED)


def test_fp32_masters_of_bf16_weights_are_resharded(tmp_path: Path) -> None:
    keys = {"precision": "bf16"}
    check_loaded(save_on(tmp_path, GRIDS["tp2-dp2"], keys, 0), GRIDS["pp2"], keys)
