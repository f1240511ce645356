"""One dataset of tokens as a stage: tasks that each read and encode a piece of the input, then one file of all.

While it runs, PREFIX.parts holds the pieces that are done, so that a run that was stopped goes on; the dataset takes
its name when all are in it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.readers import has_several_parts
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.executors import Resources, submit_stage
from megatron.neox.corpus.stages.folders import clear_removed, remove_whole
from megatron.neox.corpus.stages.running import Step, run_stage
from megatron.neox.corpus.stages.stage import SUMMARY, Phase, Stage, counts_so_far, work_folder
from megatron.neox.corpus.texts import usable_texts
from megatron.neox.data.encoding import Chunk, Encoder, Encoding, one_thread
from megatron.neox.data.indexed import dtype_for, paths_of
from megatron.neox.data.indexed_writer import IndexedDatasetWriter, refuse_existing
from megatron.neox.data.token_pieces import Pieces
from megatron.neox.data.tokenize_settings import Progress, TokenizeSettings
from megatron.neox.errors import InputError, OutputError
from megatron.neox.files import appearing
from megatron.neox.memory import trim_heap
from megatron.neox.tokenizers import Tokenizer
from megatron.neox.tokenizers.gpt2_bpe import END_OF_DOCUMENT

log = logging.getLogger(__name__)

# Texts encoded at once. Their ids are smaller than what `spare_large_blocks` gives back, which costs time.
_CHUNK_BYTES = 512 << 10
_CHUNK_DOCUMENTS = 1024


@dataclass(frozen=True)
class TokenDataset:
    """The dataset of one key: its stage, and the file that its pieces become."""

    settings: TokenizeSettings
    inputs: Sequence[tuple[str, Path]]
    key: str
    append_eod: bool

    @property
    def prefix(self) -> str:
        """What its files are named, but for .bin, .idx and .json."""
        return f"{self.settings.output_prefix}_{self.key}_document"

    @property
    def parts(self) -> Path:
        """The folder of the pieces, while it is made."""
        return Path(f"{self.prefix}.parts")

    @property
    def pieces(self) -> Pieces:
        """What the inputs are divided into."""
        return Pieces(self.settings, self.inputs, work_folder(self.parts))

    @property
    def encoding(self) -> Encoding:
        """How texts become ids."""
        settings = self.settings
        return Encoding(
            settings.tokenizer, append_eod=self.append_eod, fix_text=settings.fix_text, engine=settings.engine
        )

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of the ids in the file."""
        return dtype_for(self._tokenizer.vocab_size)

    @cached_property
    def described(self) -> dict[str, Any]:
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

    @property
    def _tokenizer(self) -> Tokenizer:
        return encoder_of(self.encoding).tokenizer

    def write(self, report: Callable[[Progress], None]) -> Path:
        """Make the dataset; `report` hears of it now and then."""
        settings = self.settings
        if not self._is_to_make():
            return Path(self.prefix)
        if settings.workers > 1:
            # They encode. This process lists the files, of which there may be millions, and needs room for that.
            _ = self.dtype, self.described  # remembered, for they are asked for once more
            encoder_of.cache_clear()
            trim_heap()
        progress = Progress(expected_documents=settings.num_documents)
        summary = run_stage(
            self._stage(),
            workers=settings.workers,
            resume=settings.resume,
            overwrite=settings.overwrite,
            report=lambda step: self._tell(step, progress, report),
            run_tasks=settings.run_tasks,
        )
        counts = Counts.from_json(summary)
        skipped = _skipped(counts)
        remove_whole(self.parts)
        if not counts.total_kept().num_files:
            raise InputError(self._nothing_found(skipped))
        report(progress)
        _summarise(self.prefix, progress, skipped, counts)
        return Path(self.prefix)

    def submit(self, resources: Resources) -> str | None:
        """Hand the stage to Slurm; the number of the last job, none where the dataset is made already."""
        settings = self.settings
        if not self._is_to_make():
            return None
        return submit_stage(self._stage(), resources, resume=settings.resume, overwrite=settings.overwrite)

    def _is_to_make(self) -> bool:
        settings = self.settings
        clear_removed(self.parts)
        if settings.resume and self.parts.exists():
            # A dataset that stands there is this run's: it was killed before the pieces were gone.
            if (self.parts / SUMMARY).exists():
                self._is_made()  # or refused, where an input is another now
            return True
        if settings.resume and self._is_made():
            log.info("%s is made already", self.prefix)
            return False
        refuse_existing(self.prefix, overwrite=settings.overwrite)
        return True

    def _stage(self) -> Stage:
        settings = self.settings
        decisive = {
            # A change of an input is told by name.
            **{key: value for key, value in self.described.items() if key != "input_bytes"},
            "text_column": settings.text_column,
            "extensions": list(settings.extensions),
            "exclude": list(settings.exclude),
        }
        phases = [
            Phase("list", 1, self.list_parts),
            Phase("encode", self.pieces.count, self.encode_part),
            Phase("join", 1, self.join_parts),
        ]
        return Stage(
            "tokenize",
            self.parts,
            decisive,
            phases,
            check_inputs=self.pieces.check_inputs,
            option="--output-prefix",
            # Listing a large folder takes as long as it takes processes to be ready for its files.
            prepare=self.prepare if self._is_large() else None,
        )

    def _is_large(self) -> bool:
        return any(name == "directory" and has_several_parts(path) for name, path in self.inputs)

    def prepare(self) -> None:
        """Make this process's encoder."""
        encoder_of(self.encoding)

    def list_parts(self, _: int) -> Counts:
        """Divide the inputs into pieces."""
        tally = Tally()
        self.pieces.write_list(tally)
        return _counted(tally)

    def encode_part(self, number: int) -> Counts:
        """Read and encode a piece: its ids go to one file, the length of each document to another."""
        tally, num_tokens, num_replaced, num_end_texts = Tally(), 0, 0, 0
        documents = self.pieces.documents(number, self.key, tally)
        keep = self.settings.keep_byte_order_mark
        texts = usable_texts(documents, tally, keep_byte_order_mark=keep)
        encoder = encoder_of(self.encoding)
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
                del chunk, encoded  # or they are there while the next are read and encoded
        counts = _counted(tally)
        counts.numbers.update(num_tokens=num_tokens, num_replaced=num_replaced, num_end_texts=num_end_texts)
        return counts

    def _files(self, number: int) -> tuple[Path, Path]:
        return self.parts / f"part-{number:06d}.ids", self.parts / f"part-{number:06d}.sizes"

    def join_parts(self, _: int) -> None:
        """All pieces, in their order, under the prefix; without a document, nothing."""
        counts = counts_so_far(self.parts)
        if not counts.total_kept().num_files:
            return
        with IndexedDatasetWriter(self.prefix, self.dtype, overwrite=True) as writer:
            for number in range(self.pieces.count()):
                ids, sizes = self._files(number)
                writer.add_file(ids, np.fromfile(sizes, "<i4"))
            writer.metadata = {
                **self.described,
                "num_source_bytes": counts.total_kept().num_bytes,
                "num_bytes_replaced_by_eod": counts.numbers["num_replaced"],
                "num_documents_with_end_text": counts.numbers["num_end_texts"],
                "skipped": dict(sorted(_skipped(counts).items())),
            }

    def _is_made(self) -> bool:
        """Whether the dataset stands there, made with these settings."""
        _, index, metadata = paths_of(self.prefix)
        if not (index.exists() and metadata.exists()):
            return False
        found, described = json.loads(metadata.read_text(encoding="utf-8")), self.described
        if different := sorted(key for key in described if described[key] != found.get(key)):
            raise OutputError(
                f"{index} was made with another {', '.join(different)}; give another --output-prefix, "
                "or --overwrite to replace it"
            )
        return True

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
def encoder_of(encoding: Encoding) -> Encoder:
    """This process's encoder: a vocabulary is read once, not for every piece."""
    return Encoder(encoding)


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
    """Texts in lists of half a mebibyte, or of one that is larger, with their bytes; no cut changes a token."""
    chunk: list[str] = []
    num_bytes, before = 0, tally.num_bytes
    for text in texts:
        size, before = tally.num_bytes - before, tally.num_bytes
        if chunk and (num_bytes + size > _CHUNK_BYTES or len(chunk) >= _CHUNK_DOCUMENTS):
            yield chunk, num_bytes
            chunk, num_bytes = [], 0
        chunk.append(text)
        num_bytes += size
    if chunk:
        yield chunk, num_bytes


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
