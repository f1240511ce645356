"""Filters by where a file comes from: its licence, its repository's stars, a folder of other people's packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron.neox.corpus.document import Document
from megatron.neox.errors import UserError, did_you_mean
from megatron.neox.plugins import filters

PERMISSIVE = (
    "0BSD", "AFL-3.0", "Apache-1.1", "Apache-2.0", "Artistic-2.0", "BSD-1-Clause", "BSD-2-Clause",
    "BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-4-Clause", "BSL-1.0", "CC0-1.0", "curl",
    "ECL-2.0", "ISC", "libpng-2.0", "MIT", "MIT-0", "MIT-CMU", "MulanPSL-2.0", "NCSA", "OpenSSL", "PHP-3.01",
    "PostgreSQL", "PSF-2.0", "Python-2.0", "Ruby", "TCL", "Unicode-3.0", "Unlicense", "UPL-1.0", "Vim", "WTFPL",
    "X11", "Zlib",
)  # fmt: skip
"""SPDX names of licences that ask for no more than their notice."""

_NOT_NAMES = (
    "NOASSERTION",
    "other",
    "unknown",
)  # GitHub's and others' words for licences that they cannot name


@filters.register("license")
@dataclass(frozen=True, kw_only=True)
class License:
    """A licence that is not on a list, or none that is known.

    Args:
        allow: SPDX names; `permissive` stands for a list of those that ask for no more than their notice.
        keep_unknown: keep files of repositories whose licence is not known.
    """

    allow: Sequence[str] = ("permissive",)
    keep_unknown: bool = False

    def __post_init__(self) -> None:
        """Look names up once, whatever their case.

        Raises:
            UserError: a name is neither SPDX's nor what data says of licences that it does not know.
        """
        if isinstance(self.allow, str):
            raise UserError(f"filter 'license': option allow is a list, such as [{self.allow}]")
        for name in self.allow:
            _check_name(name)
        names = [name for entry in self.allow for name in (PERMISSIVE if entry == "permissive" else (entry,))]
        object.__setattr__(self, "_allowed", frozenset(map(str.lower, names)))

    def __call__(self, document: Document) -> str | None:
        """`license_unknown`, `license` where one of several is not allowed, or None."""
        if not document.licenses:
            return None if self.keep_unknown else "license_unknown"
        allowed: frozenset[str] = self.__dict__["_allowed"]
        return None if all(name.lower() in allowed for name in document.licenses) else "license"


def _check_name(name: str) -> None:
    """Refuse a name that no file could have: a slip of the pen would leave out every file of that licence."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        known = name in ("permissive", *_NOT_NAMES) or canonicalize_license_expression(name)
    except InvalidLicenseExpression:
        known = None
    if not known:
        raise UserError(
            f"filter 'license': option allow: {name!r} is no SPDX name of a licence "
            f"(https://spdx.org/licenses lists them){did_you_mean(name, (*PERMISSIVE, 'permissive'))}"
        )


@filters.register("few_stars")
@dataclass(frozen=True, kw_only=True)
class FewStars:
    """A repository with few stars (BigCode: 5 and fewer); one whose stars are not known has none.

    Args:
        more_than: a repository with more is kept.
    """

    more_than: int = 5

    def __call__(self, document: Document) -> str | None:
        """`few_stars`, or None."""
        return None if (document.stars or 0) > self.more_than else "few_stars"


@filters.register("vendored")
@dataclass(frozen=True, kw_only=True)
class Vendored:
    """In a folder of other people's packages, such as node_modules."""

    def __call__(self, document: Document) -> str | None:
        """`vendored`, or None."""
        return "vendored" if document.vendored else None
