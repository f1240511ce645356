"""A model loaded for inference computes what the training engine computed, whatever grid saved it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from megatron.neox.engine.build import build_training_engine
from megatron.neox.engine.checkpoint import save_checkpoint
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.inference import load_model
from megatron.neox.errors import UserError
from megatron.neox.layouts.manifest import Manifest
from megatron.neox.tokenizers import build_tokenizer
from tests.forked_ranks import run_ranks
from tests.numerics.tiny_run import batches, make_config, num_ranks, steps

PADDED_VOCABULARY = 640  # CharLevelTokenizer has 512 ids
LOSS = 5.816999  # of the loaded model, the padding's logits left out
KEYS: dict[str, Any] = {"tokenizer_type": "CharLevelTokenizer"}


def train_and_save(folder: Path, grid: dict[str, int], keys: dict[str, Any]) -> None:
    """Save after three steps."""
    config = make_config(grid, **keys)
    with ProcessGrid.build(config.parallelism) as process_grid:
        engine = build_training_engine(config, process_grid, padded_vocab_size=PADDED_VOCABULARY)
        steps(engine, 3)
        fingerprint = build_tokenizer(config.tokenizer).fingerprint()
        save_checkpoint(engine, folder, state={}, config_keys={}, tokenizer=fingerprint)


def load_and_evaluate(folder: Path, grid: dict[str, int], keys: dict[str, Any]) -> tuple[float, int]:
    """Loss of the loaded model on a batch, and how many of a row's logits are -inf."""
    config = make_config(grid, load=str(folder), **keys)
    with ProcessGrid.build(config.parallelism, fold_pipeline=True) as process_grid:
        model = load_model(config, process_grid, tokenizer=build_tokenizer(config.tokenizer))
        token_ids, labels = next(batches(0, 1))
        logits = model.logits(token_ids).float()
        assert logits.shape == (*token_ids.shape, PADDED_VOCABULARY)
        return (
            F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item(),
            int(torch.isinf(logits[0, 0]).sum()),
        )


SAVED = [{}, {"pp": 2}, {"tp": 2}, {"pp": 2, "tp": 2}]


@pytest.mark.parametrize("saved", SAVED, ids=str)
@pytest.mark.parametrize("loaded", [{}, {"tp": 2}], ids=str)
def test_any_grid_is_loaded_into_any_tensor_size(
    tmp_path: Path, saved: dict[str, int], loaded: dict[str, int]
) -> None:
    run_ranks(num_ranks(saved), train_and_save, tmp_path, saved, KEYS)
    losses = run_ranks(num_ranks(loaded), load_and_evaluate, tmp_path, loaded, KEYS)
    assert losses == [(pytest.approx(LOSS, abs=1e-5), 128)] * num_ranks(loaded)


def test_weights_saved_without_optimizer_state_are_enough(tmp_path: Path) -> None:
    keys = KEYS | {"no_save_optim": True}
    run_ranks(1, train_and_save, tmp_path, {}, keys)
    assert not list(tmp_path.rglob("*optim_states.pt"))
    assert run_ranks(1, load_and_evaluate, tmp_path, {}, keys)[0][0] == pytest.approx(LOSS, abs=1e-5)


def test_a_folder_of_2022_without_manifest_is_read(tmp_path: Path) -> None:
    run_ranks(1, train_and_save, tmp_path, {}, KEYS)
    checkpoint = tmp_path / "global_step3"
    (checkpoint / "manifest.json").unlink()
    for path in checkpoint.glob("layer_0[2-5]*model_states.pt"):
        weights = torch.load(path, weights_only=True)
        frequencies = torch.tensor([1.0, 0.01], dtype=torch.float16)  # of the 4 features that turn
        torch.save(weights | {"attention.rotary_emb.inv_freq": frequencies}, path)
    assert run_ranks(1, load_and_evaluate, tmp_path, {}, KEYS)[0][0] == pytest.approx(LOSS, abs=1e-5)


def test_fp16_weights_are_computed_in_fp32_on_a_cpu(tmp_path: Path) -> None:
    run_ranks(1, train_and_save, tmp_path, {}, KEYS)
    keys = KEYS | {"precision": "fp16"}
    assert run_ranks(1, load_and_evaluate, tmp_path, {}, keys)[0][0] == pytest.approx(LOSS, abs=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_layers": 2}, "num_layers: 4 in the checkpoint, 2 in the config"),
        ({"rotary_pct": 1.0}, "rotary_pct: 0.25 in the checkpoint, 1.0 in the config"),
    ],
)
def test_another_architecture_is_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    run_ranks(1, train_and_save, tmp_path, {}, KEYS)
    with pytest.raises(RuntimeError, match=message):
        run_ranks(1, load_and_evaluate, tmp_path, {}, KEYS | keys)


def load_error(folder: Path, grid: dict[str, int], keys: dict[str, Any]) -> str:
    try:
        load_and_evaluate(folder, grid, keys)
    except UserError as error:
        return str(error)
    return ""


def change(checkpoint: Path, file: str, **tensors: torch.Tensor | None) -> None:
    """Put tensors into a file of weights, `.` written as `__`; none takes one away."""
    weights = torch.load(checkpoint / file, weights_only=True)
    for name, tensor in tensors.items():
        weights.pop(name.replace("__", "."), None)
        if tensor is not None:
            weights[name.replace("__", ".")] = tensor
    torch.save(weights, checkpoint / file)


@pytest.mark.parametrize("written", [{}, {"tp": 2}], ids=str)
@pytest.mark.parametrize("read", [{}, {"tp": 2}], ids=str)
def test_every_tensor_that_is_not_as_it_must_be_is_told_at_once(
    tmp_path: Path, written: dict[str, int], read: dict[str, int]
) -> None:
    run_ranks(num_ranks(written), train_and_save, tmp_path, written, KEYS)
    checkpoint = tmp_path / "global_step3"
    (checkpoint / "manifest.json").unlink()  # with it, any of this is damage
    for rank in range(num_ranks(written)):
        change(checkpoint, f"layer_02-model_{rank:02d}-model_states.pt", attention__dense__bias=None)
        change(
            checkpoint,
            f"layer_03-model_{rank:02d}-model_states.pt",
            attention__rotary__bias=torch.ones(2),
            mlp__dense_h_to_4h__weight=torch.ones(128 // num_ranks(written), 64),
            input_layernorm__weight=None,
        )
        change(checkpoint, f"layer_08-model_{rank:02d}-model_states.pt", final_linear__bias=torch.ones(2))
    told = run_ranks(num_ranks(read), load_error, tmp_path, read, KEYS)
    assert told == [
        "\n".join(
            [
                f"{checkpoint} does not hold the weights of the config's model, and nothing of it is used",
                "  layer 2: attention.dense.bias is missing",
                "  layer 3: attention.rotary.bias is there, and not in the model",
                "  layer 3: input_layernorm.weight is missing",
                "  layer 3: mlp.dense_h_to_4h.weight is (128, 64), and the model's is (256, 64); "
                "the checkpoint is of another architecture",
                "  layer 8: final_linear.bias is there, and not in the model",
            ]
        )
    ] * num_ranks(read)


def test_a_tensor_that_one_rank_lacks_is_told_with_the_file(tmp_path: Path) -> None:
    run_ranks(2, train_and_save, tmp_path, {"tp": 2}, KEYS)
    checkpoint = tmp_path / "global_step3"
    (checkpoint / "manifest.json").unlink()
    change(checkpoint, "layer_02-model_01-model_states.pt", attention__dense__weight=None)
    told = run_ranks(1, load_error, tmp_path, {}, KEYS)[0]
    assert told.endswith(
        "\n  layer 2: attention.dense.weight is missing in layer_02-model_01-model_states.pt"
    )


@pytest.mark.parametrize(("num_layers", "line"), [(2, "layer 8 is there"), (6, "layer 10 is missing")])
def test_layers_too_many_or_too_few_in_a_folder_of_gpt_neox_are_told(
    tmp_path: Path, num_layers: int, line: str
) -> None:
    run_ranks(1, train_and_save, tmp_path, {}, KEYS)
    (tmp_path / "global_step3" / "manifest.json").unlink()
    told = run_ranks(1, load_error, tmp_path, {}, KEYS | {"num_layers": num_layers})[0]
    assert f"it has 4 transformer layers, and num_layers is {num_layers}" in told
    assert line in told
    assert "input_layernorm.weight" in told


def test_another_tokenizer_is_refused_unless_allowed(tmp_path: Path) -> None:
    run_ranks(1, train_and_save, tmp_path, {}, KEYS)
    checkpoint = tmp_path / "global_step3"
    other = {"type": "CharLevelTokenizer", "vocab_size": 511}
    replace(Manifest.read(checkpoint), tokenizer=other).write(checkpoint)
    told = run_ranks(1, load_error, tmp_path, {}, KEYS)[0]
    assert "  vocab_size: 511 then, 512 now\n  give the tokenizer that it was trained with" in told
    allowed = KEYS | {"allow_tokenizer_mismatch": True}
    assert run_ranks(1, load_and_evaluate, tmp_path, {}, allowed)[0][0] == pytest.approx(LOSS, abs=1e-5)


def test_rows_that_the_tensor_ranks_cannot_share_are_refused(tmp_path: Path) -> None:
    run_ranks(1, train_and_save, tmp_path, {}, KEYS)
    keys = KEYS | {"num_attention_heads": 3, "hidden_size": 63}
    told = run_ranks(3, load_error, tmp_path, {"tp": 3}, keys)[0]
    assert "has 640 rows, which 3 tensor ranks cannot share evenly; give model_parallel_size 1" in told


def test_a_damaged_checkpoint_is_never_generated_from(tmp_path: Path) -> None:
    run_ranks(1, train_and_save, tmp_path, {}, KEYS)
    checkpoint = tmp_path / "global_step3"
    for path in checkpoint.glob("*optim_states.pt"):
        path.unlink()  # which nobody needs here
    assert run_ranks(1, load_error, tmp_path, {}, KEYS) == [""]
    path = checkpoint / "layer_03-model_00-model_states.pt"
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)
    for grid in ({}, {"tp": 2}):
        told = run_ranks(num_ranks(grid), load_error, tmp_path, grid, KEYS)
        assert all(
            f"{checkpoint} is damaged: {path.name} has other content than was written" in t for t in told
        )
        assert all("holds no intact checkpoint; give another load folder" in t for t in told)
