"""What a run of `tools/preprocess_data.py` is asked for, and what it tells on its way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron.neox.config import TokenizerConfig
from megatron.neox.corpus.stages.running import RunTasks
from megatron.neox.tokenizers.engines import EngineName


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings:
    """What to tokenize, how, and where it goes.

    Attributes:
        inputs: folders of source files, folders of shards, .jsonl, .parquet and text files.
        append_eod: end each document with the tokenizer's eod; none means where an input is a tree of files.
        keys: of a jsonl record, each giving a dataset of its own.
        text_column: of a parquet file; none means text, or content.
        filters: names of plugins of kind `filter`, each of which may leave documents out.
        engine: what encodes: auto, gigatoken or tokenizer.
        num_documents: how many there are, if known, for the time that is left.
        log_interval: documents between two reports of progress.
        resume: go on with a run that was stopped.
        run_tasks: where the pieces are encoded; none is `workers` processes of this machine.
    """

    inputs: Sequence[Path]
    output_prefix: str
    tokenizer: TokenizerConfig
    append_eod: bool | None = None
    keys: Sequence[str] = ("text",)
    text_column: str | None = None
    extensions: Sequence[str] = ()
    exclude: Sequence[str] = ()
    filters: Sequence[str] = ()
    keep_byte_order_mark: bool = False
    fix_text: bool = False
    engine: EngineName = "auto"
    workers: int = 1
    seed: int = 1234
    num_documents: int | None = None
    log_interval: int = 100
    resume: bool = False
    overwrite: bool = False
    run_tasks: RunTasks | None = None


@dataclass
class Progress:
    """How far a dataset is."""

    num_documents: int = 0
    num_bytes: int = 0
    num_tokens: int = 0
    expected_documents: int | None = None
    start: float = field(default_factory=time.perf_counter)

    def line(self) -> str:
        """One line with sizes and speeds."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        line = (
            f"{self.num_documents:,} documents, {self.num_bytes / 1e6:,.1f} MB, {self.num_tokens:,} tokens, "
            f"{self.num_bytes / 1e6 / seconds:,.2f} MB/s, {self.num_tokens / seconds:,.0f} tokens/s"
        )
        if self.expected_documents and self.num_documents:
            left = seconds * max(self.expected_documents / self.num_documents - 1, 0)
            line += f", {100 * self.num_documents / self.expected_documents:.0f}%, {left:.0f} s left"
        return line
