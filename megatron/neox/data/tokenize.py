"""Documents to token datasets: read in one process, encoded in several, written in reading order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron.neox.config import TokenizerConfig
from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.readers import reader_name
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.data.encoding import Chunk, Encoding, encode_all
from megatron.neox.data.indexed import IndexedDatasetWriter, dtype_for
from megatron.neox.errors import InputError
from megatron.neox.plugins import readers
from megatron.neox.tokenizers import Tokenizer, build_tokenizer

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20  # texts that go to a worker together
_CHUNK_DOCUMENTS = 1024


@dataclass(frozen=True, kw_only=True)
class TokenizeSettings:
    """What to tokenize, how, and where it goes.

    Attributes:
        append_eod: end each document with the tokenizer's eod; none means where an input is a folder.
        keys: of a jsonl record, each giving a dataset of its own.
        text_column: of a parquet file.
        num_documents: how many there are, if known, for the time that is left.
        log_interval: documents between two reports of progress.
    """

    inputs: Sequence[Path]
    output_prefix: str
    tokenizer: TokenizerConfig
    append_eod: bool | None = None
    keys: Sequence[str] = ("text",)
    text_column: str = "text"
    extensions: Sequence[str] = ()
    exclude: Sequence[str] = ()
    keep_byte_order_mark: bool = False
    fix_text: bool = False
    workers: int = 1
    seed: int = 1234
    num_documents: int | None = None
    log_interval: int = 100
    overwrite: bool = False


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


def tokenize(
    settings: TokenizeSettings, *, report: Callable[[Progress], None] = lambda _: None
) -> list[Path]:
    """Write one dataset for each key and return their prefixes.

    Raises:
        InputError: an input is absent or damaged, or holds no document that can be used.
        OutputError: a dataset stands under the prefix already, or another run writes it.
        VocabularyError: the tokenizer's files are absent or wrong.
        ResourceError: a worker died.
    """
    names = [reader_name(path) for path in settings.inputs]
    _check_keys(settings, names)
    tokenizer = build_tokenizer(settings.tokenizer)
    append_eod = "directory" in names if settings.append_eod is None else settings.append_eod
    _note_end_of_document(append_eod, given=settings.append_eod is not None, is_tree="directory" in names)
    return [_tokenize_key(settings, key, names, tokenizer, append_eod, report) for key in settings.keys]


def _check_keys(settings: TokenizeSettings, names: Sequence[str]) -> None:
    """Refuse keys where nothing has them, and tell of records that would be read as source text."""
    if list(settings.keys) != ["text"] and set(names) != {"jsonl"}:
        raise InputError(
            f"--jsonl-keys {' '.join(settings.keys)}: only .jsonl files have keys, and an input is something else; "
            "tokenize them in runs of their own"
        )
    for path, name in zip(settings.inputs, names, strict=True):
        if name == "directory" and (
            records := sorted(path.glob("*.jsonl*")) + sorted(path.glob("*.parquet"))
        ):
            log.warning(
                "NOTE: %s is read as a tree of source files, %s and the like as text too; to read records, "
                "give the files themselves to --input, divided by commas", path, records[0].name,
            )  # fmt: skip


def _note_end_of_document(append_eod: bool, *, given: bool, is_tree: bool) -> None:
    if not given:
        reason = "an input is a folder of files" if is_tree else "GPT-NeoX's default for records"
        other = (
            "--no-append-eod leaves it out, as PolyCoder's own data" if append_eod else "--append-eod adds it"
        )
        log.warning(
            "NOTE: end-of-document tokens are %s: %s. %s.", "ON" if append_eod else "OFF", reason, other
        )
    elif not append_eod:
        log.info("end-of-document tokens are off: documents run together, and a model never learns to stop")


def _tokenize_key(
    settings: TokenizeSettings,
    key: str,
    names: Sequence[str],
    tokenizer: Tokenizer,
    append_eod: bool,
    report: Callable[[Progress], None],
) -> Path:
    tally = Tally()
    prefix = f"{settings.output_prefix}_{key}_document"
    documents = _documents(settings, key, names, tally)
    texts = usable_texts(documents, tally, keep_byte_order_mark=settings.keep_byte_order_mark)
    encoding = Encoding(settings.tokenizer, append_eod=append_eod, fix_text=settings.fix_text)
    progress = Progress(expected_documents=settings.num_documents)
    next_report, num_replaced = settings.log_interval, 0
    with IndexedDatasetWriter(
        prefix, dtype_for(tokenizer.vocab_size), overwrite=settings.overwrite
    ) as writer:
        for encoded in encode_all(_chunks(texts, tally), encoding, workers=settings.workers):
            writer.add_many(encoded.ids, encoded.sizes)
            num_replaced += encoded.num_replaced
            progress.num_documents, progress.num_tokens = writer.num_documents, writer.num_tokens
            progress.num_bytes += encoded.num_bytes
            if progress.num_documents >= next_report:
                report(progress)
                next_report = progress.num_documents + settings.log_interval
        if not writer.num_documents:
            raise InputError(_nothing_found(settings, key, tally))
        writer.metadata = _metadata(settings, key, tokenizer, append_eod, tally, num_replaced)
    report(progress)
    _summarise(prefix, progress, tally, num_replaced)
    return Path(prefix)


def _documents(
    settings: TokenizeSettings, key: str, names: Sequence[str], tally: Tally
) -> Iterator[Document]:
    for path, name in zip(settings.inputs, names, strict=True):
        yield from readers.build(
            name,
            path,
            tally,
            key=key,
            column=settings.text_column,
            seed=settings.seed,
            extensions=settings.extensions,
            exclude=settings.exclude,
        )


def _chunks(texts: Iterator[str], tally: Tally) -> Iterator[Chunk]:
    """Texts in lists of about a mebibyte, with their bytes; where they are cut changes no token."""
    chunk: list[str] = []
    start = 0
    for text in texts:
        chunk.append(text)
        if tally.num_bytes - start >= _CHUNK_BYTES or len(chunk) >= _CHUNK_DOCUMENTS:
            yield chunk, tally.num_bytes - start
            chunk, start = [], tally.num_bytes
    if chunk:
        yield chunk, tally.num_bytes - start


def _metadata(
    settings: TokenizeSettings,
    key: str,
    tokenizer: Tokenizer,
    append_eod: bool,
    tally: Tally,
    num_replaced: int,
) -> dict[str, Any]:
    """What PREFIX.json tells of a dataset; no machine's paths, so that equal data give equal files."""
    return {
        "tokenizer": tokenizer.fingerprint(),
        "append_eod": append_eod,
        "eod": tokenizer.eod,
        "num_source_bytes": tally.num_bytes,
        "num_bytes_replaced_by_eod": num_replaced,
        "skipped": dict(sorted(tally.skipped.items())),
        "inputs": [path.name for path in settings.inputs],
        "key": key,
        "seed": settings.seed,
        "keep_byte_order_mark": settings.keep_byte_order_mark,
        "fix_text": settings.fix_text,
    }


def _nothing_found(settings: TokenizeSettings, key: str, tally: Tally) -> str:
    where = ", ".join(map(str, settings.inputs))
    hint = ""
    if tally.skipped["no_text"]:
        hint = f"; are the records' texts under another key than {key}? --jsonl-keys names it"
    return f"no document to tokenize in {where} (left out: {tally.reasons()}){hint}; nothing was written"


def _summarise(prefix: str, progress: Progress, tally: Tally, num_replaced: int) -> None:
    log.info("%s.bin, .idx and .json: %s", prefix, progress.line())
    if tally.skipped:
        log.info("left out: %s", tally.reasons())
    if num_replaced:
        log.warning(
            "NOTE: %d bytes that the vocabulary lacks became the end-of-document id inside documents, as in "
            "GPT-NeoX; --missing-bytes extend gives them ids of their own",
            num_replaced,
        )
