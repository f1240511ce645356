"""GPT-NeoX's files: names, shards, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts import neox
from megatron.neox.nn.parallel import ShardLayout

LAYOUTS = {
    "column.weight": ShardLayout(0),
    "row.weight": ShardLayout(1),
    "gated.weight": ShardLayout(0, (1, 1)),
    "norm.weight": ShardLayout(),
}
WHOLE = {
    "column.weight": torch.arange(8.0).view(4, 2),
    "row.weight": torch.arange(8.0).view(2, 4),
    "gated.weight": torch.arange(8.0).view(8, 1),
    "norm.weight": torch.arange(2.0),
}


def write_shards(folder: Path, size: int) -> dict[int, str]:
    files = {}
    for rank in range(size):
        shard = {name: LAYOUTS[name].split(tensor, size)[rank].clone() for name, tensor in WHOLE.items()}
        files[rank] = neox.weights_file(2, rank)
        torch.save(shard, folder / files[rank])
    return files


def joined(folder: Path, files: dict[int, str], size: int) -> dict[str, Tensor]:
    shards = [neox.read_shard(folder, files, LAYOUTS, rank=rank, size=size) for rank in range(size)]
    return {name: layout.merge([shard[name] for shard in shards]) for name, layout in LAYOUTS.items()}


def test_names_are_those_of_gpt_neox() -> None:
    assert neox.weights_file(2, 0) == "layer_02-model_00-model_states.pt"
    assert neox.weights_file(123, 11) == "layer_123-model_11-model_states.pt"
    assert neox.step_folder(150000) == "global_step150000"
    assert neox.step_of("global_step150000") == 150000
    assert neox.step_of("global_step5.tmp") is None


@pytest.mark.parametrize("written", [1, 2, 4])
@pytest.mark.parametrize("read", [1, 2, 4])
def test_shards_are_read_by_any_number_of_ranks(tmp_path: Path, written: int, read: int) -> None:
    files = write_shards(tmp_path, written)
    for name, tensor in joined(tmp_path, files, read).items():
        assert torch.equal(tensor, WHOLE[name]), name


def test_a_gated_shard_holds_its_part_of_both_halves(tmp_path: Path) -> None:
    files = write_shards(tmp_path, 1)
    shard = neox.read_shard(tmp_path, files, LAYOUTS, rank=1, size=2)
    assert shard["gated.weight"].flatten().tolist() == [2.0, 3.0, 6.0, 7.0]
    assert shard["column.weight"].flatten().tolist() == [4.0, 5.0, 6.0, 7.0]
    assert shard["row.weight"].flatten().tolist() == [2.0, 3.0, 6.0, 7.0]


def test_steps_are_listed_by_number_and_not_by_name(tmp_path: Path) -> None:
    for name in ("global_step9", "global_step100", "global_step5.tmp", "other"):
        (tmp_path / name).mkdir()
    assert list(neox.steps_in(tmp_path)) == [100, 9]


def test_layers_beyond_99_keep_their_order(tmp_path: Path) -> None:
    for number in (0, 2, 15, 101):
        (tmp_path / neox.weights_file(number, 0)).touch()
    assert neox.layer_numbers(tmp_path) == [0, 2, 15, 101]


def test_buffers_of_2022_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "layer.pt"
    torch.save({"norm.weight": torch.ones(1), "attention.rotary_emb.inv_freq": torch.ones(1)}, path)
    assert list(neox.read_tensors(path)) == ["norm.weight"]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    files = write_shards(tmp_path, 1)
    path = tmp_path / files[0]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CheckpointError, match=r"layer_02-model_00-model_states\.pt cannot be read"):
        neox.read_shard(tmp_path, files, LAYOUTS, rank=0, size=1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = write_shards(tmp_path, 2)
    (tmp_path / files[1]).unlink()
    with pytest.raises(CheckpointError, match=r"layer_02-model_01-model_states\.pt is missing"):
        neox.read_shard(tmp_path, files, LAYOUTS, rank=0, size=1)
    (tmp_path / files[0]).unlink()
    with pytest.raises(CheckpointError, match="is missing; give the folder of a whole checkpoint"):
        neox.tensor_size_of(tmp_path, 2)


def test_names_that_differ_are_listed_both_ways(tmp_path: Path) -> None:
    torch.save(WHOLE | {"extra.bias": torch.ones(1)}, tmp_path / "a.pt")
    layouts = LAYOUTS | {"lost.bias": ShardLayout()}
    with pytest.raises(CheckpointError) as caught:
        neox.read_shard(tmp_path, {0: "a.pt"}, layouts, rank=0, size=1)
    assert "the model has lost.bias, the file has not" in str(caught.value)
    assert "the file has extra.bias, the model has not" in str(caught.value)
