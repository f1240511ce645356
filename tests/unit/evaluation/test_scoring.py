"""The way to log-probabilities without logits against the plain one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from megatron.neox.engine import inference
from megatron.neox.engine.grid import DTYPES
from megatron.neox.engine.inference import InferenceModel
from megatron.neox.errors import NeoXError
from megatron.neox.evaluation.scoring import Scored, TokenScorer, WithoutLogits
from megatron.neox.models.gpt_neox import build_layers
from megatron.neox.models.plan import plain_model
from megatron.neox.nn import log_likelihood
from megatron.neox.nn.log_likelihood import target_log_probabilities
from megatron.neox.nn.parallel import TensorParallel
from tests.tiny_models import tiny_config

VOCAB, PADDED = 100, 128


def _model(*, tied: bool = False, dtype: str = "fp32") -> InferenceModel:
    config, parallel = tiny_config(no_weight_tying=not tied), TensorParallel.single(dtype=DTYPES[dtype])
    torch.manual_seed(0)
    net = plain_model(build_layers(config, padded_vocab_size=PADDED, parallel=parallel))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    return InferenceModel(
        net, config, parallel, vocab_size=VOCAB, padded_vocab_size=PADDED, checkpoint=Path("random")
    )


def _sequences() -> list[Scored]:
    generator = torch.Generator().manual_seed(1)
    lengths = [(48, 48), (48, 5), (17, 17), (2, 1), (31, 12), (48, 1)]
    return [Scored(torch.randint(VOCAB, (n + 1,), generator=generator), count) for n, count in lengths]


class _Plain:
    """The same model without its quicker way."""

    def __init__(self, model: InferenceModel) -> None:
        self.logits, self.device = model.logits, model.device
        self.max_positions, self.new_cache = model.max_positions, model.new_cache


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("vocab_size", "at_once"), [(VOCAB, 2**22), (64, 1), (None, 48 * 128 * 2)])
def test_scores_without_logits_are_the_plain_ones(
    tied: bool, vocab_size: int | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_HIDDEN_AT_ONCE", at_once)
    model, sequences = _model(tied=tied), [Scored(ids % 64, count) for ids, count in _sequences()]
    assert isinstance(model, WithoutLogits)
    assert model.computes_log_probabilities
    assert not isinstance(_Plain(model), WithoutLogits)
    quick, plain = (
        TokenScorer(each, padding=0, vocab_size=vocab_size, batch_size=4).score(sequences, "x", greedy=True)
        for each in (model, _Plain(model))
    )
    assert [s.log_likelihood for s in quick] == pytest.approx([s.log_likelihood for s in plain], rel=1e-6)
    assert [s.is_greedy for s in quick] == [s.is_greedy for s in plain]


def test_greedy_continuations_are_found_greedy() -> None:
    model = _model()
    ids = torch.randint(VOCAB, (1, 9), generator=torch.Generator().manual_seed(2))
    best = int(model.logits(ids)[0, -1].argmax())
    for token, expected in ((best, True), ((best + 1) % VOCAB, False)):
        sequence = Scored(torch.cat([ids[0], torch.tensor([token])]), 1)
        for each in (model, _Plain(model)):
            scorer = TokenScorer(each, padding=0, vocab_size=VOCAB, batch_size=1)
            assert scorer.score([sequence], "x", greedy=True)[0].is_greedy is expected


def test_tiles_of_all_sizes_give_the_whole_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(23, 16, generator=generator), torch.randn(57, 16, generator=generator)
    weight[40] = weight[3]  # of equal logits the first counts, as in argmax
    logits = hidden @ weight.t()
    targets = torch.where(torch.arange(23) % 2 == 0, logits.argmax(-1), torch.arange(23))
    targets[1] = 40
    expected = -functional.cross_entropy(logits, targets, reduction="none")
    for tokens, columns in ((1024, 2048), (5, 10), (23, 57), (1, 1), (7, 56)):
        monkeypatch.setattr(log_likelihood, "_TOKENS", tokens)
        monkeypatch.setattr(log_likelihood, "_COLUMNS", columns)
        log_p, is_best = target_log_probabilities(hidden, weight, targets, greedy=True)
        torch.testing.assert_close(log_p, expected, rtol=1e-6, atol=1e-5)
        assert is_best.tolist() == (logits.argmax(-1) == targets).tolist()


def test_logits_far_below_the_first_ones_and_far_above_are_no_trouble() -> None:
    weight = torch.tensor([[-3e4], [-2e4], [3e4], [0.0]])
    log_p, _ = target_log_probabilities(torch.ones(1, 1), weight, torch.tensor([2]))
    assert log_p.tolist() == [0.0]


@pytest.mark.parametrize("damaged", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(damaged: float) -> None:
    model = _model()
    weight = model.model.head_weight()
    assert weight is not None
    with torch.no_grad():
        weight[5, 0], weight[6, 0] = (
            damaged,
            -damaged,
        )  # one of them is +inf whatever the sign of what it meets
    with pytest.raises(NeoXError, match="the model's logits are not finite numbers"):
        TokenScorer(model, padding=0, vocab_size=VOCAB, batch_size=2).score(_sequences(), "x")


def test_other_number_formats_take_the_plain_way() -> None:
    model = _model(dtype="bf16")
    assert not model.computes_log_probabilities
    scores = TokenScorer(model, padding=0, vocab_size=VOCAB, batch_size=2).score(_sequences(), "x")
    assert all(score.log_likelihood < 0 for score in scores)
