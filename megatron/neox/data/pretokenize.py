"""One parquet file to samples of a fixed length, as the program that PickledTrainerDataset reads them from.

The file's documents form one line of characters. The part of it that is asked for is cut into pieces of
`chunk_size` characters, wherever that falls; each piece is encoded by itself, and its ids are cut every
`seq_length`. A sample is begun where more than `min_sample_length` ids are left, and filled with `pad_token`.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from megatron.neox.config import TokenizerConfig
from megatron.neox.data.encoding import Chunk, Encoded, Encoding, encode_all
from megatron.neox.data.index_cache import file_digest, settings_digest
from megatron.neox.data.indexed import dtype_for
from megatron.neox.data.pretokenize_folder import (
    PretokenizedFolder,
    folder_in_making,
    read_origin,
    refuse_existing_folder,
    shared_characters,
)
from megatron.neox.data.pretokenize_pieces import Piece, Reading, read_pieces
from megatron.neox.errors import InputError
from megatron.neox.tokenizers import GPT2BPETokenizer, Tokenizer, build_tokenizer

log = logging.getLogger(__name__)

_CHUNK_CHARACTERS = 1 << 20  # encoded together where a text may be divided
# Between these two a text of GPT-2's byte level falls into words whatever stands around them.
_SAFE_BORDER = re.compile(r"(?<=[!-~]\n)(?=[!-~])")


@dataclass(frozen=True, kw_only=True)
class PretokenizeSettings:
    """What to tokenize, how, and where it goes; the names are those of the original's flags.

    Attributes:
        pad_token: fills the last sample of a piece.
        bos: id that begins each piece; none adds nothing.
        join: what stands between documents: a space, as in the original, or the end of document.
        form: pickled lists, or arrays that can be mapped into memory.
        valid_of: folder whose characters must not be among these.
    """

    data_file: Path
    tokenization_folder: Path
    tokenizer: TokenizerConfig
    pad_token: int
    bos: int | None = None
    column: str = "content"
    chars_to_tokenize: int = 100_000_000
    starting_character: int = 0
    chunk_size: int = 10_000_000
    seq_length: int = 1536
    min_sample_length: int = 1000
    max_dump_size: int = 10_000
    join: Literal["space", "eod"] = "space"
    form: Literal["pickle", "mmap"] = "pickle"
    workers: int = 1
    resume: bool = False
    overwrite: bool = False
    valid_of: Path | None = None

    @property
    def stop(self) -> int:
        """The character behind the last one."""
        return self.starting_character + self.chars_to_tokenize


@dataclass(frozen=True)
class Pretokenized:
    """What a folder holds."""

    num_files: int
    num_samples: int
    num_tokens: int
    num_padding: int
    was_complete: bool = False


Report = Callable[[int, int], None]
"""Is told how many of how many pieces are done."""


def pretokenize(settings: PretokenizeSettings, *, report: Report = lambda done, total: None) -> Pretokenized:
    """Write the folder.

    Raises:
        InputError: settings that give no sample, or a data file that cannot be read or ends before the part asked for.
        OutputError: the folder is in the way, or another run is making it.
        VocabularyError: the tokenizer's files are absent or wrong.
    """
    check_settings(settings)
    if settings.data_file.exists() and not settings.data_file.is_file():
        raise InputError(f"the data file {settings.data_file} is no file but a folder, a pipe or a device")
    try:
        data_digest = file_digest(settings.data_file)
    except OSError as error:
        raise InputError(
            f"cannot read the data file {settings.data_file}: {error.strerror} "
            f"(looked for {settings.data_file.absolute()})"
        ) from error
    _refuse_overlap(settings, data_digest)
    tokenizer = build_tokenizer(settings.tokenizer)
    origin = _origin(settings, tokenizer, data_digest)
    origin["settings"] = settings_digest(origin)
    with folder_in_making(
        settings.tokenization_folder, origin["settings"], resume=settings.resume, overwrite=settings.overwrite
    ) as folder:
        if folder is None:
            return _counts(read_origin(settings.tokenization_folder) or {}, was_complete=True)
        _warn(settings, tokenizer)
        reading = _fill(folder, settings, tokenizer, report)
        num_replaced = sum(entry["num_replaced"] for entry in folder.entries)
        origin |= {
            "characters": [settings.starting_character, reading.num_characters],
            "skipped": dict(sorted((+reading.skipped).items())),
            "num_bytes_replaced_by_eod": num_replaced,
        }
        _note(settings, reading, num_replaced)
        folder.finish(seq_length=settings.seq_length, origin=origin)
        return _counts({**origin, "files": folder.files})


def check_settings(settings: PretokenizeSettings) -> None:
    """Refuse what is wrong whatever the data file holds, before gigabytes are fetched.

    Raises:
        InputError: the numbers cannot give a sample, or not one of 32 bits.
        OutputError: the folder is in the way.
    """
    if not settings.resume:
        refuse_existing_folder(settings.tokenization_folder, resume=False, overwrite=settings.overwrite)
    if not 0 <= settings.pad_token < 1 << 31:
        raise InputError(f"--pad_token {settings.pad_token} is no id: ids are 0 to {(1 << 31) - 1}")
    for name in ("chars_to_tokenize", "chunk_size"):
        value = getattr(settings, name)
        if value < settings.seq_length:
            raise InputError(
                f"--{name} {value} is less than --seq_length {settings.seq_length}: no sample would be filled; "
                f"give at least as many characters as a sample has ids"
            )


def _refuse_overlap(settings: PretokenizeSettings, data_digest: str) -> None:
    if settings.valid_of is None:
        return
    origin = read_origin(settings.valid_of)
    if origin is None:
        raise InputError(
            f"--valid-of {settings.valid_of}: there is no dump-origin.yml, so which characters it holds is not known; "
            "make it with this program, or leave --valid-of out and compare the ranges yourself"
        )
    start, stop = origin["characters"]
    ours = {
        "data_sha256": data_digest,
        "column": settings.column,
        "characters": [settings.starting_character, settings.stop],
    }
    if (origin["data_sha256"], origin["column"]) != (data_digest, settings.column):
        log.info("--valid-of %s: it was made from another file, %s", settings.valid_of, origin["data_file"])
    elif shared_characters(ours, origin):
        raise InputError(
            f"characters {settings.starting_character} to {settings.stop} of {settings.data_file} overlap those of "
            f"{settings.valid_of}, {start} to {stop}; --starting_character {stop} begins behind them"
        )


def _origin(settings: PretokenizeSettings, tokenizer: Tokenizer, data_digest: str) -> dict[str, Any]:
    """All that decides the samples; no machine's paths, so that equal data give equal files."""
    return {
        "data_file": settings.data_file.name,
        "data_sha256": data_digest,
        "tokenizer": tokenizer.fingerprint(),
        "eod": tokenizer.eod,
    } | {
        name: getattr(settings, name)
        for name in (
            "column", "starting_character", "chars_to_tokenize", "chunk_size", "seq_length", "min_sample_length",
            "max_dump_size", "pad_token", "join", "bos", "form",
        )
    }  # fmt: skip


def _warn(settings: PretokenizeSettings, tokenizer: Tokenizer) -> None:
    """Say what the original does in silence."""
    if settings.min_sample_length >= settings.seq_length:
        log.warning(
            "NOTE: --min_sample_length %d is not below --seq_length %d: nothing is padded, and up to %d ids at the end "
            "of each piece are left out, whole samples among them; --min_sample_length %d keeps those",
            settings.min_sample_length, settings.seq_length, settings.min_sample_length, settings.seq_length - 1,
        )  # fmt: skip
    if settings.pad_token >= tokenizer.vocab_size:
        log.warning(
            "NOTE: --pad_token %d is outside the vocabulary of %d ids; training leaves padding out, other loaders "
            "may not", settings.pad_token, tokenizer.vocab_size,
        )  # fmt: skip


def _fill(
    folder: PretokenizedFolder, settings: PretokenizeSettings, tokenizer: Tokenizer, report: Report
) -> Reading:
    """Encode the pieces that are not there yet."""
    reading = Reading()
    done, total = len(folder.entries), -(-settings.chars_to_tokenize // settings.chunk_size)
    if done:
        log.info("resumed: %d of %d pieces were there", done, total)
    pieces = read_pieces(
        settings.data_file,
        column=settings.column,
        start=settings.starting_character + done * settings.chunk_size,
        stop=settings.stop,
        size=settings.chunk_size,
        reading=reading,
    )
    form = (
        np.int32
        if settings.form == "pickle"
        else dtype_for(max(tokenizer.vocab_size, settings.pad_token + 1))
    )
    suffix = ".pkl" if settings.form == "pickle" else ".npy"
    with closing(_encoded(pieces, settings, tokenizer)) as encoded:
        for ids, num_replaced in encoded:
            samples, num_padding = cut_samples(ids, settings)
            size = settings.max_dump_size
            dumps = [samples[at : at + size].astype(form) for at in range(0, len(samples), size)]
            folder.add(dumps, num_padding=num_padding, suffix=suffix, num_replaced=num_replaced)
            report(len(folder.entries), total)
    if not reading.num_characters:
        raise InputError(
            f"{settings.data_file}: no row has a text in the column {settings.column} "
            f"({reading.num_rows} rows, {reading.skipped['null']} of them null)"
        )
    if reading.num_characters <= settings.starting_character:
        raise InputError(
            f"{settings.data_file}: --starting_character {settings.starting_character} is past the end: its "
            f"{reading.num_rows} rows hold {reading.num_characters} characters"
        )
    if not folder.files:
        raise InputError(
            f"no sample came out of {reading.num_characters - settings.starting_character} characters of "
            f"{settings.data_file}: no piece has more than --min_sample_length {settings.min_sample_length} ids; "
            "give a smaller one, or more characters"
        )
    return reading


def cut_samples(ids: np.ndarray, settings: PretokenizeSettings) -> tuple[np.ndarray, int]:
    """Samples `[n, s]` of a piece's ids `[m]`, and how many ids fill the last one."""
    length = settings.seq_length
    count = max(0, -(-(len(ids) - settings.min_sample_length) // length))
    used = ids[: count * length]
    samples = np.full((count, length), settings.pad_token, np.int32)
    samples.reshape(-1)[: len(used)] = used
    return samples, count * length - len(used)


def _encoded(
    pieces: Iterator[Piece], settings: PretokenizeSettings, tokenizer: Tokenizer
) -> Generator[tuple[np.ndarray, int], None, None]:
    """Ids of each piece, and how many bytes in it became the end of document."""
    is_divisible = isinstance(tokenizer, GPT2BPETokenizer)
    plans: deque[list[list[bool]]] = (
        deque()
    )  # of each piece, each chunk, each text: whether it ends a document

    def chunks() -> Iterator[Chunk]:
        for piece in pieces:
            texts = _texts_of(piece, settings.join, is_divisible=is_divisible)
            parts = list(_in_chunks(texts))
            plans.append([[ends for _, ends in part] for part in parts])
            for part in parts:
                yield [text for text, _ in part], 0

    encoding = Encoding(settings.tokenizer, append_eod=False, fix_text=False)
    with closing(encode_all(chunks(), encoding, workers=settings.workers)) as results:
        waiting: list[Encoded] = []
        for result in results:
            waiting.append(result)
            if len(waiting) == len(plans[0]):
                yield _put_together(waiting, plans.popleft(), bos=settings.bos, eod=tokenizer.eod)
                waiting = []


def _texts_of(piece: Piece, join: str, *, is_divisible: bool) -> Iterator[tuple[str, bool]]:
    """The texts to encode, and whether a document ends with each."""
    documents = [" ".join(piece)] if join == "space" else piece
    for number, document in enumerate(documents, start=1):
        *firsts, last = _divided(document) if is_divisible else [document]
        yield from ((text, False) for text in firsts)
        yield last, number < len(documents)


def _divided(text: str) -> list[str]:
    """Parts of about a million characters whose ids, end to end, are those of the whole."""
    parts, start = [], 0
    while len(text) - start > _CHUNK_CHARACTERS:
        border = _SAFE_BORDER.search(text, start + _CHUNK_CHARACTERS)
        if border is None:
            break
        parts.append(text[start : border.start()])
        start = border.start()
    return [*parts, text[start:]]


def _in_chunks(texts: Iterator[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    chunk: list[tuple[str, bool]] = []
    num_characters = 0
    for text, ends in texts:
        chunk.append((text, ends))
        num_characters += len(text)
        if num_characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, num_characters = [], 0
    if chunk:
        yield chunk


def _put_together(
    results: list[Encoded], plan: list[list[bool]], *, bos: int | None, eod: int
) -> tuple[np.ndarray, int]:
    """Ids of a piece from those of its chunks."""
    parts = [] if bos is None else [np.array([bos], np.int32)]
    for result, ends in zip(results, plan, strict=True):
        borders = np.cumsum(result.sizes, dtype=np.int64)[np.array(ends, bool)]
        parts.append(np.insert(result.ids, borders, eod))
    return np.concatenate(parts), sum(result.num_replaced for result in results)


def _note(settings: PretokenizeSettings, reading: Reading, num_replaced: int) -> None:
    """Say what a user should know of the outcome."""
    if reading.num_characters < settings.stop:
        log.warning(
            "NOTE: %s ends at character %d: %d of the %d characters asked for are there",
            settings.data_file, reading.num_characters,
            reading.num_characters - settings.starting_character, settings.chars_to_tokenize,
        )  # fmt: skip
    if skipped := +reading.skipped:
        said = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
        log.info("rows left out: %s", said)
    if num_replaced:
        log.warning(
            "NOTE: %d bytes that the vocabulary lacks became the end-of-document id, as in GPT-NeoX; --missing-bytes "
            "extend gives them ids of their own", num_replaced,
        )  # fmt: skip


def _counts(origin: dict[str, Any], *, was_complete: bool = False) -> Pretokenized:
    files = origin["files"].values()
    num_samples = sum(counts["num_samples"] for counts in files)
    return Pretokenized(
        num_files=len(files),
        num_samples=num_samples,
        num_tokens=num_samples * origin["seq_length"],
        num_padding=sum(counts["num_padding"] for counts in files),
        was_complete=was_complete,
    )
