"""What generate.py does: take prompts from where the config says, and write or show their continuations."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial

from torch import distributed

from megatron.neox.config import Config, GenerationConfig
from megatron.neox.engine.distributed import setup_logging
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.inference import load_model
from megatron.neox.generation.decode import Decoder
from megatron.neox.generation.interactive import Conversation, read_typed_prompt
from megatron.neox.generation.job import plan_job, text_gen_type, write_samples
from megatron.neox.generation.language_model import LanguageModel
from megatron.neox.generation.workers import Workers
from megatron.neox.tokenizers import Tokenizer, build_tokenizer

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Generate as the config's section `generation` says; every rank calls this.

    Raises:
        UserError: a prompt, an output, the vocabulary or the checkpoint is not as it must be.
    """
    settings = config.generation
    with ProcessGrid.build(config.parallelism, fold_pipeline=True) as grid:
        setup_logging(grid.rank, config.logging.log_dir)
        job = None if text_gen_type(settings) == "interactive" else plan_job(settings)
        tokenizer = build_tokenizer(config.tokenizer)
        model = load_model(config, grid, tokenizer=tokenizer)
        if job is None:
            converse(model, tokenizer, settings, grid)
        else:
            workers = Workers(grid.data_rank, grid.data_size, grid.groups["data"])
            write_samples(job, Decoder(model, tokenizer, settings), workers, is_main=grid.is_main)
    return 0


def converse(
    model: LanguageModel, tokenizer: Tokenizer, settings: GenerationConfig, grid: ProcessGrid
) -> None:
    """Answer prompts typed at rank 0's terminal; the other ranks compute along."""
    ask = partial(read_typed_prompt, settings.prompt_end)
    read = partial(_read_for_all, ask, is_main=grid.is_main) if grid.world_size > 1 else ask
    Conversation(model, tokenizer, settings, read=read, write=_show if grid.is_main else _hide).run()


def _read_for_all(ask: Callable[[], str | None], *, is_main: bool) -> str | None:
    box = [ask() if is_main else None]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _hide(text: str) -> None:
    del text
