"""A model loaded for inference computes what the training engine computed, whatever grid saved it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from megatron.neox.engine.build import build_training_engine
from megatron.neox.engine.checkpoint import save_checkpoint
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.inference import load_model
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
