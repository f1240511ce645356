"""The files of a repository that are kept, and why the others are not.

They come in the order of their paths, one at a time, so that a repository of any size needs little memory.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

from megatron.neox.corpus.document import Tally
from megatron.neox.corpus.extraction.checkouts import Checkout
from megatron.neox.corpus.extraction.languages import LANGUAGES, is_source, language_of, languages_by_name
from megatron.neox.corpus.extraction.source_text import Encoding, source_text
from megatron.neox.corpus.listing import digest_of, list_tree, path_in
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.shards import SourceFile, escape_path
from megatron.neox.corpus.tree import Tree
from megatron.neox.errors import InputError

# Folders of other people's code inside a repository; files below them are kept, and flagged.
VENDORED = frozenset({
    b"node_modules", b"bower_components", b"vendor", b"vendors", b"vendored", b"third_party", b"third-party",
    b"thirdparty", b"3rdparty", b"Godeps", b"site-packages", b"dist-packages", b"Pods", b"Carthage",
})  # fmt: skip

LINKS_OUT = "links that lead out of their repository"
REPOSITORIES = "repositories, "
_UNKNOWN = "unknown"  # language of what was not opened in a repository of none


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """What to extract, and what to leave out.

    Attributes:
        input: as `find_checkouts`.
        repository: ORGANIZATION/PROJECT, where `input` is the folder of that one.
        manifests: as `find_checkouts`.
        all_languages: take every file of the table, and not those in the language of the repository alone.
        max_bytes: larger files are left out by their size, unread.
        min_tokens: files with fewer tokens by Pygments are left out; 0 lexes nothing.
        repositories_per_task: 0 takes as many as give 16 tasks, and 64 at most.
    """

    input: Path
    output: Path
    repository: str | None = None
    manifests: tuple[Path, ...] = ()
    all_languages: bool = False
    format: Literal["parquet", "tree"] = "parquet"
    encoding: Encoding = "skip"
    max_bytes: int = 1 << 20
    min_tokens: int = 100
    repositories_per_task: int = 0


class Extracted(NamedTuple):
    """A file that is kept: its path below the repository, its bytes, and its row."""

    path: bytes
    data: bytes
    row: SourceFile


class _LanguageTally(Tally):
    """Counts what a tree leaves out under the language at hand."""

    def __init__(self, counts: Counts, language: str) -> None:
        super().__init__()
        self.counts = counts
        self.language = language

    def skip(self, reason: str) -> None:
        self.counts.leave_out(reason, self.language)


def extract_checkout(
    checkout: Checkout, settings: ExtractSettings, counts: Counts, listings: list[str]
) -> Iterator[Extracted]:
    """The files of a repository that are kept, in the order of their paths; `counts` says what became of all.

    `listings` gets what tells these files from others, as `listing_of`.
    """
    tally = _LanguageTally(counts, checkout.language or _UNKNOWN)
    try:
        opened = Tree(Path(os.fsdecode(checkout.folder)), tally)
    except InputError:  # gone, or not for us; one of a million must not end the run
        tally.skip("unreadable")
        listings.append("")
        return
    with opened as tree:
        listed = list_tree(tree)
        listings.append(digest_of(listed))
        paths = list(map(path_in, listed))
        counts.numbers[LINKS_OUT] += tree.num_links_out
        language = checkout.language or majority_language(tree, paths)
        wanted = None if settings.all_languages else {language} if language else set[str]()
        gave: set[str] = set()
        for path in paths:
            name = path.rpartition(b"/")[2]
            if reason := is_source(name, wanted):
                tally.language = next(iter(languages_by_name(name)), language or _UNKNOWN)
                tally.skip(reason)
                continue
            file = _extract_file(tree, path, checkout, language, wanted, settings, tally)
            if file is not None:
                counts.keep(file.row.language, file.row.size)
                gave.add(file.row.language)
                yield file
        counts.numbers.update(REPOSITORIES + name for name in gave)


def listing_of(checkout: Checkout) -> str:
    """A hash of the files of a repository by their names, sizes and times of change; empty where it is gone."""
    try:
        with Tree(Path(os.fsdecode(checkout.folder)), Tally()) as tree:
            return digest_of(list_tree(tree))
    except InputError:
        return ""


def _extract_file(
    tree: Tree, path: bytes, checkout: Checkout, language: str | None, wanted: Collection[str] | None,
    settings: ExtractSettings, tally: _LanguageTally,
) -> Extracted | None:  # fmt: skip
    """A file that is kept; None, and counted, for one that is not."""
    name = path.rpartition(b"/")[2]
    possible = languages_by_name(name)
    tally.language = language if language in possible else possible[0]
    data = tree.read(path, max_bytes=settings.max_bytes)
    if data is None:
        return None
    text, reason = source_text(data, settings.encoding)
    found = None if reason else language_of(name, text, language)
    if not reason:
        tally.language = found or tally.language
        if found is None or (wanted is not None and found not in wanted):
            reason = "other_language"
        elif settings.min_tokens and not _has_tokens(text, found, settings.min_tokens):
            reason = "too_short"
    if reason or found is None:
        tally.counts.leave_out(reason, tally.language, len(data))
        return None
    row = SourceFile(
        repository=escape_path(checkout.name), language=found, path=escape_path(path),
        sha256=sha256(data).hexdigest(), size=len(data), stars=checkout.stars, licenses=list(checkout.licenses),
        commit=checkout.commit, vendored=is_vendored(path, tree.checkouts), content=text,
    )  # fmt: skip
    return Extracted(path, data, row)


def _has_tokens(text: str, language: str, limit: int) -> bool:
    # Importing Pygments takes a while; --min-tokens 0 has no use for it.
    from megatron.neox.corpus.extraction.lexing import has_tokens

    return has_tokens(text, LANGUAGES[language].lexer, limit)


def is_vendored(path: bytes, checkouts: Collection[bytes]) -> bool:
    """Whether a file lies in a folder of other people's packages, or in a repository inside the repository."""
    *folders, _ = path.split(b"/")
    if not VENDORED.isdisjoint(folders):
        return True
    ends = range(1, len(folders) + 1) if checkouts else ()
    return any(b"/".join(folders[:end]) in checkouts for end in ends)


def majority_language(tree: Tree, paths: Collection[bytes]) -> str | None:
    """The language with the most bytes by the names of its files; of equals, the first in the alphabet.

    A name that several languages share counts for the one of them that has the most bytes without it.
    """
    sizes: Counter[str] = Counter()
    shared: Counter[tuple[str, ...]] = Counter()
    for path in paths:
        languages = languages_by_name(path.rpartition(b"/")[2])
        if len(languages) == 1:
            sizes[languages[0]] += tree.size(path)
        elif languages:
            shared[languages] += tree.size(path)
    alone = Counter(sizes)
    for languages, size in shared.items():
        sizes[max(languages, key=lambda name: (alone[name], -languages.index(name)))] += size
    return min(sizes, key=lambda name: (-sizes[name], name), default=None)
