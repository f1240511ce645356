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
        self._here = (b"", self._root)
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
        found = sorted(self._walk())
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

    def _walk(self) -> Iterator[bytes]:
        folders = [b""]
        while folders:
            folder = folders.pop()
            try:
                descriptor = self._open(folder, _READ_FOLDER)
            except OSError:
                self._tally.skip("unreadable")
                continue
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        # A descriptor's entries have names as text; the bytes come back unchanged.
                        path = os.path.join(folder, os.fsencode(entry.name))
                        if self._refuses(entry):
                            self._remember(entry, folder, descriptor)
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(path)
                        else:
                            yield path
            finally:
                os.close(descriptor)

    def _refuses(self, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is left out; counts it where it is."""
        name = os.fsencode(entry.name)
        if name in VERSION_CONTROL:
            reason = "version_control"
        elif name in self._exclude:
            reason = "excluded"
        elif entry.is_symlink():
            reason = "symlink"
        elif entry.is_dir(follow_symlinks=False):
            return False
        elif not entry.is_file(follow_symlinks=False):
            reason = "special_file"
        elif self._extensions and not name.lower().endswith(self._extensions):
            reason = "other_extension"
        else:
            return False
        self._tally.skip(reason)
        return True

    def _remember(self, entry: os.DirEntry[str], folder: bytes, descriptor: int) -> None:
        """Take note of a link that leads out, and of a folder that is a repository of its own."""
        name = os.fsencode(entry.name)
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
        """A descriptor of a folder; the last one stays open, since files are read folder by folder."""
        if self._here[0] != path:
            self._leave()
            self._here = (path, self._open(path, _READ_FOLDER))
        return self._here[1]

    def _leave(self) -> None:
        if self._here[1] != self._root:
            os.close(self._here[1])
        self._here = (b"", self._root)

    def _open(self, path: bytes, flags: int) -> int:
        *folders, name = path.split(b"/")
        here = self._root
        try:
            for folder in folders:
                below = os.open(folder, _READ_FOLDER, dir_fd=here)
                if here != self._root:
                    os.close(here)
                here = below
            return os.open(name or b".", flags, dir_fd=here)
        finally:
            if here != self._root:
                os.close(here)


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
