"""Batched decoding: what a sample depends on, where it stops, and what is fed to the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from megatron.neox.config import GenerationConfig
from megatron.neox.errors import InputError, NeoXError
from megatron.neox.generation.decode import Decoder, Request, generate, sample_requests
from megatron.neox.generation.records import DID_NOT_START, Record
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.tiny_models import VOCAB_SIZE, TinyLanguageModel, places, tiny_config

TOKENIZER = CharLevelTokenizer()
PROMPTS = ["def f(x):", "x", "import os\nimport sys\n", "while"]


@pytest.fixture(scope="module")
def model() -> TinyLanguageModel:
    return TinyLanguageModel()


def records(model: TinyLanguageModel, prompts: list[str], **keys: Any) -> list[Record]:
    return list(generate(model, TOKENIZER, prompts, GenerationConfig(**{"maximum_tokens": 20, **keys})))


def samples(model: TinyLanguageModel, prompts: list[str], **keys: Any) -> list[tuple[int, ...]]:
    return [record.token_ids for record in records(model, prompts, **keys)]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "num_samples": 3}])
def test_a_sample_does_not_depend_on_its_batch(model: TinyLanguageModel, sampling: dict[str, Any]) -> None:
    alone = samples(model, PROMPTS, generation_batch_size=1, **sampling)
    assert len(alone) == 4 * sampling.get("num_samples", 1)
    assert samples(model, PROMPTS, generation_batch_size=3, **sampling) == alone
    assert samples(model, PROMPTS, generation_batch_size=16, **sampling) == alone


@pytest.mark.parametrize("pos_emb", ["rotary", "learned", "alibi", "sinusoidal", "none"])
def test_recomputing_every_token_gives_the_same_ids(pos_emb: str) -> None:
    model = TinyLanguageModel(tiny_config(pos_emb=pos_emb, num_kv_heads=2))
    cached = samples(model, PROMPTS, temperature=1.0)
    assert samples(model, PROMPTS, temperature=1.0, recompute=True) == cached


def test_samples_of_a_prompt_differ_and_seeds_matter(model: TinyLanguageModel) -> None:
    first = samples(model, ["x"], temperature=1.0, num_samples=4)
    assert len(set(first)) == 4
    assert samples(model, ["x"], temperature=1.0, num_samples=2) == first[:2]
    assert samples(model, ["x"], temperature=1.0, num_samples=4, generation_seed=1) != first


def test_samples_come_prompt_by_prompt() -> None:
    assert sample_requests(["a", "b"], 2) == [
        Request("a", 0, 0), Request("a", 0, 1), Request("b", 1, 0), Request("b", 1, 1),
    ]  # fmt: skip


def test_ids_that_only_pad_the_vocabulary_are_never_sampled() -> None:
    model = TinyLanguageModel()
    with torch.no_grad():  # make the 40 rows of padding likelier than anything else
        model.net.get_parameter("layers.06.final_linear.weight")[VOCAB_SIZE:] *= 50
    assert model.logits(torch.tensor([[65]]))[0, -1].argmax() >= VOCAB_SIZE
    for sampling in ({}, {"temperature": 2.0, "num_samples": 8}):
        assert all(token < VOCAB_SIZE for ids in samples(model, ["x", "y"], **sampling) for token in ids)


class Scripted(TinyLanguageModel):
    """A real model whose output head is replaced by a rule: after byte b comes b + 1."""

    def logits(
        self, token_ids: torch.Tensor, cache: Any = None, *, at: Sequence[int] | None = None
    ) -> torch.Tensor:
        super().logits(token_ids, cache, at=at)
        return torch.nn.functional.one_hot((places(token_ids, at) + 1) % VOCAB_SIZE, VOCAB_SIZE + 40).float()


def test_the_newest_token_and_its_row_are_what_is_fed() -> None:
    outcome = records(Scripted(), ["a", "ABCDEF", "0"], maximum_tokens=5)
    assert [record.text for record in outcome] == ["bcdef", "GHIJK", "12345"]
    assert [record.length for record in outcome] == [5, 5, 5]
    assert not any(record.finished for record in outcome)


def test_a_stop_text_ends_a_sample_and_is_no_part_of_it() -> None:
    outcome = records(Scripted(), ["a", "j"], maximum_tokens=12, stop=["ef", "no such"])
    assert [(r.text, r.finished, r.length) for r in outcome] == [
        ("bcd", True, 5),
        ("klmnopqrstuv", False, 12),
    ]


def test_a_sample_ends_where_the_positions_end() -> None:
    record = records(Scripted(), ["}"], maximum_tokens=400)[0]
    assert (record.length, record.finished) == (47, False)
    assert record.message == "stopped where the model's 48 positions end"
    # The bytes 7e and 7f, then those from 80 on, which are not UTF-8 in this order.
    assert record.text is not None
    assert record.text.startswith("~\x7f\N{REPLACEMENT CHARACTER}")


class EndsAtOnce(Scripted):
    """After anything comes the end of the document."""

    def logits(
        self, token_ids: torch.Tensor, cache: Any = None, *, at: Sequence[int] | None = None
    ) -> torch.Tensor:
        return torch.nn.functional.one_hot(
            super().logits(token_ids, cache, at=at).argmax(-1) * 0, VOCAB_SIZE
        ).float()


def test_a_sample_that_does_not_start_says_so() -> None:
    record = records(EndsAtOnce(), ["a"])[0]
    assert (record.text, record.length, record.finished, record.message) == (None, 0, True, DID_NOT_START)


def test_finished_rows_leave_the_batch() -> None:
    model = Scripted()
    outcome = records(model, ["a", "b", "c", "0"], maximum_tokens=12, stop=["e"])
    assert [record.length for record in outcome] == [4, 3, 2, 12]
    # Prompts at once; two stop after 2 and 3 tokens, and when only half are left these go on by themselves.
    assert model.forward_shapes == [(4, 1)] * 3 + [(2, 1)] + [(1, 1)] * 8


def test_an_empty_prompt_begins_a_document() -> None:
    assert records(Scripted(), [""], maximum_tokens=2)[0].text == "\x01\x02"


def test_a_prompt_that_fills_the_positions_is_refused(model: TinyLanguageModel) -> None:
    with pytest.raises(InputError, match="prompt 2 is 48 tokens long, and the model has 48 positions"):
        records(model, ["a", "b" * 48])


def test_a_prompt_that_leaves_less_than_is_asked_for_is_warned_of(
    model: TinyLanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        records(model, ["b" * 28, "c" * 29], num_samples=2, maximum_tokens=20)
    assert caplog.messages == ["prompt 2 takes 29 of the model's 48 positions; at most 19 tokens can follow"]


def test_logits_at_one_place_of_each_row_are_those_of_all_places(model: TinyLanguageModel) -> None:
    token_ids = torch.randint(0, VOCAB_SIZE, (3, 9), generator=torch.Generator().manual_seed(1))
    whole = model.logits(token_ids)
    chosen = model.logits(token_ids, model.new_cache(3, 9), at=[8, 0, 4])
    assert chosen.shape == (3, 1, VOCAB_SIZE + 40)
    expected = torch.stack([whole[0, 8], whole[1, 0], whole[2, 4]]).unsqueeze(1)
    torch.testing.assert_close(chosen, expected, rtol=1e-5, atol=1e-5)


def test_log_probabilities_are_the_model_s_own(model: TinyLanguageModel) -> None:
    record = records(model, ["def"], maximum_tokens=5, temperature=0.3, return_logits=True)[0]
    ids = torch.tensor([[*TOKENIZER.encode("def"), *record.token_ids]])
    logprobs = model.logits(ids)[0, 2:-1, :VOCAB_SIZE].log_softmax(-1)
    expected = logprobs.gather(-1, torch.tensor(record.token_ids).unsqueeze(-1)).squeeze(-1)
    assert record.logprobs is not None
    assert torch.allclose(torch.tensor(record.logprobs), expected, atol=1e-5)


def test_logits_that_are_not_numbers_are_an_error() -> None:
    model = TinyLanguageModel()
    with torch.no_grad():
        model.net.get_parameter("layers.06.final_linear.weight").fill_(float("nan"))
    for sampling in ({}, {"temperature": 1.0}):
        with pytest.raises(NeoXError, match="not finite numbers"):
            records(model, ["a"], **sampling)


def test_tokens_are_shown_as_they_come() -> None:
    seen: list[list[int]] = []
    decoder = Decoder(
        Scripted(),
        TOKENIZER,
        GenerationConfig(maximum_tokens=3),
        on_token=lambda _, ids: seen.append(list(ids)),
    )
    decoder.decode([Request("a")])
    assert seen == [[98], [98, 99], [98, 99, 100]]
