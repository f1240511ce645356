"""The stage that protects: opted-out repositories and tests' tasks go, secrets and personal data are redacted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.neox.corpus.protection.decontaminate import (
    MIN_CHARACTERS,
    NUM_WORDS,
    Passages,
    Reference,
    humaneval_passages,
    read_reference,
)  # fmt: skip
from megatron.neox.corpus.protection.opt_out import is_opted_out
from megatron.neox.corpus.protection.redaction import DEFAULT_KINDS, check_kinds, find_places, redact
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.rewriting import bytes_of, describe_input, documents, rewrite_shard
from megatron.neox.corpus.stages.shards import find_shards
from megatron.neox.corpus.stages.stage import Phase, Stage
from megatron.neox.errors import UserError

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, kw_only=True)
class Protection:
    """What to protect.

    Attributes:
        kinds: of what is found in a text: key, email, ip_address, name.
        drop: leave files out in which something is found, instead of redacting it.
        opted_out: repositories that are left out, as `read_opt_out` gives them.
        humaneval: leave out files that hold a task of HumanEval.
        against: folders of test files, by the name that the reason says.
        min_overlap: share of a test file's runs of 13 words that contaminates a file.
    """

    kinds: Sequence[str] = DEFAULT_KINDS
    drop: bool = False
    opted_out: frozenset[str] = frozenset()
    humaneval: bool = False
    against: tuple[Path, ...] = ()
    min_overlap: float = 0.5


@dataclass(frozen=True)
class ProtectShards:
    """Shards without what must not be trained on; the hash and size of a file stay those of its own bytes."""

    shards: tuple[Path, ...]
    output: Path
    protection: Protection

    def run(self, number: int) -> Counts:
        """Protect a shard."""
        counts = Counts()
        source = self.shards[number]
        rewrite_shard(source, self.output / source.name, lambda batch: self._protect(batch, counts))
        return counts

    def _protect(self, batch: pyarrow.RecordBatch, counts: Counts) -> pyarrow.RecordBatch:
        import pyarrow as pa

        mask: list[bool] = []
        texts: list[str] = []
        sizes, repositories = batch.column("size").to_pylist(), batch.column("repository").to_pylist()
        for document, size, repository in zip(documents(batch), sizes, repositories):
            reason = self._reason(document.data, repository)
            mask.append(reason is None)
            if reason is not None:
                counts.leave_out(reason, document.language, size)
                continue
            data, found = redact(document.data, self.protection.kinds)
            for kind, times in found.items():
                counts.numbers[f"redacted {kind}"] += times
                counts.numbers[f"files with {kind}"] += 1
            texts.append(data.decode())
            counts.keep(document.language, size)
        kept = batch.filter(pa.array(mask, pa.bool_()))
        column = batch.schema.get_field_index("content")
        return kept.set_column(column, batch.schema.field(column), pa.array(texts, pa.string()))

    def _reason(self, data: bytes, repository: str) -> str | None:
        tests = _tests(self.protection)
        if is_opted_out(repository, self.protection.opted_out):
            return "opted_out"
        for name in tests.names_in(data):
            return f"contaminated:{name}"
        if self.protection.drop:
            for _, _, kind in find_places(data, self.protection.kinds):
                return kind
        return None


@dataclass(frozen=True)
class Tests:
    """What the training files are compared with, read when it is asked for."""

    protection: Protection

    @cached_property
    def humaneval(self) -> Passages:
        """HumanEval's."""
        return Passages(humaneval_passages())

    @cached_property
    def folders(self) -> dict[str, Reference]:
        """By the folders' names."""
        return {folder.resolve().name: read_reference(folder) for folder in self.protection.against}

    def names_in(self, data: bytes) -> Iterator[str]:
        """The tests that contaminate a text."""
        if self.protection.humaneval and self.humaneval.are_in(data):
            yield "humaneval"
        for name, reference in self.folders.items():
            overlap = reference.overlap(data)
            if overlap > 0 and overlap >= self.protection.min_overlap:
                yield name


@lru_cache(maxsize=1)
def _tests(protection: Protection) -> Tests:
    return Tests(protection)


def protect_stage(folder: Path, output: Path, protection: Protection) -> Stage:
    """The stage that protects the shards in `folder`.

    Raises:
        InputError: the folder holds no finished shards, or a folder of tests no file.
        UserError: there is no such kind, nothing is asked for, or two folders of tests have one name.
    """
    check_kinds(protection.kinds)
    if not (protection.kinds or protection.opted_out or protection.humaneval or protection.against):
        raise UserError("there is nothing to protect from: name --kinds, --opt-out or --decontaminate")
    names = [path.resolve().name for path in protection.against]
    if len({*names}) < len(names):
        raise UserError(
            f"two folders to decontaminate against have one name ({', '.join(names)}); rename one"
        )
    settings = {"input": describe_input(folder), **_settings(protection)}
    task = ProtectShards(tuple(find_shards(folder)), output, protection)
    phases = [Phase("protect", len(task.shards), task.run, partial(bytes_of, task.shards))]
    return Stage("protect", output, settings, phases, inputs=[folder, *protection.against])


def _settings(protection: Protection) -> dict[str, Any]:
    tests = _tests(protection)
    return {
        "kinds": list(protection.kinds),
        "drop": protection.drop,
        "opted_out": _digest("\n".join(sorted(protection.opted_out)).encode()),
        "humaneval": {"min_characters": MIN_CHARACTERS} if protection.humaneval else None,
        "against": {
            name: _digest(b"".join(sorted(reference.digests))) for name, reference in tests.folders.items()
        },
        "min_overlap": protection.min_overlap,
        "num_words": NUM_WORDS,
    }


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()
