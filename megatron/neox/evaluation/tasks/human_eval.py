"""HumanEval at once: sample every task, execute the samples in the sandbox, tell pass@k."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from megatron.neox.config import EvaluationConfig, GenerationConfig
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.humaneval.protocols import protocol_named
from megatron.neox.evaluation.humaneval.samples import Sample
from megatron.neox.evaluation.humaneval.summary import choose_ks, count, score
from megatron.neox.evaluation.humaneval.verdicts import judge_samples, self_test
from megatron.neox.evaluation.sandbox import Limits, Sandbox, choose_backend
from megatron.neox.evaluation.task import TaskResult
from megatron.neox.generation.decode import Decoder, sample_requests
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.plugins import tasks
from megatron.neox.tokenizers import Tokenizer

log = logging.getLogger(__name__)


@tasks.register("human_eval")
class HumanEval:
    """pass@k of HumanEval with 95% intervals; samples end at the protocol's stops and are executed in the sandbox.

    Args:
        settings: the batch size.
        num_samples: samples of each task.
        temperature: 0, with top_p and top_k 0, is greedy.
        top_p: nucleus of the distribution to sample from; 0 is all of it.
        top_k: so many likeliest tokens to sample from; 0 is all.
        maximum_tokens: longest completion.
        seed: of the sampling.
        protocol: polycoder, codeparrot, openai or bigcode.
        sandbox: auto, bubblewrap or landlock.
        problem_file: tasks in HumanEval's form; none is HumanEval.
        limit: the first so many tasks only.

    Raises:
        DependencyError: no sandbox works here, or the package human-eval is not installed.
        InputError: no protocol has the name, or a problem file is damaged.
    """

    version = 1

    def __init__(
        self,
        settings: EvaluationConfig,
        *,
        num_samples: int = 1,
        temperature: float = 0.0,
        top_p: float = 0.0,
        top_k: int = 0,
        maximum_tokens: int = 256,
        seed: int = 1234,
        protocol: str = "polycoder",
        sandbox: str = "auto",
        problem_file: str | None = None,
        limit: int | None = None,
    ) -> None:
        self._protocol = protocol_named(protocol)
        self._backend = choose_backend(sandbox)
        self._problems = dict(
            islice(read_problems(Path(problem_file) if problem_file else None).items(), limit)
        )
        self._sampling = GenerationConfig(
            num_samples=num_samples, temperature=temperature, top_p=top_p, top_k=top_k,
            maximum_tokens=maximum_tokens, generation_seed=seed, stop=list(self._protocol.sampling_stops),
            generation_batch_size=settings.eval_batch_size,
        )  # fmt: skip
        self._limit = limit

    def run(self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers) -> TaskResult:
        """Sample and judge, both shared among the copies of the model.

        Raises:
            InputError: a prompt is too long for the model, or the self-test fails.
            NeoXError: the model's logits are not numbers.
        """
        limits = Limits(wall_seconds=self._protocol.timeout_seconds)
        with Sandbox(self._backend, limits) as sandbox:
            self_test(self._problems, sandbox)  # before hours of sampling, not after
            mine = workers.share(self._samples(model, tokenizer, workers))
            rows = workers.join(judge_samples(mine, self._problems, self._protocol, sandbox))
        counts = count(rows)
        ks, untold = choose_ks(counts, None)
        if untold:
            log.info("%s", untold)
        metrics: dict[str, float | int | None] = {"num_tasks": len(counts), "num_samples": len(rows)}
        for k, found in score(counts, ks).items():
            metrics |= {f"pass@{k}": found.mean, f"pass@{k}_low": found.low, f"pass@{k}_high": found.high}
        return TaskResult(metrics, self._description(), rows)

    def _samples(self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers) -> Sequence[Sample]:
        settings = self._sampling
        prompts = [problem.prompt.strip() for problem in self._problems.values()]
        requests = sample_requests(prompts, settings.num_samples, sources=[*self._problems])
        decoder = Decoder(model, tokenizer, settings)
        decoder.check(requests)
        samples: list[Sample] = []
        for piece in workers.rounds(requests, settings.generation_batch_size):
            for request, record in zip(piece, workers.join(decoder.decode(workers.share(piece)))):
                told = {**record.sampling, "length": record.length, "finished": record.finished}
                samples.append(
                    Sample(request.source, request.sample_number, record.context, record.text, told)
                )
        return samples

    def _description(self) -> dict[str, Any]:
        sampling = self._sampling
        return {
            "protocol": f"{self._protocol.name}: {self._protocol.description}",
            "sandbox": self._backend.description,
            "timeout_seconds": self._protocol.timeout_seconds,
            "num_samples": sampling.num_samples,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "maximum_tokens": sampling.maximum_tokens,
            "seed": sampling.generation_seed,
            "stop": list(sampling.stop),
            "limit": self._limit,
            "interval": "95%, bootstrap over tasks",
        }
