"""Our models behind lm-evaluation-harness' interface, in batches, over all ranks.

lm-eval runs on rank 0. What it asks of the model is said to every rank: tensor ranks compute each batch together,
copies of the model take shares of the requests.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from torch import distributed

from megatron.neox.config import EvaluationConfig, GenerationConfig
from megatron.neox.errors import InputError
from megatron.neox.evaluation.scoring import Score, Scored, TokenScorer
from megatron.neox.evaluation.windows import cut_windows, document_start
from megatron.neox.generation.decode import Decoder, Request
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)

_UNDERSTOOD = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


class SharedWork:
    """What lm-eval's requests come down to, computed by all ranks together.

    Args:
        num_ranks: all processes, those of a tensor split among them.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        workers: Workers,
        settings: EvaluationConfig,
        *,
        num_ranks: int = 1,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = settings.eval_batch_size
        self._workers = workers
        self._num_ranks = num_ranks
        self._is_broken = False

    def follow(self) -> None:
        """On every rank but 0: compute what rank 0 asks for, until it has no more."""
        while (asked := self._told(None)) is not None:
            getattr(self, asked[0])(*asked[1:])

    def dismiss(self) -> None:
        """On rank 0: let the others go; they are gone already where an error met all ranks in the midst of work."""
        if not self._is_broken:
            self._told(None)

    def score(self, sequences: list[tuple[list[int], int]], *, greedy: bool) -> list[Score]:
        """On rank 0: the scores of sequences of ids, of which the last so many count; `greedy` as TokenScorer's."""
        return self._ask("_score", sequences, greedy)

    def generate(self, requests: list[Request], settings: GenerationConfig) -> list[str]:
        """On rank 0: what follows each prompt; of a prompt that leaves too little room, the end is read."""
        return self._ask("_generate", requests, settings)

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._told((name, *arguments))
        try:
            return getattr(self, name)(*arguments)
        except BaseException:
            self._is_broken = True
            raise

    def _told(self, asked: Any) -> Any:
        if self._num_ranks == 1:
            return asked
        box = [asked]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def _score(self, sequences: list[tuple[list[int], int]], greedy: bool) -> list[Score]:
        scorer = TokenScorer(
            self.model,
            padding=self.tokenizer.eod,
            vocab_size=self.tokenizer.vocab_size,
            batch_size=self.batch_size,
        )
        mine = [Scored(torch.tensor(ids), count) for ids, count in self._workers.share(sequences)]
        return self._workers.join(scorer.score(mine, "requests", greedy=greedy))

    def _generate(self, requests: list[Request], settings: GenerationConfig) -> list[str]:
        room = self.model.max_positions - settings.maximum_tokens
        decoder = Decoder(self.model, _EndOfPrompt(self.tokenizer, room), settings)  # pyright: ignore[reportArgumentType]
        mine = self._workers.share(requests)
        texts: list[str] = []
        for start in range(0, len(mine), self.batch_size):
            texts += [record.text or "" for record in decoder.decode(mine[start : start + self.batch_size])]
        return self._workers.join(texts)


class _EndOfPrompt:
    """A tokenizer that keeps the last so many tokens of what it encodes."""

    def __init__(self, tokenizer: Tokenizer, num_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._num_tokens = num_tokens

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)[-self._num_tokens :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class HarnessModel(TemplateLM):
    """lm-eval's view of a model; the end-of-document token stands before every text without context."""

    def __init__(self, work: SharedWork) -> None:
        super().__init__()
        self._work = work
        self._said: set[str] = set()

    @property
    def eot_token_id(self) -> int:
        """The end-of-document token."""
        return self._work.tokenizer.eod

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context."""
        return document_start(self._work.tokenizer)

    @property
    def max_length(self) -> int:
        """The model's positions."""
        return self._work.model.max_positions

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids, never with special ones."""
        del add_special_tokens, kwargs
        return self._work.tokenizer.encode(string)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log p in nats of the continuation, whether greedy decoding says the same) of each request."""
        del disable_tqdm  # how far it is, our own lines say
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        del kwargs
        sequences: list[tuple[list[int], int]] = []
        for (_, continuation), context_ids, ids in requests:
            if len(ids) > self.max_length:
                raise InputError(
                    f"a continuation is {len(ids)} tokens long, and the model has {self.max_length} positions: "
                    f"{continuation[:60]!r}..."
                )
            whole = (context_ids + ids)[-(self.max_length + 1) :]
            if len(whole) < len(context_ids) + len(ids):
                self._say_once(
                    f"contexts beyond the model's {self.max_length} positions lose their beginning"
                )
            sequences.append((whole, len(ids)))
        scorable = [sequence for sequence in sequences if sequence[1]]
        scores = iter(self._work.score(scorable, greedy=True) if scorable else [])
        answers = [_pair(next(scores)) if count else (0.0, True) for _, count in sequences]
        for (texts, _, _), answer in zip(requests, answers):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """log p in nats of each whole text, over disjoint windows of all the model's positions."""
        del disable_tqdm
        texts: list[str] = [_arguments(request)[0] for request in requests]
        sequences: list[tuple[list[int], int]] = []
        owners: list[int] = []
        for number, ids in enumerate(self._work.tokenizer.encode_batch(texts)):
            whole = [self.prefix_token_id, *ids]
            for piece in cut_windows(number, len(ids), window=self.max_length, stride=self.max_length):
                sequences.append((whole[piece.start : piece.start + piece.length + 1], piece.num_scored))
                owners.append(number)
        totals = [0.0] * len(texts)
        for owner, score in zip(owners, self._work.score(sequences, greedy=False) if sequences else []):
            totals[owner] += score.log_likelihood
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """What follows each context, up to and without a text of `until`; requests with like options together."""
        del disable_tqdm
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[json.dumps(_arguments(request)[1], sort_keys=True, default=str)].append(number)
        answers = [""] * len(requests)
        for numbers in groups.values():
            settings = self._settings(_arguments(requests[numbers[0]])[1])
            asked = _numbered([_arguments(requests[number])[0] for number in numbers])
            # Prompts of like length share a batch; which sample it becomes hangs on its numbers alone.
            order = sorted(range(len(asked)), key=lambda place: -len(asked[place].prompt))
            texts = self._work.generate([asked[place] for place in order], settings)
            for place, text in zip(order, texts):
                answers[numbers[place]] = text
        return answers

    def _settings(self, options: dict[str, Any]) -> GenerationConfig:
        chosen: dict[str, Any] = dict(normalize_gen_kwargs(options))
        if strange := sorted(set(chosen) - _UNDERSTOOD):
            self._say_once(f"generation options that have no effect here: {', '.join(strange)}")
        most = self.max_length // 2
        if chosen["max_gen_toks"] > most:
            self._say_once(
                f"at most {most} tokens are generated, half of the model's positions; a task asks for "
                f"{chosen['max_gen_toks']}"
            )
        is_sampled = chosen.get("do_sample", False)
        return GenerationConfig(
            maximum_tokens=min(chosen["max_gen_toks"], most),
            stop=[text for text in chosen["until"] if text],
            temperature=chosen.get("temperature", 1.0) if is_sampled else 0.0,
            top_p=chosen.get("top_p", 0.0) if is_sampled else 0.0,
            top_k=chosen.get("top_k", 0) if is_sampled else 0,
            generation_batch_size=self._work.batch_size,
        )

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)


def _pair(score: Score) -> tuple[float, bool]:
    return score.log_likelihood, score.is_greedy


def _arguments(request: Instance) -> tuple[Any, ...]:
    return request.args


def _numbered(prompts: Iterable[str]) -> list[Request]:
    """Each prompt with its number among the different ones, and which of its samples it is."""
    places: dict[str, int] = {}
    counts: Counter[str] = Counter()
    requests: list[Request] = []
    for prompt in prompts:
        number = places.setdefault(prompt, len(places))
        requests.append(Request(prompt, number, counts[prompt]))
        counts[prompt] += 1
    return requests
