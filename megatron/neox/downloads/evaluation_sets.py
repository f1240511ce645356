"""What PolyCoder's authors measured with: unseen files of twelve languages, and the index of those trained on.

The test sets are one tar.gz of the Zenodo record that holds the models too; the record gives its size and MD5 sum.
What the archive puts around the folders of the languages is taken off. The folder appears when all files are in it,
so that one that is there is whole: a download that broke off never passes for an empty test set.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from megatron.neox.downloads.archive import unpack
from megatron.neox.downloads.fetch import Fetcher, Remote
from megatron.neox.downloads.lock import alone_in
from megatron.neox.downloads.polycoder import RECORD, ZENODO, ask_record, base_of
from megatron.neox.downloads.unpacked import root_of
from megatron.neox.errors import InputError, OutputError, ResourceError

log = logging.getLogger(__name__)

ARCHIVE = "unseen_test_sets.tar.gz"
INDEX = "index.zip"
INDEX_RECORDS = ("6341643", RECORD)
LANGUAGES = (
    "C", "C#", "C++", "Go", "Java", "JavaScript", "PHP", "Python", "Ruby", "Rust", "Scala", "TypeScript",
)  # fmt: skip

# Most that the unpacked files may have: at some hundred files a language, far beyond what was released.
_LIMIT_BYTES = 2**31


def download_test_sets(
    output: Path,
    fetcher: Fetcher,
    *,
    mirror: str | None = None,
    is_checked: bool = True,
    keep_archive: bool = False,
) -> bool:
    """Bring the test sets to `output`, LANGUAGE/USER/REPOSITORY/FILE.

    A run that was stopped goes on where it was.

    Args:
        mirror: origin that stands in for https://zenodo.org.
        is_checked: ask the record for size and checksum, and compare.
        keep_archive: leave the tar.gz beside `output`.

    Returns:
        Whether anything had to be fetched.

    Raises:
        OutputError: something else stands at `output`.
        InputError: the archive is damaged, leads out of its folder, or holds no language.
        ResourceError: as `Fetcher.fetch`.
    """
    if os.path.lexists(output):
        if not num_files(output):
            raise OutputError(
                f"{output} is there, and holds no file of {', '.join(LANGUAGES)}\n"
                "  move it away, or give another --output"
            )
        return False
    with alone_in(output.parent):
        archive = output.with_name(ARCHIVE)
        base = base_of(mirror, ZENODO)
        url = f"{base}/record/{RECORD}/files/{ARCHIVE}"
        if not is_checked:
            log.warning(
                "--no-checksum: %s is taken as it comes, nothing tells whether it is what was released", url
            )
        is_new = fetcher.fetch(
            ask_record(base, ARCHIVE, url, fetcher) if is_checked else Remote(url), archive
        )
        log.info("%s is there; unpacking", archive)
        unpacked = output.with_name(f".{output.name}.unpacked")
        shutil.rmtree(unpacked, ignore_errors=True)  # what a killed run left
        try:
            unpack(archive, unpacked, limit_bytes=_LIMIT_BYTES, check=_root_of)
            os.rename(_root_of(unpacked), output)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
            if is_new and not keep_archive:
                archive.unlink()
    return True


def num_files(folder: Path) -> dict[str, int]:
    """How many files of each language there are; languages without a file are left out."""
    counts = {name: sum(path.is_file() for path in (folder / name).rglob("*")) for name in LANGUAGES}
    return {name: count for name, count in counts.items() if count}


def _root_of(unpacked: Path) -> Path:
    return root_of(unpacked, num_files, "folder of a language")


def download_index(
    output: Path, fetcher: Fetcher, *, mirror: str | None = None, is_checked: bool = True
) -> bool:
    """Bring the index of PolyCoder's training files to `output`; a run that was stopped goes on where it was.

    Its authors name two records that hold it. The second one is asked where the first does not have it.

    Returns:
        Whether anything had to be fetched.

    Raises:
        OutputError: something else stands at `output`.
        InputError, ResourceError: as `Fetcher.fetch`; no record has it.
    """
    base = base_of(mirror, ZENODO)
    with alone_in(output.parent):
        for record in INDEX_RECORDS:
            url = f"{base}/record/{record}/files/{INDEX}"
            try:
                remote = ask_record(base, INDEX, url, fetcher, record) if is_checked else Remote(url)
                return fetcher.fetch(remote, output)
            except (InputError, ResourceError) as error:
                is_begun = output.with_name(f"{output.name}.part").exists()
                if record == INDEX_RECORDS[-1] or is_begun:
                    raise
                log.warning("%s\n  asking the other record", error)
    raise AssertionError
