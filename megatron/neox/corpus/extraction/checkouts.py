"""Repositories that lie on the disk: CLONES/LANGUAGE/ORGANIZATION/PROJECT, or one folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from megatron.neox.corpus.extraction.languages import find_language
from megatron.neox.errors import InputError

if TYPE_CHECKING:
    from megatron.neox.corpus.repositories import Repository

CLONES = "clones.jsonl"


@dataclass(frozen=True)
class Checkout:
    """A repository's folder, and what is known of it.

    Attributes:
        folder: as bytes, since names may not be UTF-8.
        language: that the tree files it under; None where nothing does.
        name: ORGANIZATION/PROJECT.
    """

    folder: bytes
    language: str | None
    name: bytes
    stars: int | None = None
    licenses: tuple[str, ...] = ()
    commit: str | None = None


def find_checkouts(
    clones: Path, *, repository: str | None = None, manifests: Sequence[Path] = ()
) -> list[Checkout]:
    """The repositories in the order of language and name.

    Args:
        clones: LANGUAGE/ORGANIZATION/PROJECT below it; hidden names and files are passed over, links too.
        repository: ORGANIZATION/PROJECT; then `clones` is the folder of that one.
        manifests: manifest.jsonl or clones.jsonl files with what is known of them; later ones add to earlier ones.
            Beside `clones` its own clones.jsonl is read last.

    Raises:
        InputError: the folder is absent or holds none, a folder's name is no language, a manifest is damaged.
    """
    if not clones.is_dir():
        raise InputError(f"the input {clones} is not a folder (looked for {clones.absolute()})")
    one = repository is not None and Checkout(os.fsencode(clones), None, repository.encode())
    found = [one] if one else _below(clones)
    if not found:
        raise InputError(
            f"{clones} holds no LANGUAGE/ORGANIZATION/PROJECT (links are not followed); --repository "
            "ORGANIZATION/PROJECT takes a folder as one"
        )
    paths = [*manifests, *([clones / CLONES] if (clones / CLONES).is_file() else [])]
    return _informed(found, paths) if paths else found


def _below(clones: Path) -> list[Checkout]:
    root = os.fsencode(clones)
    found = []
    for folder in _folders(root):
        language = find_language(os.fsdecode(folder), str(clones)).name
        for organization in _folders(os.path.join(root, folder)):
            for project in _folders(os.path.join(root, folder, organization)):
                path = os.path.join(root, folder, organization, project)
                found.append(Checkout(path, language, organization + b"/" + project))
    return found


def _folders(path: bytes) -> list[bytes]:
    """Names of the folders in a folder, sorted."""
    try:
        with os.scandir(path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(b".")
            )
    except OSError as error:
        raise InputError(f"cannot read the folder {os.fsdecode(path)}: {error.strerror}") from error


def _informed(checkouts: Sequence[Checkout], manifests: Sequence[Path]) -> list[Checkout]:
    """The repositories with what manifests tell of them."""
    # What checks a manifest takes a tenth of a second to import, in each process.
    from megatron.neox.corpus.repositories import read_manifest

    known: dict[tuple[str, bytes], Repository] = {}
    for path in manifests:
        for entry in read_manifest(path):
            key = (entry.language.casefold(), entry.name.encode())
            known[key] = _joined(known.get(key), entry)
    by_name = {name: entry for (_, name), entry in known.items()}
    return [_with_entry(checkout, known, by_name) for checkout in checkouts]


def _joined(before: Repository | None, entry: Repository) -> Repository:
    if before is None:
        return entry
    told = {key: value for key, value in entry.row().items() if value is not None}
    return type(entry)(**{**before.row(), **told})


def _with_entry(
    checkout: Checkout, known: Mapping[tuple[str, bytes], Repository], by_name: Mapping[bytes, Repository]
) -> Checkout:
    if checkout.language is None:
        entry = by_name.get(checkout.name)
    else:
        entry = known.get((checkout.language.casefold(), checkout.name))
    if entry is None:
        return checkout
    licenses = (entry.license,) if entry.license and entry.license != "NOASSERTION" else ()
    return Checkout(checkout.folder, checkout.language, checkout.name, entry.stars, licenses, entry.commit)


def fingerprint_of(checkouts: Sequence[Checkout]) -> str:
    """A hash of what the repositories are, not of where they lie: for a stage's settings."""
    digest = sha256()
    for checkout in checkouts:
        told = [checkout.language, checkout.name.hex(), checkout.stars, checkout.licenses, checkout.commit]
        digest.update(json.dumps(told).encode() + b"\n")
    return digest.hexdigest()
