"""Samples of problems from a model at hand, judged in the sandbox: what all tasks of HumanEval's kind do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError

from megatron.neox.config import GenerationConfig
from megatron.neox.errors import ConfigError
from megatron.neox.evaluation.humaneval.problems import Problem
from megatron.neox.evaluation.humaneval.protocols import Protocol
from megatron.neox.evaluation.humaneval.samples import Sample
from megatron.neox.evaluation.humaneval.summary import choose_ks, count, score
from megatron.neox.evaluation.humaneval.verdicts import Row, judge_samples, self_test
from megatron.neox.evaluation.sandbox import Backend, Limits, Sandbox
from megatron.neox.generation.decode import Decoder, sample_requests
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.stop import StopTexts
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)


AProblem = TypeVar("AProblem", bound=Problem)

# Keys of GenerationConfig that go by other names as options of a task.
_OPTIONS = {"generation_seed": "seed", "generation_batch_size": "eval_batch_size"}


def sampling_config(**keys: Any) -> GenerationConfig:
    """How a task samples, from its options.

    Raises:
        ConfigError: a value that cannot be.
    """
    try:
        return GenerationConfig(**keys)
    except ValidationError as error:
        raise ConfigError(
            [
                f"eval_task_options: {_OPTIONS.get(name := str(fault['loc'][0]), name)}: "
                f"{fault['msg'][0].lower()}{fault['msg'][1:]}, not {fault['input']!r}"
                for fault in error.errors()
            ]
        ) from None


def first_of(problems: Mapping[str, AProblem], limit: int | None) -> dict[str, AProblem]:
    """The first `limit` problems; None is all.

    Raises:
        ConfigError: it is no number of problems.
    """
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ConfigError([f"eval_task_options: limit is how many tasks, at least 1, not {limit!r}"])
    return dict(islice(problems.items(), limit))


@dataclass(frozen=True)
class SampledProblems:
    """Problems, and how they are sampled and judged.

    Args:
        problems: by task_id.
        tested: problems whose canonical solutions must pass before anything is sampled.
        stop_texts: how the stops of `sampling` are looked for.
    """

    problems: Mapping[str, Problem]
    tested: Mapping[str, Problem]
    protocol: Protocol
    backend: Backend
    sampling: GenerationConfig
    stop_texts: type[StopTexts] = StopTexts

    def rows(
        self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers, prompts: Sequence[str]
    ) -> list[Row]:
        """A verdict of each sample; sampling and judging are shared among the copies of the model.

        Args:
            prompts: what the model reads, of each problem.

        Raises:
            InputError: a prompt is too long for the model, or the self-test fails.
            NeoXError: the model's logits are not numbers.
        """
        limits = Limits(wall_seconds=self.protocol.timeout_seconds)
        with Sandbox(self.backend, limits) as sandbox:
            self_test(self.tested, sandbox)  # before hours of sampling, not after
            mine = workers.share(self._samples(model, tokenizer, workers, prompts))
            return workers.join(judge_samples(mine, self.problems, self.protocol, sandbox))

    def _samples(
        self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers, prompts: Sequence[str]
    ) -> list[Sample]:
        requests = sample_requests(prompts, self.sampling.num_samples, sources=[*self.problems])
        decoder = Decoder(model, tokenizer, self.sampling)
        decoder.stop = self.stop_texts(self.sampling.stop, tokenizer)
        decoder.check(requests)
        samples: list[Sample] = []
        for piece in workers.rounds(requests, self.sampling.generation_batch_size):
            for request, record in zip(piece, workers.join(decoder.decode(workers.share(piece)))):
                told = {**record.sampling, "length": record.length, "finished": record.finished}
                samples.append(
                    Sample(request.source, request.sample_number, record.context, record.text, told)
                )
        return samples

    def description(self) -> dict[str, Any]:
        """How the samples were made and judged."""
        sampling = self.sampling
        return {
            "protocol": f"{self.protocol.name}: {self.protocol.description}",
            "sandbox": self.backend.description,
            "timeout_seconds": self.protocol.timeout_seconds,
            "num_samples": sampling.num_samples,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "maximum_tokens": sampling.maximum_tokens,
            "seed": sampling.generation_seed,
            "stop": list(sampling.stop),
        }


def pass_at_k_metrics(
    rows: Sequence[Row], groups: Mapping[str, str] | None = None
) -> dict[str, float | int | None]:
    """pass@k with 95% intervals, for the k that there are samples for.

    Args:
        groups: what each task_id belongs to, where tasks are not independent; whole groups are drawn.
    """
    counts = count(rows)
    ks, untold = choose_ks(counts, None)
    if untold:
        log.info("%s", untold)
    metrics: dict[str, float | int | None] = {"num_tasks": len(counts), "num_samples": len(rows)}
    for k, found in score(counts, ks, groups).items():
        metrics |= {f"pass@{k}": found.mean, f"pass@{k}_low": found.low, f"pass@{k}_high": found.high}
    return metrics
