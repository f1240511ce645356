"""Batched decoding: right-padded prompts, then one token a row and a step, until every row has stopped.

    prompts   def f(x):          logits of each row's last token -> sampler -> one id a row
              import os .   .                    ^                          |
              (padding)                          '----- keys and values ----'

A row stops at the end of the document, at a stop text, after maximum_tokens, or where the model's positions
end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from megatron.neox.config import GenerationConfig
from megatron.neox.errors import InputError, NeoXError
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.records import DID_NOT_START, Record
from megatron.neox.generation.samplers import build_sampler, uniform_number
from megatron.neox.generation.stop import StopTexts
from megatron.neox.nn.cache import KeyValueCache
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One sample that is wanted; with the seed, its two numbers decide which one it is."""

    prompt: str
    prompt_number: int = 0
    sample_number: int = 0
    source: str = field(default="", compare=False)  # where the prompt is from, for messages

    @property
    def name(self) -> str:
        """The prompt in messages."""
        return f"prompt {self.source or self.prompt_number + 1}"


def generate(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], settings: GenerationConfig
) -> Iterator[Record]:
    """num_samples records of each prompt, prompt by prompt, as their batches finish.

    An empty prompt asks for a document from its beginning.

    Raises:
        InputError: a prompt leaves the model no position to generate at.
    """
    decoder = Decoder(model, tokenizer, settings)
    requests = sample_requests(prompts, settings.num_samples)
    decoder.check(requests)
    for start in range(0, len(requests), settings.generation_batch_size):
        yield from decoder.decode(requests[start : start + settings.generation_batch_size])


def sample_requests(
    prompts: Sequence[str], num_samples: int, *, sources: Sequence[str] = ()
) -> list[Request]:
    """Every sample of the first prompt, then of the second, and so on.

    Args:
        sources: where each prompt is from; none where there is nothing to tell.
    """
    return [
        Request(prompt, number, sample, sources[number] if sources else "")
        for number, prompt in enumerate(prompts)
        for sample in range(num_samples)
    ]


@dataclass
class _Row:
    """A sample in the making."""

    request: Request
    prompt_ids: list[int]
    max_new: int  # tokens it may still get, counted from the prompt
    new_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False  # stopped by itself
    is_done: bool = False
    seconds: float = 0.0

    @property
    def ids(self) -> list[int]:
        return self.prompt_ids + self.new_ids


class Decoder:
    """Decodes batches of requests with one model and one set of sampling options.

    Args:
        on_token: called with a request and its tokens so far after each token, to show them as they come.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        settings: GenerationConfig,
        *,
        on_token: Callable[[Request, Sequence[int]], None] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.stop = StopTexts(settings.stop, tokenizer)
        self._sampler = build_sampler(settings)
        self._on_token = on_token

    @torch.inference_mode()
    def decode(self, requests: Sequence[Request]) -> list[Record]:
        """One record for each request, decoded together.

        Raises:
            InputError: a prompt leaves the model no position to generate at.
            NeoXError: the model's logits are not numbers.
        """
        start = time.perf_counter()
        rows = self._rows(requests)
        slots: list[_Row] = []  # the rows of the cache, finished ones included
        cache: KeyValueCache | None = None
        while live := [row for row in rows if not row.is_done]:
            if cache is None:
                slots = live
                cache = None if self.settings.recompute else self._new_cache(slots)
                logits = self._read(slots, cache)
            else:
                if 2 * len(live) <= len(slots):  # often enough: each time copies what the cache holds
                    cache.select([number for number, row in enumerate(slots) if not row.is_done])
                    slots = live
                logits = self._step(slots, cache)
            self._extend(live, logits, start)
        return [self._record(row) for row in rows]

    def check(self, requests: Sequence[Request]) -> None:
        """Refuse prompts that are too long, and warn of those that cut maximum_tokens short, before decoding.

        Raises:
            InputError: a prompt leaves the model no position to generate at.
        """
        for row in self._rows([request for request in requests if request.sample_number == 0]):
            length, positions = len(row.prompt_ids), self.model.max_positions
            if row.max_new < self.settings.maximum_tokens:
                log.warning(
                    "%s takes %d of the model's %d positions; at most %d tokens can follow",
                    row.request.name, length, positions, positions - length,
                )  # fmt: skip

    def _rows(self, requests: Sequence[Request]) -> list[_Row]:
        eod = [self.tokenizer.eod]
        encoded: dict[str, list[int]] = {}
        for request in requests:
            if request.prompt not in encoded:
                encoded[request.prompt] = self.tokenizer.encode(request.prompt) or eod
        return [self._row(request, encoded[request.prompt]) for request in requests]

    def _row(self, request: Request, prompt_ids: list[int]) -> _Row:
        room = self.model.max_positions - len(prompt_ids)
        if room < 1:
            raise InputError(
                f"{request.name} is {len(prompt_ids)} tokens long, and the model has "
                f"{self.model.max_positions} positions for prompt and text together; shorten the prompt"
            )
        return _Row(request, prompt_ids, min(room, self.settings.maximum_tokens))

    def _new_cache(self, rows: Sequence[_Row]) -> KeyValueCache:
        return self.model.new_cache(len(rows), max(len(row.prompt_ids) + row.max_new for row in rows))

    def _read(self, rows: Sequence[_Row], cache: KeyValueCache | None) -> Tensor:
        """Logits [b, V] after all tokens of the rows, which fill the cache."""
        lengths = [len(row.ids) for row in rows]
        token_ids = torch.full((len(rows), max(lengths)), self.tokenizer.eod)
        for number, row in enumerate(rows):
            token_ids[number, : lengths[number]] = torch.tensor(row.ids)
        token_ids = token_ids.to(self.model.device)
        # Only each row's last logits are wanted: those of long prompts times a large vocabulary would not fit.
        logits = self._logits(token_ids, cache, at=[length - 1 for length in lengths])
        if cache is not None:
            cache.truncate(lengths)
        return logits

    def _step(self, slots: Sequence[_Row], cache: KeyValueCache) -> Tensor:
        """Logits [live, V] after every slot's newest token; finished slots forget it again."""
        lengths = [length if row.is_done else length + 1 for row, length in zip(slots, cache.lengths)]
        newest = torch.tensor([[row.new_ids[-1]] for row in slots]).to(self.model.device)
        logits = self._logits(newest, cache, at=[0] * len(slots))
        cache.truncate(lengths)
        live = [number for number, row in enumerate(slots) if not row.is_done]
        return logits if len(live) == len(slots) else logits[live]

    def _logits(self, token_ids: Tensor, cache: KeyValueCache | None, *, at: Sequence[int]) -> Tensor:
        """Logits [b, vocabulary] at a place of each row; what only pads the vocabulary must never be sampled."""
        return self.model.logits(token_ids, cache, at=at)[:, 0, : self.tokenizer.vocab_size]

    def _extend(self, rows: Sequence[_Row], logits: Tensor, start: float) -> None:
        """Give every row its next token, and see which of them are done."""
        seed = self.settings.generation_seed
        numbers = [
            uniform_number(seed, row.request.prompt_number, row.request.sample_number, len(row.new_ids))
            for row in rows
        ]
        chosen = self._sampler(logits, torch.tensor(numbers, dtype=torch.float64, device=logits.device))
        self._note_logprobs(rows, logits, chosen)
        for row, token in zip(rows, self._checked(logits, chosen)):
            row.seconds = time.perf_counter() - start
            self._add(row, token)

    def _checked(self, logits: Tensor, chosen: Tensor) -> list[int]:
        chosen = chosen.clamp(max=logits.shape[-1] - 1)
        is_number = logits.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).isfinite()
        tokens: list[int] = chosen.where(is_number, -1).tolist()  # the one wait for the device in a step
        if -1 in tokens:
            raise NeoXError(
                "the model's logits are not finite numbers: its weights are damaged, or they overflow "
                "the precision (try --set precision=fp32)"
            )
        return tokens

    def _note_logprobs(self, rows: Sequence[_Row], logits: Tensor, chosen: Tensor) -> None:
        if self.settings.return_logits:
            logprobs = logits.float().log_softmax(-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
            for row, value in zip(rows, logprobs.tolist()):
                row.logprobs.append(value)

    def _add(self, row: _Row, token: int) -> None:
        row.new_ids.append(token)
        row.finished = token == self.tokenizer.eod or self.stop.reached(row.new_ids)
        row.is_done = row.finished or len(row.new_ids) == row.max_new
        if self._on_token is not None:
            self._on_token(row.request, self._said(row))

    def _said(self, row: _Row) -> list[int]:
        """The row's tokens without the one that ends the document."""
        ends = bool(row.new_ids) and row.new_ids[-1] == self.tokenizer.eod
        return row.new_ids[:-1] if ends else row.new_ids

    def _record(self, row: _Row) -> Record:
        said = self._said(row)
        return Record(
            context=row.request.prompt,
            text=self.stop.cut(self.tokenizer.decode(said)) if said else None,
            length=len(said),
            finished=row.finished,
            message=self._message(row, len(said)),
            duration_seconds=row.seconds,
            token_ids=tuple(said),
            logprobs=tuple(row.logprobs[: len(said)]) if self.settings.return_logits else None,
            sampling=self._sampling(row.request),
        )

    def _sampling(self, request: Request) -> dict[str, float | int]:
        settings = self.settings
        return {
            "sample": request.sample_number,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "maximum_tokens": settings.maximum_tokens,
            "seed": settings.generation_seed,
        }

    def _message(self, row: _Row, length: int) -> str | None:
        if not length:
            return DID_NOT_START
        if not row.finished and row.max_new < self.settings.maximum_tokens:
            return f"stopped where the model's {self.model.max_positions} positions end"
        return None
