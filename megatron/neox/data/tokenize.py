"""Documents to token datasets: a stage whose tasks each read and encode a piece of the input, then one file of all.

While it runs, PREFIX.parts holds the pieces that are done, so that a run that was stopped goes on; the dataset takes
its name when all are in it.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from megatron.neox.config import TokenizerConfig
from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.filters import Filter, first_reason
from megatron.neox.corpus.readers import inputs_of, parts_of
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.executors import Resources, submit_stage
from megatron.neox.corpus.stages.stage import (
    Phase,
    RunTasks,
    Stage,
    Step,
    counts_so_far,
    run_stage,
    work_folder,
)
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.data.encoding import Chunk, Encoder, Encoding, one_thread
from megatron.neox.data.indexed import IndexedDatasetWriter, dtype_for, paths_of, refuse_existing
from megatron.neox.errors import InputError, OutputError
from megatron.neox.files import appearing, write_whole
from megatron.neox.plugins import filters as filter_registry
from megatron.neox.plugins import readers
from megatron.neox.tokenizers import Tokenizer
from megatron.neox.tokenizers.engines import EngineName
from megatron.neox.tokenizers.gpt2_bpe import END_OF_DOCUMENT

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20  # texts encoded at once
_CHUNK_DOCUMENTS = 1024


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


def tokenize(
    settings: TokenizeSettings, *, report: Callable[[Progress], None] = lambda _: None
) -> list[Path]:
    """Write one dataset for each key and return their prefixes.

    Raises:
        InputError: an input is absent or damaged, or holds no document that can be used.
        OutputError: a dataset or an unfinished one stands under the prefix, or another run writes it.
        VocabularyError: the tokenizer's files are absent or wrong.
        UnknownPartError: no filter has a name that is asked for.
        ResourceError: a worker died.
    """
    with one_thread():
        return [dataset.write(report) for dataset in _datasets(settings)]


def submit_tokenize(settings: TokenizeSettings, resources: Resources) -> dict[str, str | None]:
    """Hand the datasets to Slurm; gives the job that finishes each by its prefix, none where it is made already.

    Once that job is done, `tokenize` with `resume` tells the counts and removes the pieces.

    Raises:
        DependencyError, InputError, OutputError: as `submit_stage`; and all but ResourceError as `tokenize`.
    """
    return {dataset.prefix: dataset.submit(resources) for dataset in _datasets(settings)}


def _datasets(settings: TokenizeSettings) -> list[_Dataset]:
    """One for each key, all that can be known to be wrong being told before any is begun."""
    inputs = [place for path in settings.inputs for place in inputs_of(path)]
    names = [name for name, _ in inputs]
    _check_keys(settings, inputs)
    for name in settings.filters:
        filter_registry.part(name)
    append_eod = "directory" in names if settings.append_eod is None else settings.append_eod
    datasets = [_Dataset(settings, inputs, key, append_eod) for key in settings.keys]
    engine = _encoder(datasets[0].encoding).engine
    _note_end_of_document(append_eod, given=settings.append_eod is not None, is_tree="directory" in names)
    log.info("encoding with %s", engine.name)
    return datasets


def _check_keys(settings: TokenizeSettings, inputs: Sequence[tuple[str, Path]]) -> None:
    """Refuse keys where nothing has them, and tell of records that would be read as source text."""
    if list(settings.keys) != ["text"] and {name for name, _ in inputs} != {"jsonl"}:
        raise InputError(
            f"--jsonl-keys {' '.join(settings.keys)}: only .jsonl files have keys, and an input is something else; "
            "tokenize them in runs of their own"
        )
    for name, path in inputs:
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


@dataclass(frozen=True)
class _Dataset:
    """The dataset of one key: its stage, and the file that its pieces become."""

    settings: TokenizeSettings
    inputs: Sequence[tuple[str, Path]]
    key: str
    append_eod: bool

    @property
    def prefix(self) -> str:
        return f"{self.settings.output_prefix}_{self.key}_document"

    @property
    def parts(self) -> Path:
        return Path(f"{self.prefix}.parts")

    @property
    def encoding(self) -> Encoding:
        settings = self.settings
        return Encoding(
            settings.tokenizer, append_eod=self.append_eod, fix_text=settings.fix_text, engine=settings.engine
        )

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        return dtype_for(self._tokenizer.vocab_size)

    @property
    def _tokenizer(self) -> Tokenizer:
        return _encoder(self.encoding).tokenizer

    def write(self, report: Callable[[Progress], None]) -> Path:
        """Make the dataset; `report` hears of it now and then."""
        settings, described = self.settings, self._described()
        if not self._is_to_make(described):
            return Path(self.prefix)
        progress = Progress(expected_documents=settings.num_documents)
        summary = run_stage(
            self._stage(described),
            workers=settings.workers,
            resume=settings.resume,
            overwrite=settings.overwrite,
            report=lambda step: self._tell(step, progress, report),
            run_tasks=settings.run_tasks,
        )
        counts = Counts.from_json(summary)
        skipped = _skipped(counts)
        shutil.rmtree(self.parts)
        if not counts.total_kept().num_files:
            raise InputError(self._nothing_found(skipped))
        report(progress)
        _summarise(self.prefix, progress, skipped, counts)
        return Path(self.prefix)

    def submit(self, resources: Resources) -> str | None:
        """Hand the stage to Slurm; the number of the last job, none where the dataset is made already."""
        settings, described = self.settings, self._described()
        if not self._is_to_make(described):
            return None
        stage = self._stage(described)
        return submit_stage(stage, resources, resume=settings.resume, overwrite=settings.overwrite)

    def _is_to_make(self, described: dict[str, Any]) -> bool:
        settings = self.settings
        if settings.resume and self.parts.exists():
            # A dataset that stands there is this run's: it was killed before the pieces were gone.
            return True
        if settings.resume and self._is_made(described):
            log.info("%s is made already", self.prefix)
            return False
        refuse_existing(self.prefix, overwrite=settings.overwrite)
        return True

    def _stage(self, described: dict[str, Any]) -> Stage:
        settings = self.settings
        decisive = {
            **described,
            "text_column": settings.text_column,
            "extensions": list(settings.extensions),
            "exclude": list(settings.exclude),
        }
        phases = [
            Phase("list", 1, self.list_parts),
            Phase("encode", self.num_parts, self.encode_part),
            Phase("join", 1, self.join_parts),
        ]
        return Stage("tokenize", self.parts, decisive, phases)

    def list_parts(self, _: int) -> Counts:
        """Write a file for each piece of the inputs: which input, and which part of it."""
        settings, tally, number = self.settings, Tally(), 0
        for place, (name, path) in enumerate(self.inputs):
            for part in parts_of(
                name, path, tally,
                seed=settings.seed, extensions=settings.extensions, exclude=settings.exclude,
            ):  # fmt: skip
                file = work_folder(self.parts) / f"part-{number:06d}.json"
                write_whole(file, json.dumps({"input": place, "part": part}))
                number += 1
        write_whole(work_folder(self.parts) / "num_parts", str(number))
        return _counted(tally)

    def num_parts(self) -> int:
        """How many pieces there are, once they are listed."""
        return int((work_folder(self.parts) / "num_parts").read_text(encoding="utf-8"))

    def encode_part(self, number: int) -> Counts:
        """Read and encode a piece: its ids go to one file, the length of each document to another."""
        tally, num_tokens, num_replaced, num_end_texts = Tally(), 0, 0, 0
        texts = usable_texts(
            self._documents(number, tally), tally, keep_byte_order_mark=self.settings.keep_byte_order_mark
        )
        encoder = _encoder(self.encoding)
        ids_path, sizes_path = self._files(number)
        with (
            one_thread(), appearing(sizes_path) as sizes_partial, appearing(ids_path) as ids_partial,
            ids_partial.open("wb") as ids, sizes_partial.open("wb") as sizes,
        ):  # fmt: skip
            for chunk in _chunks(texts, tally):
                encoded = encoder.encode(chunk)
                _write(ids, encoded.ids.astype(self.dtype, copy=False))
                _write(sizes, encoded.sizes.astype("<i4"))
                num_tokens += len(encoded.ids)
                num_replaced += encoded.num_replaced
                num_end_texts += sum(END_OF_DOCUMENT in text for text in chunk[0])
        counts = _counted(tally)
        counts.numbers.update(num_tokens=num_tokens, num_replaced=num_replaced, num_end_texts=num_end_texts)
        return counts

    def _documents(self, number: int, tally: Tally) -> Iterator[Document]:
        settings = self.settings
        piece = json.loads((work_folder(self.parts) / f"part-{number:06d}.json").read_text(encoding="utf-8"))
        name, path = self.inputs[piece["input"]]
        documents = readers.build(
            name,
            path,
            tally,
            part=piece["part"],
            key=self.key,
            column=settings.text_column,
            seed=settings.seed,
            extensions=settings.extensions,
            exclude=settings.exclude,
        )
        checks = [filter_registry.build(filter_name) for filter_name in settings.filters]
        return _filtered(documents, checks, tally) if checks else documents

    def _files(self, number: int) -> tuple[Path, Path]:
        return self.parts / f"part-{number:06d}.ids", self.parts / f"part-{number:06d}.sizes"

    def join_parts(self, _: int) -> None:
        """All pieces, in their order, under the prefix; without a document, nothing."""
        counts = counts_so_far(self.parts)
        if not counts.total_kept().num_files:
            return
        with IndexedDatasetWriter(self.prefix, self.dtype, overwrite=True) as writer:
            for number in range(self.num_parts()):
                ids, sizes = self._files(number)
                writer.add_file(ids, np.fromfile(sizes, "<i4"))
            writer.metadata = {
                **self._described(),
                "num_source_bytes": counts.total_kept().num_bytes,
                "num_bytes_replaced_by_eod": counts.numbers["num_replaced"],
                "num_documents_with_end_text": counts.numbers["num_end_texts"],
                "skipped": dict(sorted(_skipped(counts).items())),
            }

    def _is_made(self, described: dict[str, Any]) -> bool:
        """Whether the dataset stands there, made with these settings."""
        _, index, metadata = paths_of(self.prefix)
        if not (index.exists() and metadata.exists()):
            return False
        found = json.loads(metadata.read_text(encoding="utf-8"))
        if different := sorted(key for key in described if described[key] != found.get(key)):
            raise OutputError(
                f"{index} was made with another {', '.join(different)}; give another --output-prefix, "
                "or --overwrite to replace it"
            )
        return True

    def _described(self) -> dict[str, Any]:
        """What PREFIX.json tells of a dataset; no machine's paths, so that equal data give equal files."""
        settings, tokenizer = self.settings, self._tokenizer
        return {
            "tokenizer": tokenizer.fingerprint(),
            "append_eod": self.append_eod,
            "eod": tokenizer.eod,
            "inputs": [path.name for path in settings.inputs],
            "input_bytes": [path.stat().st_size for _, path in self.inputs if path.is_file()],
            "key": self.key,
            "seed": settings.seed,
            "keep_byte_order_mark": settings.keep_byte_order_mark,
            "fix_text": settings.fix_text,
            "filters": list(settings.filters),
        }

    def _tell(self, step: Step, progress: Progress, report: Callable[[Progress], None]) -> None:
        amount = step.counts.total_kept()
        before = progress.num_documents // self.settings.log_interval
        progress.num_documents += amount.num_files
        progress.num_bytes += amount.num_bytes
        progress.num_tokens += step.counts.numbers["num_tokens"]
        if progress.num_documents // self.settings.log_interval > before:
            report(progress)

    def _nothing_found(self, skipped: dict[str, int]) -> str:
        where = ", ".join(map(str, self.settings.inputs))
        told = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "none"
        hint = ""
        if "no_text" in skipped:
            hint = f"; are the records' texts under another key than {self.key}? --jsonl-keys names it"
        return f"no document to tokenize in {where} (left out: {told}){hint}; nothing was written"


@lru_cache(maxsize=1)
def _encoder(encoding: Encoding) -> Encoder:
    """This process's encoder: a vocabulary is read once, not for every piece."""
    return Encoder(encoding)


def _filtered(documents: Iterator[Document], checks: Sequence[Filter], tally: Tally) -> Iterator[Document]:
    for document in documents:
        if (reason := first_reason(document, checks)) is None:
            yield document
        else:
            tally.skip(reason)


def _counted(tally: Tally) -> Counts:
    counts = Counts()
    if tally.num_documents:
        counts.kept[""].add(tally.num_documents, tally.num_bytes)
    for reason, number in tally.skipped.items():
        counts.left_out[reason][""].add(number, 0)
    return counts


def _skipped(counts: Counts) -> dict[str, int]:
    """Documents left out, by reason, the most frequent first."""
    return {reason: amount.num_files for reason, amount in counts.reasons().items()}


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


def _write(file: BinaryIO, numbers: np.ndarray) -> None:
    """Unlike `ndarray.tofile`, an error names the file."""
    try:
        file.write(numbers.data)
    except OSError as error:
        error.filename = error.filename or file.name
        raise


def _summarise(prefix: str, progress: Progress, skipped: dict[str, int], counts: Counts) -> None:
    log.info("%s.bin, .idx and .json: %s", prefix, progress.line())
    if skipped:
        log.info("left out: %s", ", ".join(f"{count} {reason}" for reason, count in skipped.items()))
    if num_end_texts := counts.numbers["num_end_texts"]:
        log.info(
            "%d documents have %s written out, which is plain text there", num_end_texts, END_OF_DOCUMENT
        )
    if num_replaced := counts.numbers["num_replaced"]:
        log.warning(
            "NOTE: %d bytes that the vocabulary lacks became the end-of-document id inside documents, as in "
            "GPT-NeoX; --missing-bytes extend gives them ids of their own",
            num_replaced,
        )
