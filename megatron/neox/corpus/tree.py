"""A folder read without ever leaving it: no link is followed, nothing but regular files is opened."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from megatron.neox.corpus.document import Tally
from megatron.neox.errors import InputError

VERSION_CONTROL = frozenset({b".git", b".hg", b".svn", b".bzr"})

# A pipe opened for reading would wait for a writer; O_NONBLOCK returns at once, and fstat then refuses it.
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_OPEN = 256  # folders at a time
_READ_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """The regular files below a folder, by paths relative to it, as bytes.

    Every folder on the way to a file is opened below the one before, so that a folder swapped for a link
    while we read leads nowhere.

    Args:
        root: the folder; it may itself be a link.
        tally: counts what is left out: version_control, excluded, symlink, special_file, other_extension,
            unreadable, too_big.
        exclude: names of files and folders to leave out.
        extensions: endings of the names to keep (`.py`); none keeps all.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(
        self,
        root: Path,
        tally: Tally,
        *,
        exclude: Collection[str] = (),
        extensions: Sequence[str] = (),
    ) -> None:
        try:
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"cannot read the folder {root}: {error.strerror}") from error
        self._opened = {b"": self._root}
        self.num_links_out = 0
        """Links that were met and lead out of the tree, by what they say; `paths` counts them."""
        self.checkouts: set[bytes] = set()
        """Folders below the root with version control of their own: submodules, and clones within; by `paths`."""
        self._tally = tally
        self._exclude = frozenset(os.fsencode(name) for name in exclude)
        self._extensions = tuple(os.fsencode(extension) for extension in extensions)

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        os.close(self._root)

    def paths(self, *, seed: int | None = None) -> list[bytes]:
        """All files: sorted by their bytes, or with a seed in an order that names and seed alone decide."""
        found = sorted(path for path, _ in self.walk())
        if seed is not None:
            random.Random(seed).shuffle(found)
        return found

    def read(self, path: bytes, *, max_bytes: int | None = None) -> bytes | None:
        """Content of a file.

        None, and counted, where it is gone or unreadable, no regular file, or over `max_bytes`.
        """
        folder, _, name = path.rpartition(b"/")
        try:
            descriptor = os.open(name, _READ_FILE, dir_fd=self._folder(folder))
        except OSError:
            self._tally.skip("unreadable")
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                self._tally.skip("special_file")
                return None
            if max_bytes is not None and status.st_size > max_bytes:
                self._tally.skip("too_big")
                return None
            return _read_all(descriptor, status.st_size)
        except OSError:
            self._tally.skip("unreadable")
            return None
        finally:
            os.close(descriptor)

    def size(self, path: bytes) -> int:
        """Bytes of a regular file; 0 where it is gone or is none."""
        folder, _, name = path.rpartition(b"/")
        try:
            status = os.stat(name, dir_fd=self._folder(folder), follow_symlinks=False)
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def walk(self) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
        """All files in no order, each with what its folder says of it, which holds until the next one is asked for."""
        folders = [b""]
        while folders:
            folder = folders.pop()
            above, _, name = folder.rpartition(b"/")
            try:
                descriptor = os.open(name or b".", _READ_FOLDER, dir_fd=self._folder(above))
            except OSError:
                self._tally.skip("unreadable")
                continue
            below = folder and folder + b"/"
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        # A descriptor's entries have names as text; the bytes come back unchanged.
                        name = os.fsencode(entry.name)
                        is_folder = entry.is_dir(follow_symlinks=False)
                        if reason := self._reason_against(entry, name, is_folder):
                            self._tally.skip(reason)
                            self._remember(entry, name, folder, descriptor)
                        elif is_folder:
                            folders.append(below + name)
                        else:
                            yield below + name, entry
            finally:
                os.close(descriptor)

    def _reason_against(self, entry: os.DirEntry[str], name: bytes, is_folder: bool) -> str:
        """Why an entry is left out; empty where it is not."""
        if name in VERSION_CONTROL:
            return "version_control"
        if name in self._exclude:
            return "excluded"
        if is_folder:
            return ""
        if not entry.is_file(follow_symlinks=False):
            return "symlink" if entry.is_symlink() else "special_file"
        if self._extensions and not name.lower().endswith(self._extensions):
            return "other_extension"
        return ""

    def _remember(self, entry: os.DirEntry[str], name: bytes, folder: bytes, descriptor: int) -> None:
        """Take note of a link that leads out, and of a folder that is a repository of its own."""
        if name in VERSION_CONTROL and folder:
            self.checkouts.add(folder)
        elif entry.is_symlink():
            try:
                target = os.readlink(name, dir_fd=descriptor)
            except OSError:
                return
            place = os.path.normpath(os.path.join(folder, target))
            self.num_links_out += place.startswith((b"/", b"../")) or place == b".."

    def _folder(self, path: bytes) -> int:
        """A descriptor of a folder, each folder on the way being opened below the one before.

        They stay open, some hundreds at a time: files are read folder by folder, or in an order of chance.
        """
        known = path
        while known not in self._opened:
            known = known.rpartition(b"/")[0]
        for name in path[len(known) :].split(b"/"):
            if name:
                below = os.open(name, _READ_FOLDER, dir_fd=self._opened[known])
                if len(self._opened) >= _MOST_OPEN:
                    self._leave()
                known = known + b"/" + name if known else name
                self._opened[known] = below
        return self._opened[known]

    def _leave(self) -> None:
        """Close all folders but the root."""
        for path, descriptor in self._opened.items():
            if path:
                os.close(descriptor)
        self._opened = {b"": self._root}


def _read_all(descriptor: int, size: int) -> bytes:
    """A file to its end; of a size that fstat told, and that may have changed since, as one call where it can be."""
    data = os.read(descriptor, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while data:
        data = os.read(descriptor, 1 << 20)
        parts.append(data)
    return b"".join(parts)
