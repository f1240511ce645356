"""Models from Hugging Face while they run as in transformers: decoding, training, and on two tensor ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.neox.config import ModelConfig, ParallelismConfig
from megatron.neox.conversion.check import TOLERANCE, model_of
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.weights import read_weights
from megatron.neox.layouts.checkpoint import write_checkpoint
from megatron.neox.layouts.huggingface import open_folder
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import plain_model
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.nn.parallel import TensorParallel
from tests.forked_ranks import run_ranks
from tests.numerics.test_huggingface import CASES, LENGTH, VOCABULARY, tiny

pytestmark = pytest.mark.long

LENGTHS = (3, 9, 6)  # of the prompts of a batch


def both(case: str, folder: Path) -> tuple[Any, StoredModel]:
    """transformers' model, and the same opened here."""
    theirs = tiny(case)
    theirs.save_pretrained(folder)
    return theirs, open_folder(folder)


def random_ids(*shape: int) -> Tensor:
    return torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_prompts_of_different_lengths_decode_to_the_last_position(tmp_path: Path, case: str) -> None:
    theirs, stored = both(case, tmp_path)
    net, cache = model_of(stored), KeyValueCache(len(LENGTHS), LENGTH, stored.model, TensorParallel.single())
    texts = [row[:length].tolist() for row, length in zip(random_ids(3, max(LENGTHS)), LENGTHS, strict=True)]
    padded = torch.tensor([text + [0] * (max(LENGTHS) - len(text)) for text in texts])
    everywhere = net(padded, cache=cache).transpose(0, 1)  # [b, s, V]
    cache.truncate(LENGTHS)
    last = torch.stack([everywhere[row, length - 1] for row, length in enumerate(LENGTHS)])
    decoded = [last]
    while max(map(len, texts)) < LENGTH:
        for text, logits in zip(texts, last, strict=True):
            text.append(int(logits.argmax()))
        last = net(torch.tensor([text[-1:] for text in texts]), cache=cache).transpose(0, 1)[:, 0]
        decoded.append(last)
    assert len(decoded) == LENGTH - max(LENGTHS) + 1
    for row, text in enumerate(texts):
        expected = theirs(torch.tensor([text])).logits[0, LENGTHS[row] - 1 :]
        torch.testing.assert_close(torch.stack(decoded)[:, row], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["neox-parallel", "codeparrot", "llama-grouped", "mistral-window"])
def test_loss_and_gradients_of_training_equal_transformers(tmp_path: Path, case: str) -> None:
    """By blocks where attention is plain, by torch's kernel with a mask where it has a window."""
    theirs, stored = both(case, tmp_path)
    ids = random_ids(2, LENGTH)
    net = model_of(stored).requires_grad_()
    logits = net(ids).transpose(0, 1)
    ours_loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    theirs_loss = theirs(ids, labels=ids).loss
    assert ours_loss.item() == pytest.approx(theirs_loss.item(), abs=TOLERANCE)
    ours_loss.backward()
    theirs_loss.backward()
    embedding = next(parameter for parameter in net.parameters() if parameter.shape == (VOCABULARY, 64))
    assert embedding.grad is not None
    expected = theirs.get_input_embeddings().weight.grad
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(embedding.grad, expected, rtol=0, atol=TOLERANCE)


def shard_of_logits(step: Path, model: ModelConfig, ids: Tensor) -> list[list[list[float]]]:
    """This rank's columns [b, s, V / ranks] of the logits."""
    with (
        ProcessGrid.build(ParallelismConfig(model_parallel_size=2), fold_pipeline=True) as grid,
        torch.inference_mode(),
    ):
        parallel = grid.tensor_parallel("fp32")
        plans = build_layers(model, padded_vocab_size=VOCABULARY, parallel=parallel)
        net = plain_model(
            plans, weights=lambda number, layer: read_weights(step, number, layer, rank=grid.rank, size=2)
        )
        return net.eval()(ids).transpose(0, 1).tolist()


@pytest.mark.parametrize("case", ["neox-tied", "codeparrot", "llama-grouped-biases", "mistral-window"])
def test_two_tensor_ranks_compute_transformers_logits(tmp_path: Path, case: str) -> None:
    theirs, stored = both(case, tmp_path / "theirs")
    step = write_checkpoint(stored, tmp_path / "ours")
    ids = random_ids(2, LENGTH)
    shards = run_ranks(2, shard_of_logits, step, stored.model, ids)
    with torch.no_grad():
        expected = theirs(ids).logits
    logits = torch.cat([torch.tensor(shard) for shard in shards], -1)
    torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)
