"""The whole job: what it would cost, every file scored, some at a time, and nothing scored twice."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Any

from megatron.neox.errors import UserError
from megatron.neox.evaluation.endpoint.client import Endpoint
from megatron.neox.evaluation.endpoint.files import CodeText
from megatron.neox.evaluation.endpoint.results_file import ResultsFile, Row
from megatron.neox.evaluation.endpoint.windows import score_text
from megatron.neox.evaluation.lexing import PYGMENTS_VERSION, count_language_tokens
from megatron.neox.generation.progress import Progress

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 3.0
"""What an estimate counts with: GPT-2's vocabulary has 2 to 3.5 bytes of code a token."""


@dataclass(frozen=True)
class Settings:
    """How files are scored.

    Args:
        start_text: stands before each file.
        context_tokens: longest prompt, in the server's tokens.
        num_workers: files at a time.
    """

    start_text: str
    context_tokens: int
    num_workers: int = 4

    def key(self, endpoint: Endpoint, file: CodeText) -> str:
        """All that a file's log p follows from."""
        told = (file.sha256, endpoint.base_url, endpoint.model, self.start_text, self.context_tokens)
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]


def estimate(files: Sequence[CodeText], price_per_million: float | None) -> str:
    """What scoring would take, in one line; files of one text are sent once."""
    texts = {file.sha256: file for file in files}.values()
    num_bytes = sum(file.num_bytes for file in texts)
    tokens = num_bytes / BYTES_PER_TOKEN
    repeated = (
        f" ({len(files) - len(texts)} of them with the text of another)" if len(texts) < len(files) else ""
    )
    line = f"{len(files)} files to score{repeated}, {num_bytes:,} bytes, about {tokens:,.0f} tokens"
    if price_per_million is None:
        return line
    return f"{line}, about ${tokens / 1e6 * price_per_million:,.2f} at ${price_per_million:g} a million"


def score_files(
    files: Sequence[CodeText], endpoint: Endpoint, settings: Settings, results: ResultsFile
) -> list[Row]:
    """A row for each file, in their order; those whose text was scored before are taken from the results file.

    Raises:
        UserError, ResourceError: the first of what went wrong; what was scored until then is in the file.
    """
    keys = [settings.key(endpoint, file) for file in files]
    missing = {key: file for key, file in zip(keys, files) if key not in results.rows}
    progress = Progress(len(missing), "files")
    with ThreadPoolExecutor(settings.num_workers) as pool:
        waiting = {pool.submit(_score, file, endpoint, settings): key for key, file in missing.items()}
        try:
            for future in as_completed(waiting):
                row = future.result()
                results.add(waiting[future], row)
                progress.add(1, row["tokens"])
        except BaseException:
            endpoint.abandon()
            pool.shutdown(wait=False, cancel_futures=True)
            for future, key in waiting.items():  # what is done already is paid for
                if (
                    future.done()
                    and not future.cancelled()
                    and future.exception() is None
                    and key not in results.rows
                ):
                    results.add(key, future.result())
            raise
    # Files of one text share its score; which file it is, is their own.
    return [
        {**results.rows[key], "folder": file.folder, "language": file.language, "path": file.path,
         "pygments_tokens": count_language_tokens(file.language, file.text)}
        for key, file in zip(keys, files)
    ]  # fmt: skip


def _score(file: CodeText, endpoint: Endpoint, settings: Settings) -> dict[str, Any]:
    try:
        found = score_text(
            endpoint, file.text, start_text=settings.start_text, context_tokens=settings.context_tokens
        )
    except UserError as error:
        raise type(error)(f"{file.language}/{file.path}: {error}") from None
    return {
        "folder": file.folder,
        "language": file.language,
        "path": file.path,
        "sha256": file.sha256,
        "log_likelihood": found.log_likelihood,
        "tokens": found.num_scored,
        "bytes": file.num_bytes,
        "tokens_sent": found.num_sent,
        "unaligned_windows": found.num_unaligned,
        "windows": [asdict(window) for window in found.windows] if len(found.windows) > 1 else [],
        "base_url": endpoint.base_url,
        "model": endpoint.model,
        "start_text": settings.start_text,
        "context_tokens": settings.context_tokens,
        "pygments_version": PYGMENTS_VERSION,
    }


def confirm(line: str, *, has_price: bool, is_agreed: bool, ask: Callable[[str], str] | None) -> None:
    """Ask before money is spent.

    Args:
        ask: puts a question at the terminal; none where there is no terminal.

    Raises:
        UserError: the answer is no, or nobody can be asked.
    """
    if not has_price or is_agreed:
        return
    if ask is None:
        raise UserError(
            f"{line}\n  nothing was sent: --yes agrees to the price where no terminal can be asked"
        )
    if ask("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was sent")
