"""A folder of fixed-length samples in the making: a journal of pieces that are done, and a name once all are.

::

    dump-0.pkl ...       lists of samples, each a list of ids (or dump-0.npy ..., arrays [n, s])
    dump-meta_data.json  {"dump-0.pkl": {"num_samples": n, "num_tokens": n * s}, ...}
    dump-origin.yml      how it was made (ours; JSON, which is YAML)

The loader of the original takes any .json beside the dumps for the metadata, so what we record is no .json.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from megatron.neox.corpus.stages.folders import (
    clear,
    holds_something,
    lock_folder,
    put_back,
    put_in_place,
    refuse_nameless,
)
from megatron.neox.data.index_cache import file_digest
from megatron.neox.errors import DatasetError, OutputError
from megatron.neox.files import appearing, write_whole

METADATA_NAME = "dump-meta_data.json"
ORIGIN_NAME = "dump-origin.yml"
_JOURNAL_NAME = ".journal.jsonl"
_PICKLE_PROTOCOL = 4  # the default of the Pythons that the original ran on


def read_origin(folder: Path) -> dict[str, Any] | None:
    """What dump-origin.yml tells of a folder; None where there is no such file.

    Raises:
        DatasetError: the file is damaged.
    """
    path = folder / ORIGIN_NAME
    try:
        origin = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(origin, dict):
            raise ValueError("it holds no mapping")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DatasetError(
            f"{path} is damaged ({error}); make the folder anew, or delete this file"
        ) from error
    return origin


def shared_characters(origin: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[int, int] | None:
    """Which characters of one data file two origins both have, the first and the one behind the last."""
    if any(origin[key] != other[key] for key in ("data_sha256", "column")):
        return None
    (start, stop), (other_start, other_stop) = origin["characters"], other["characters"]
    first, end = max(start, other_start), min(stop, other_stop)
    return (first, end) if first < end else None


class PretokenizedFolder:
    """Takes the dumps of one piece after the other; use it in `folder_in_making`.

    Attributes:
        entries: what is recorded of each piece that is done, in order.
    """

    def __init__(self, staging: Path, digest: str) -> None:
        self.staging = staging
        self._journal = staging / _JOURNAL_NAME
        self.entries = self._read_journal(digest)
        if not self.entries and not self._journal.exists():
            write_whole(self._journal, json.dumps({"settings": digest}) + "\n")
        known = {_JOURNAL_NAME, *self.files}
        for path in staging.iterdir():
            if path.name not in known:  # of a piece that was not finished
                path.unlink()

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """What is recorded of each dump."""
        return {name: counts for entry in self.entries for name, counts in entry["files"].items()}

    def _read_journal(self, digest: str) -> list[dict[str, Any]]:
        if not self._journal.exists():
            return []
        *lines, torn = self._journal.read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines]
        if not records or records[0] != {"settings": digest}:
            raise OutputError(
                f"{self.staging} was begun with other settings or another data file; give those again, or "
                "--overwrite to start anew"
            )
        if torn:
            write_whole(self._journal, "".join(f"{line}\n" for line in lines))
        return records[1:]

    def add(self, dumps: list[np.ndarray], *, num_padding: int, suffix: str, **counts: int) -> None:
        """Write the dumps of the next piece, arrays `[n, s]`, and record that it is done.

        Args:
            num_padding: ids that fill the last sample of the last dump.
            counts: more to record of the piece.
        """
        first, files = len(self.files), {}
        for index, dump in enumerate(dumps):
            path = self.staging / f"dump-{first + index}{suffix}"
            with appearing(path) as partial:
                _write_dump(dump, partial, is_pickle=suffix == ".pkl")
            padding = num_padding if index == len(dumps) - 1 else 0
            files[path.name] = {
                "num_samples": len(dump),
                "num_padding": padding,
                "sha256": file_digest(path),
            }
        entry = {"files": files, **counts}
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.entries.append(entry)

    def finish(self, *, seq_length: int, origin: Mapping[str, Any]) -> None:
        """Write the metadata, in the form of the original, and the origin."""
        metadata = {
            name: {"num_samples": counts["num_samples"], "num_tokens": counts["num_samples"] * seq_length}
            for name, counts in self.files.items()
        }
        write_whole(self.staging / ORIGIN_NAME, json.dumps({**origin, "files": self.files}, indent=1) + "\n")
        write_whole(self.staging / METADATA_NAME, json.dumps(metadata))


def _write_dump(dump: np.ndarray, path: Path, *, is_pickle: bool) -> None:
    with path.open("wb") as file:
        if is_pickle:
            pickle.dump(dump.tolist(), file, protocol=_PICKLE_PROTOCOL)
        else:
            np.save(file, dump)


@contextmanager
def folder_in_making(
    output: Path, digest: str, *, resume: bool, overwrite: bool
) -> Iterator[PretokenizedFolder | None]:
    """A folder beside `output` that takes its name when the block ends well; None where it is complete already.

    An error leaves what is done, for a later `resume`.

    Args:
        digest: of all that decides the content; only a folder of the same one is continued.

    Raises:
        OutputError: `output` is in the way, another run is making it, or it cannot be made.
    """
    refuse_nameless(output, "--tokenization_folder")
    put_back(output)
    exists = holds_something(output)
    if exists and resume and _is_complete(output, digest):
        yield None
        return
    refuse_existing_folder(output, resume=resume, overwrite=overwrite)
    staging = output.with_name(f".{output.name}.partial")
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise OutputError(
            f"cannot write {output}: {error.strerror}; give another --tokenization_folder"
        ) from error
    with lock_folder(staging, "--tokenization_folder"):
        if overwrite and not resume:
            clear(staging)
        elif (staging / _JOURNAL_NAME).exists() and not resume:
            raise OutputError(
                f"a run for {output} was not finished ({staging}); --resume goes on with it, --overwrite starts anew"
            )
        folder = PretokenizedFolder(staging, digest)
        try:
            yield folder
        except BaseException:
            if not folder.files:  # nothing that a later run could use
                shutil.rmtree(staging)
            raise
        put_in_place(staging, output)
        (output / _JOURNAL_NAME).unlink()


def refuse_existing_folder(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to write where something stands.

    Raises:
        OutputError: something does, and is not to be replaced, or is not ours; or there is no name to be given.
    """
    refuse_nameless(output, "--tokenization_folder")
    exists = holds_something(output)
    if exists and not overwrite:
        is_ours = resume and (output / METADATA_NAME).exists()
        other = " with other settings or of another data file" if is_ours else ""
        raise OutputError(
            f"{output} exists already{other}; give another --tokenization_folder, or --overwrite to replace it"
        )
    if exists and not (output / METADATA_NAME).is_file():
        raise OutputError(
            f"{output} has no {METADATA_NAME}, so it is not one of ours and is left alone; "
            "give another --tokenization_folder"
        )


def _is_complete(output: Path, digest: str) -> bool:
    """Whether the folder stands whole and was made with the same settings; a forgotten journal goes."""
    origin = read_origin(output) if output.is_dir() else None
    if origin is None or origin.get("settings") != digest:
        return False
    (output / _JOURNAL_NAME).unlink(missing_ok=True)
    return True
