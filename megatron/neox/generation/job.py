"""Samples of known prompts, written to a file."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.neox.config import GenerationConfig
from megatron.neox.errors import ConfigError
from megatron.neox.generation.decode import Decoder, Request, sample_requests
from megatron.neox.generation.output import LineFile
from megatron.neox.generation.progress import Progress
from megatron.neox.generation.prompts import human_eval_prompts, read_prompt_files
from megatron.neox.generation.workers import Workers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Samples to make, and the file they go to."""

    requests: Sequence[Request]
    output: Path
    batch_size: int


def text_gen_type(settings: GenerationConfig) -> str:
    """The mode: as given, else input-file where there is an input file, else unconditional."""
    return settings.text_gen_type or ("input-file" if settings.sample_input_file else "unconditional")


def plan_job(settings: GenerationConfig) -> Job:
    """The prompts and the output file of a mode that writes one, with GPT-NeoX's default names.

    Raises:
        ConfigError: input-file mode without sample_input_file.
        InputError: a prompt file is absent, not text, or empty.
    """
    mode = text_gen_type(settings)
    if mode == "humaneval":
        prompts = human_eval_prompts(strip=settings.strip_prompt)
        name = f"humaneval_sample{settings.num_samples}.output.jsonl"
    elif mode == "input-file":
        if not settings.sample_input_file:
            raise ConfigError(
                ['text_gen_type "input-file" needs sample_input_file: a file whose whole text is the prompt']
            )
        prompts = read_prompt_files(Path(settings.sample_input_file), strip=settings.strip_prompt)
        name = f"{settings.sample_input_file.rstrip('/')}.output.jsonl"
    else:
        prompts, name = {"": ""}, "samples.txt"
    requests = sample_requests([*prompts.values()], settings.num_samples, sources=[*prompts])
    return Job(requests, Path(settings.sample_output_file or name), settings.generation_batch_size)


def write_samples(job: Job, decoder: Decoder, workers: Workers, *, is_main: bool) -> None:
    """Decode every request, shared among the copies of the model, and write the records in their order.

    Raises:
        InputError: a prompt is too long for the model.
        OutputError: the output cannot be written.
    """
    decoder.check(job.requests)
    progress = Progress(len(job.requests), "samples")
    with LineFile(job.output) if is_main else contextlib.nullcontext() as output:
        for piece in workers.rounds(job.requests, job.batch_size):
            records = workers.join(decoder.decode(workers.share(piece)))
            if output is not None:
                for record in records:
                    output.write(record.to_json())
            progress.add(len(records), sum(record.length for record in records))
    log.info("wrote %d samples to %s", len(job.requests), job.output)
