"""The findings of an inspection, and what every format shares in making them."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.neox.errors import CheckpointError


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as it is stored: of a split layer, each rank's share is one."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def num_values(self) -> int:
        """Elements."""
        return torch.Size(self.shape).numel()


@dataclass
class Inspection:
    """All that was found.

    Args:
        layout: what the files are, for people.
        step: training step; none where the format does not tell.
        facts: further findings by name, in order: text, numbers, lists.
        config: keys that describe the model, in the words of whoever wrote it.
        tokenizer: its fingerprint, or the files and keys that hold it.
        integrity: what was compared.
        damage: what is wrong, one line each; nothing where all is well.
    """

    path: Path
    layout: str = "unknown"
    step: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)
    tensors: list[TensorRecord] = field(default_factory=list)
    integrity: str = "nothing was compared"
    damage: list[str] = field(default_factory=list)

    def as_dict(self, *, tensors: bool) -> dict[str, Any]:
        """For JSON; `tensors` adds the list of them."""
        made = {
            "path": str(self.path), "layout": self.layout, "step": self.step, **self.facts,
            "num_tensors": len(self.tensors), "num_values": sum(t.num_values for t in self.tensors),
            "num_bytes": sum(t.num_bytes for t in self.tensors),
            "dtypes": dict(Counter(t.dtype for t in self.tensors)),
            "config": self.config, "tokenizer": self.tokenizer, "plugins": self.plugins,
            "integrity": self.integrity, "damage": self.damage,
        }  # fmt: skip
        return made | (
            {"tensors": [vars(t) | {"shape": list(t.shape)} for t in self.tensors]} if tensors else {}
        )

    def lines(self, *, tensors: bool) -> Iterator[str]:
        """For people; `tensors` adds a line for each of them."""
        size = sum(t.num_bytes for t in self.tensors)
        types = ", ".join(
            f"{dtype} ({n})" for dtype, n in Counter(t.dtype for t in self.tensors).most_common()
        )
        yield str(self.path)
        rows: dict[str, Any] = {"layout": self.layout, "step": self.step, **self.facts}
        rows["tensors"] = (
            f"{len(self.tensors)}, {sum(t.num_values for t in self.tensors):,} values, {size:,} bytes"
        )
        rows["types"] = types or None
        rows["config"] = ", ".join(f"{key}: {value}" for key, value in self.config.items()) or None
        rows["tokenizer"] = ", ".join(f"{key}: {value}" for key, value in self.tokenizer.items()) or None
        rows["plugins"] = ", ".join(self.plugins) or None
        rows["integrity"] = self.integrity
        for name, value in rows.items():
            if value is not None and value != []:
                shown = ", ".join(map(str, value)) if isinstance(value, list) else value
                yield f"  {name:<12} {shown}"
        for line in self.damage:
            yield f"  damage       {line}"
        if tensors:
            for t in self.tensors:
                yield f"  {t.file:<40} {t.name:<44} {t.dtype:<9} {list(t.shape)!s:<16} {t.num_bytes:>14,}"


def add_tensors(
    found: Inspection,
    file: str,
    read: Callable[[], dict[str, Tensor] | Iterator[tuple[str, Tensor]]],
    verify: bool,
) -> None:
    """Note the tensors of a file, and with `verify` look at their values."""
    try:
        content = read()
        for name, tensor in content.items() if isinstance(content, dict) else content:
            if tensor.layout != torch.strided or tensor.is_meta:
                found.damage.append(f"{file}: {name} holds no values of its own")
                continue
            dtype = str(tensor.dtype).removeprefix("torch.")
            found.tensors.append(TensorRecord(file, name, dtype, tuple(tensor.shape), tensor.nbytes))
            if verify and tensor.is_floating_point() and not torch.isfinite(tensor).all():
                found.damage.append(f"{file}: {name} holds values that are not finite")
    except CheckpointError as error:
        found.damage.append(str(error))


def no_checksums(verify: bool, compared: str) -> str:
    """What can be said of the integrity of a format that has none."""
    return f"{compared}; the format has no checksums" + (
        ", values looked at" if verify else "; --verify looks at values"
    )


def compare_archives(found: Inspection, files: list[Path], verify: bool) -> str:
    """Check the archives of torch.save by the checksums that they hold of themselves."""
    if not verify:
        return f"{len(files)} file{'s' * (len(files) != 1)} opened; --verify reads all of them"
    num_checked = 0
    for path in files:
        if not zipfile.is_zipfile(path):
            continue
        num_checked += 1
        try:
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
            bad = str(error)
        if bad:
            found.damage.append(f"{path.name} is damaged ({bad} has other content than was written)")
    told = f"checksums of {num_checked} of {len(files)} files compared, values looked at"
    return told if num_checked == len(files) else f"{told}; the others have none"
