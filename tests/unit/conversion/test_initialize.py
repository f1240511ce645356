"""Untrained models: bit for bit what a run has at step 0, whatever its grid, and a start for other runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import deepspeed.pipe  # noqa: F401  imported before the ranks are forked, so that they need not
import pytest
import torch
from safetensors.torch import load_file

import megatron.neox.models.gpt_neox  # noqa: F401
from megatron.neox.config import Config
from megatron.neox.conversion.initialize import initialize
from megatron.neox.errors import ConfigError, OutputError, UserError, VocabularyError
from megatron.neox.layouts.checkpoint import open_checkpoint
from megatron.neox.layouts.manifest import Manifest
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.plan import shard_layouts
from megatron.neox.training.run import run
from tests.forked_ranks import run_ranks
from tests.integration.training_case import TINY, metrics, write_dataset

GROUPED = {"num_kv_heads": 2, "activation": "swiglu", "mlp_type": "llama", "norm": "rmsnorm"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "code_text_document")


def _train(keys: dict[str, Any]) -> int:
    return run(Config.from_flat(keys))


def train(data: str, folder: Path, *, num_ranks: int = 1, **keys: Any) -> None:
    """A run of the tiny config, saved in `folder`."""
    given = {
        **TINY,
        "data_path": data,
        "eval_interval": 0,
        "save": str(folder),
        "log_dir": str(folder),
        **keys,
    }
    assert run_ranks(num_ranks, _train, given) == [0] * num_ranks


def quiet(_: str) -> None:
    """Nobody listens."""


def opened(folder: Path, **keys: Any) -> StoredModel:
    """The model of a step 0."""
    model = Config.from_flat({**TINY, **keys}).model
    return open_checkpoint(folder / "global_step0", model, None, shard_layouts(model))


@pytest.mark.parametrize(
    ("num_ranks", "keys"),
    [
        (
            1,
            {
                "precision": "bf16",
                "no_weight_tying": False,
                "pos_emb": "learned",
                "init_method": "small_init",
            },
        ),
        (2, {"model_parallel_size": 2, "make_vocab_size_divisible_by": 200, **GROUPED}),
        (2, {"pipe_parallel_size": 2, "gpt_j_residual": True}),
    ],
    ids=["bf16, tied", "two tensor ranks, grouped, gated", "two stages"],
)
def test_a_run_starts_from_the_very_same_weights(
    data: str, tmp_path: Path, num_ranks: int, keys: dict[str, Any]
) -> None:
    train(data, tmp_path / "run", num_ranks=num_ranks, train_iters=1, extra_save_iters=[0], **keys)
    initialize(Config.from_flat({**TINY, **keys}), tmp_path / "initial", say=quiet)
    run_of, initial = (opened(tmp_path / name, **keys) for name in ("run", "initial"))
    assert run_of.layer_numbers == initial.layer_numbers
    for number in initial.layer_numbers:
        of_run, of_initial = run_of.read_layer(number), initial.read_layer(number)
        assert of_run.keys() == of_initial.keys()
        for name, weights in of_initial.items():
            assert weights.dtype == of_run[name].dtype
            assert torch.equal(weights, of_run[name]), (number, name)
    manifests = [Manifest.read(tmp_path / name / "global_step0") for name in ("run", "initial")]
    assert manifests[0].architecture == manifests[1].architecture
    assert manifests[0].tokenizer == manifests[1].tokenizer


def test_a_run_that_loads_it_is_a_run_from_nothing(data: str, tmp_path: Path) -> None:
    initialize(Config.from_flat({**TINY, "seed": 7}), tmp_path / "initial", say=quiet)
    train(data, tmp_path / "fresh", seed=7, train_iters=2)
    train(data, tmp_path / "loaded", seed=7, train_iters=2, load=str(tmp_path / "initial"), finetune=True)
    losses = [[line["loss"] for line in metrics(tmp_path / name)] for name in ("fresh", "loaded")]
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]


def test_the_seed_decides(tmp_path: Path) -> None:
    weights = []
    for place, seed in enumerate((1, 1, 2)):
        initialize(Config.from_flat({**TINY, "seed": seed}), tmp_path / str(place), say=quiet)
        weights.append(opened(tmp_path / str(place)).read_layer(2)["attention.query_key_value.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_tokenizer_comes_along(tmp_path: Path, polycoder: Path) -> None:
    keys = {
        **TINY,
        "tokenizer_type": "GPT2BPETokenizer",
        "vocab_file": str(polycoder / "code-vocab.json"),
        "merge_file": str(polycoder / "code-merges.txt"),
    }
    said: list[str] = []
    initialize(Config.from_flat(keys), tmp_path / "initial", say=said.append)
    for name in ("code-vocab.json", "code-merges.txt"):
        assert (tmp_path / "initial/tokenizer" / name).read_bytes() == (polycoder / name).read_bytes()
    written = (tmp_path / "initial/global_step0/configs/config.yml").read_text()
    assert f"vocab_file: {tmp_path / 'initial/tokenizer/code-vocab.json'}" in written
    manifest = Manifest.read(tmp_path / "initial/global_step0")
    assert manifest.architecture["padded_vocab_size"] == 50304
    assert said == [
        f"wrote {tmp_path / 'initial'}/global_step0: untrained model, seed 1234, fp32",
        f"train from it: --set load={tmp_path / 'initial'} --set finetune=true",
    ]


def test_hugging_face(tmp_path: Path) -> None:
    config, said = Config.from_flat(TINY), list[str]()
    initialize(config, tmp_path / "hf", target="hf", say=said.append)
    initialize(config, tmp_path / "ours", say=quiet)
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    embedding = opened(tmp_path / "ours").read_layer(0)["word_embeddings.weight"]
    assert torch.equal(tensors["gpt_neox.embed_in.weight"], embedding)
    assert (tmp_path / "hf" / "tokenizer.json").is_file()
    assert said[0].startswith("check against transformers: largest difference")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "ours"]
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "| Made of | nothing: untrained weights, seed 1234 |" in card
    assert "Written by `tools/initialize.py CONF --output hf --to hf`" in card
    assert "Training steps" not in card


@pytest.mark.parametrize(
    ("keys", "options", "kind", "message"),
    [
        ({}, {"push": "a/b"}, UserError, "--push goes with --to hf"),
        ({"padded_vocab_size": 64}, {}, VocabularyError, "has 512 ids, but padded_vocab_size is 64"),
        ({"tokenizer_type": "GPT2BPETokenizer"}, {}, (ConfigError, VocabularyError), "vocab_file"),
        ({"plugins": ["absent.py"]}, {}, UserError, "absent.py"),
    ],
)
def test_mistakes_leave_nothing(
    tmp_path: Path,
    keys: dict[str, Any],
    options: dict[str, Any],
    kind: type[UserError] | tuple[type[UserError], ...],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        initialize(Config.from_flat({**TINY, **keys}), tmp_path / "initial", say=quiet, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["neox", "hf"])
@pytest.mark.parametrize("output", ["/proc/nowhere", "file/inside"])
def test_an_output_that_cannot_be_written_is_one_message(
    tmp_path: Path, output: str, target: Literal["neox", "hf"]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=f"cannot write to .*{output}: .*; give another --output"):
        initialize(Config.from_flat(TINY), tmp_path / output, target=target, say=quiet)


def test_an_output_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="exists; give another --output, or remove it"):
        initialize(Config.from_flat(TINY), tmp_path, say=quiet)
