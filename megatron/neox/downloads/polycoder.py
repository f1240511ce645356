"""What PolyCoder's authors released, and where each piece of it goes.

Models are tars of the Zenodo record 6363556, named SIZE-STEPS; the record's own interface gives their sizes and
MD5 sums, so that nothing about them is guessed here. The vocabulary is in the folder Data of
github.com/VHellendoorn/Code-LMs, taken at a fixed commit and with known SHA-256 sums.

What exactly the tars hold besides `global_stepN` is not documented, so a leading folder is taken off where there is
one, and a `latest` that is absent stays absent: readers of checkpoints find the newest step without it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from megatron.neox.downloads.archive import unpack
from megatron.neox.downloads.fetch import Fetcher, Remote
from megatron.neox.downloads.lock import alone_in
from megatron.neox.downloads.unpacked import root_of, settle
from megatron.neox.errors import InputError, OutputError, ResourceError, did_you_mean

log = logging.getLogger(__name__)

RECORD = "6363556"
ZENODO = "https://zenodo.org"
GITHUB = "https://raw.githubusercontent.com"
VOCABULARY_FOLDER = "VHellendoorn/Code-LMs/570feba44e72a165cbd82d089fd8a9a14414d1d4/Data"
VOCABULARY = "vocab"


@dataclass(frozen=True)
class Release:
    """A released model: the tar's name without its ending, layers, and the training step of its weights."""

    name: str
    num_layers: int
    step: int

    @property
    def step_folder(self) -> str:
        """Folder of the weights inside a checkpoint folder."""
        return f"global_step{self.step}"

    @property
    def weight_files(self) -> set[str]:
        """Names of the weights' files in the step's folder; the function layers 1 and L + 2 have none."""
        numbers = [0, *range(2, self.num_layers + 2), self.num_layers + 3, self.num_layers + 4]
        return {f"layer_{number:02d}-model_00-model_states.pt" for number in numbers}

    def difference(self, folder: Path) -> str | None:
        """How the weights in `folder` differ from the release's by their files' names; None where they do not."""
        found = {path.name for path in (folder / self.step_folder).glob("layer_*") if path.stat().st_size}
        absent, more = sorted(self.weight_files - found), sorted(found - self.weight_files)
        if absent:
            return f"{len(absent)} of its files are absent or empty ({absent[0]} first)"
        return f"it has {len(more)} files more ({more[0]} first)" if more else None


RELEASES = {
    release.name: release
    for release in (
        Release("2-7B-150K", 32, 150_000),
        Release("2-7B-100K", 32, 100_000),
        Release("0-4B-150K", 24, 150_000),
        Release("0-4B-100K", 24, 100_000),
        Release("160M-150K", 12, 150_000),
    )
}

# File: size and checksum.
VOCABULARY_FILES = {
    "code-vocab.json": (
        983_880,
        "sha256:b549c3470cc0c7adcaabeda49145aeb3d7a06213334da8e15ff588ba8a76d70e",
    ),
    "code-merges.txt": (
        437_490,
        "sha256:e0c2172461969a113734d4c791eafa187b1e911f590cd393e6bc09764b31dacc",
    ),
}

# Under which names the tars may hold the model's size.
_SIZE_CONFIGS = ("2-7B.yml", "0-4B.yml", "160M.yml", "medium.yml", "small.yml")

NAMES = (*RELEASES, VOCABULARY)


def release_named(name: str) -> Release:
    """The released model of that name.

    Raises:
        InputError: there is none; the message lists the names.
    """
    if name not in RELEASES:
        raise InputError(
            f"nothing is released as {name}{did_you_mean(name, NAMES)}\n  known: {', '.join(NAMES)}"
        )
    return RELEASES[name]


def download_vocabulary(output: Path, fetcher: Fetcher, *, mirror: str | None = None) -> list[Path]:
    """Bring code-vocab.json and code-merges.txt into `output`; returns their paths.

    Raises:
        OutputError: other files stand under these names.
        InputError, ResourceError: as `Fetcher.fetch`.
    """
    base = f"{base_of(mirror, GITHUB)}/{VOCABULARY_FOLDER}"
    with alone_in(output):
        for name, (size, checksum) in VOCABULARY_FILES.items():
            if not fetcher.fetch(Remote(f"{base}/{name}", size, checksum), output / name):
                log.info("%s is there already, and is the released one", output / name)
    return [output / name for name in VOCABULARY_FILES]


def download_model(
    release: Release,
    output: Path,
    fetcher: Fetcher,
    *,
    mirror: str | None = None,
    is_checked: bool = True,
    keep_archive: bool = False,
) -> bool:
    """Bring a released model into `output`, unpacked: configs/, global_stepN/, and latest where the tar has it.

    A run that was stopped goes on where it was; files that are there already are kept.

    Args:
        mirror: origin that stands in for https://zenodo.org.
        is_checked: ask the record for size and checksum, and compare.
        keep_archive: leave the tar in `output`.

    Returns:
        Whether anything had to be done.

    Raises:
        OutputError: other weights of that step stand there, or a part of them.
        InputError, ResourceError: as `Fetcher.fetch` and `unpack`.
    """
    with alone_in(output):
        unpacked = output / f".{release.name}.unpacked"
        if not unpacked.is_dir():
            if _is_complete(release, output):
                return False
            _fetch_and_unpack(release, output, unpacked, fetcher, mirror, is_checked, keep_archive)
        settle(unpacked, output)
    return True


def next_command(output: Path) -> str:
    """What to type after `download_model`: PolyCoder's own command, with the configs that the tar had."""
    configs = output / "configs"
    sizes = [name for name in _SIZE_CONFIGS if (configs / name).is_file()]
    setup = [configs / "local_setup.yml"] if (configs / "local_setup.yml").is_file() else []
    files = " ".join(map(str, [*setup, *(configs / name for name in sizes)]))
    load = "" if setup and output == Path("checkpoints") else f" --set load={output}"
    return f"next: ./deepy.py generate.py configs/text_generation.yml {files or 'YOUR_CONFIG'}{load}"


def _is_complete(release: Release, output: Path) -> bool:
    """Whether the weights are there.

    Raises:
        OutputError: others are, or a part of them.
    """
    if not os.path.lexists(output / release.step_folder):
        return False
    if difference := release.difference(output):
        raise OutputError(
            f"{output / release.step_folder} is there and is not {release.name}: {difference}\n"
            "  move it away, or give another --output"
        )
    return True


def _fetch_and_unpack(
    release: Release,
    output: Path,
    unpacked: Path,
    fetcher: Fetcher,
    mirror: str | None,
    is_checked: bool,
    keep_archive: bool,
) -> None:
    base = base_of(mirror, ZENODO)
    archive = output / f"{release.name}.tar"
    url = f"{base}/record/{RECORD}/files/{archive.name}"
    remote = ask_record(base, archive.name, url, fetcher) if is_checked else Remote(url)
    if not is_checked:
        log.warning(
            "--no-checksum: %s is taken as it comes, nothing tells whether it is what was released", url
        )
    is_new = fetcher.fetch(remote, archive, copies=2)
    log.info(
        "%s %s; unpacking", archive, f"has the recorded {remote.checksum}" if remote.checksum else "is there"
    )
    is_ours = is_new and not keep_archive
    try:
        # A tar that is not compressed cannot hold more than it is long.
        unpack(archive, unpacked, limit_bytes=archive.stat().st_size, check=root_of)
    except InputError:
        if is_ours:
            archive.unlink()
        raise
    if is_ours:
        archive.unlink()


def ask_record(base: str, name: str, url: str, fetcher: Fetcher, record: str = RECORD) -> Remote:
    """Size and checksum of a file, from the record's own interface.

    Raises:
        ResourceError: it does not answer, or not so that it can be understood.
        InputError: the record has no such file.
    """
    address = f"{base}/api/records/{record}"
    try:
        files = {
            str(entry["key"]): (int(entry["size"]), str(entry["checksum"]))
            for entry in json.loads(fetcher.document(address))["files"]
        }
    except (ResourceError, InputError, ValueError, LookupError, TypeError) as error:
        told = (
            str(error) if isinstance(error, ResourceError | InputError) else f"{address}: not such a record"
        )
        raise ResourceError(
            f"the record cannot be asked for the size and checksum of {name}, so nothing is fetched\n  {told}\n"
            "  try later; --no-checksum fetches it without knowing whether it is what was released"
        ) from error
    if name not in files:
        raise InputError(f"{address} lists no {name}; it lists {', '.join(sorted(files)) or 'nothing'}")
    size, checksum = files[name]
    if not checksum.startswith(("md5:", "sha256:", "sha512:")):
        raise ResourceError(f"{address} gives {name} the checksum {checksum!r}, of no known kind")
    return Remote(url, size, checksum)


def base_of(mirror: str | None, origin: str) -> str:
    """The server's address, without a slash at its end."""
    return (mirror or origin).rstrip("/")
