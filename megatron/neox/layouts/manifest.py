"""What a checkpoint says of itself: manifest.json, the last file to be written, by which damage is found."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megatron.neox.errors import CheckpointError
from megatron.neox.files import write_whole

NAME = "manifest.json"
FORMAT = 1

_STATE = "optim_states"  # in the names of files that only a resumed run reads


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything about a checkpoint but its tensors."""

    step: int
    architecture: dict[str, Any]
    """The config's model section, with the padded vocabulary's size."""
    precision: str
    tensor_size: int
    """Tensor ranks that wrote it: files of each layer."""
    optimizer: dict[str, Any] | None
    """Name, state tensors and state numbers; none where only weights were saved."""
    loss_scaler: dict[str, float]
    tokenizer: dict[str, Any]
    plugins: list[str]
    layout: dict[str, int]
    """The grid it was saved on, for readers."""
    state: dict[str, Any]
    """The training loop's own."""
    files: dict[str, FileRecord] = field(default_factory=dict)
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write manifest.json into the folder."""
        content = asdict(self)
        write_whole(folder / NAME, _text({**content, "sha256": _digest(content)}))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a checkpoint's manifest.

        Raises:
            CheckpointError: it is absent, damaged, or of a newer version of this software.
        """
        path = folder / NAME
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text)
            if content["format"] > FORMAT:
                raise CheckpointError(f"{path} is of format {content['format']}, written by a newer version")
            is_changed = "sha256" in content and text != _text(content)
            digest = content.pop("sha256", None)  # of the rest
            if is_changed or digest not in (None, _digest(content)):
                raise CheckpointError(
                    f"{path} is damaged (other content than was written); take another checkpoint"
                )
            content["files"] = {name: FileRecord(**record) for name, record in content["files"].items()}
            return cls(**content)
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing; the checkpoint is not whole") from None
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be read ({error.strerror}); take another checkpoint"
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); take another checkpoint") from error

    def damage(self, folder: Path, *, weights_only: bool = False) -> list[str]:
        """What is wrong with the checkpoint's files, in words; nothing where all are as they were written.

        Args:
            weights_only: leave out the optimizer's state, which may be large, or have been thrown away.
        """
        names = [name for name in sorted(self.files) if not (weights_only and _STATE in name)]
        with ThreadPoolExecutor() as threads:  # hashing leaves the interpreter to others
            problems = list(threads.map(lambda name: _damage_of(folder, name, self.files[name]), names))
        surplus = sorted(path.name for path in folder.glob("*.pt") if path.name not in self.files)
        return [*filter(None, problems), *(f"{name} was not written with it" for name in surplus)]


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(_text(content).encode()).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damage_of(folder: Path, name: str, record: FileRecord) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != record.size:
        return f"{name} has {size} bytes instead of {record.size}"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # a failing disk
        return f"{name} cannot be read ({error.strerror})"
    return None if found == record.sha256 else f"{name} has other content than was written"
