"""Our checkpoints as stored models: whole tensors out of any number of shards, and back into files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from megatron.neox.config import Config, ModelConfig, TokenizerConfig
from megatron.neox.errors import CheckpointError, OutputError
from megatron.neox.layouts import neox
from megatron.neox.layouts.checkpoint import open_checkpoint, write_checkpoint
from megatron.neox.layouts.manifest import Manifest
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.plan import plain_model, shard_layouts
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import models
from tests.tiny_models import tiny_config

ROWS = 96
CHARACTERS = TokenizerConfig(tokenizer_type="CharLevelTokenizer")


def random_layers(model: ModelConfig) -> dict[int, dict[str, Tensor]]:
    torch.manual_seed(0)
    plans = models.get("gpt_neox")(model, padded_vocab_size=ROWS, parallel=TensorParallel.single())
    layers = plain_model(plans).numbered_layers()
    return {
        number: {name: torch.rand_like(p) for name, p in layer.named_parameters()}
        for number, layer in layers.items()
    }


def stored_model(model: ModelConfig, layers: dict[int, dict[str, Tensor]]) -> StoredModel:
    model = model.model_copy(update={"padded_vocab_size": ROWS})
    return StoredModel("random", Path("nowhere"), model, CHARACTERS, lambda number: layers[number], step=7)


def assert_holds(stored: StoredModel, layers: dict[int, dict[str, Tensor]]) -> None:
    assert stored.layer_numbers == list(layers)
    for number, tensors in layers.items():
        found = stored.read_layer(number)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors), number


KINDS: list[dict[str, Any]] = [
    {},
    {"no_weight_tying": False, "pos_emb": "learned"},
    {"num_kv_heads": 2, "activation": "swiglu", "norm": "rmsnorm", "use_bias_in_mlp": False},
]


@pytest.mark.parametrize("keys", KINDS, ids=["plain", "tied", "grouped and gated"])
def test_what_is_written_is_what_is_opened(tmp_path: Path, keys: dict[str, Any]) -> None:
    model = tiny_config(**keys)
    layers = random_layers(model)
    written = write_checkpoint(stored_model(model, layers), tmp_path)
    assert written == tmp_path / "global_step7"
    assert (tmp_path / "latest").read_text() == "global_step7\n"
    stored = open_checkpoint(written, model, CHARACTERS, shard_layouts(model))
    assert_holds(stored, layers)
    assert stored.step == 7
    assert stored.model.padded_vocab_size == ROWS
    assert stored.kind == "checkpoint of this toolkit, 1 tensor rank, step 7"


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("keys", KINDS, ids=["plain", "tied", "grouped and gated"])
def test_shards_of_several_writers_are_joined(tmp_path: Path, keys: dict[str, Any], size: int) -> None:
    model = tiny_config(**keys | {"num_kv_heads": 4} if size == 4 else keys)
    layers, layouts = random_layers(model), shard_layouts(model)
    folder = write_checkpoint(stored_model(model, layers), tmp_path)
    for number, tensors in layers.items():
        for rank in range(size):
            shard = {name: layouts[number][name].split(x, size)[rank].clone() for name, x in tensors.items()}
            torch.save(shard, folder / neox.weights_file(number, rank))
    manifest = Manifest.read(folder)
    Manifest(**vars(manifest) | {"tensor_size": size}).write(folder)
    assert_holds(open_checkpoint(folder, model, None, layouts), layers)


def test_the_folder_says_what_it_holds(tmp_path: Path) -> None:
    model = tiny_config()
    folder = write_checkpoint(stored_model(model, random_layers(model)), tmp_path, dtype=torch.bfloat16)
    manifest = Manifest.read(folder)
    assert (manifest.step, manifest.precision, manifest.tensor_size, manifest.optimizer) == (
        7,
        "bf16",
        1,
        None,
    )
    assert manifest.architecture["padded_vocab_size"] == ROWS
    assert manifest.tokenizer["vocab_size"] == 512
    assert manifest.damage(folder) == []
    assert len(manifest.files) == 6
    assert "configs/config.yml" in manifest.files
    keys = yaml.safe_load((folder / "configs" / "config.yml").read_text())
    config = Config.from_flat(keys)
    assert config.model == model.model_copy(update={"padded_vocab_size": ROWS})
    assert config.tokenizer == CHARACTERS


def test_a_written_tensor_is_no_larger_than_it_is(tmp_path: Path) -> None:
    """A view would be written with all of the memory behind it."""
    model = tiny_config()
    layers = random_layers(model)
    whole = write_checkpoint(stored_model(model, layers), tmp_path / "a")
    views = {
        number: {name: torch.stack([x, x])[0] for name, x in layer.items()}
        for number, layer in layers.items()
    }
    viewed = write_checkpoint(stored_model(model, views), tmp_path / "b")
    sizes = [sum(path.stat().st_size for path in folder.glob("*.pt")) for folder in (whole, viewed)]
    assert sizes[0] == sizes[1]


def test_a_step_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    model = tiny_config()
    stored = stored_model(model, random_layers(model))
    write_checkpoint(stored, tmp_path)
    with pytest.raises(OutputError, match="global_step7 exists; remove it, or give another folder"):
        write_checkpoint(stored, tmp_path)


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    model = tiny_config()
    layers = random_layers(model)

    def read_layer(number: int) -> dict[str, Tensor]:
        if number == 3:
            raise CheckpointError("damaged")
        return layers[number]

    stored = StoredModel("broken", tmp_path, stored_model(model, layers).model, CHARACTERS, read_layer)
    with pytest.raises(CheckpointError, match="damaged"):
        write_checkpoint(stored, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
