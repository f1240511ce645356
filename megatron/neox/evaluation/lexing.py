"""Tokens by a lexer that all models share, so that perplexities of models with other vocabularies compare.

PolyCoder's table counts Pygments' tokens, white space included, with Pygments 2.11.2; other versions count a
little otherwise, so results name the version.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import pygments
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.util import ClassNotFound

from megatron.neox.evaluation.published.tables import code_perplexity

log = logging.getLogger(__name__)

PYGMENTS_VERSION = pygments.__version__
PUBLISHED_VERSION = "2.11.2"
MEASURED_VERSION = "2.21.0"

# Tokens by 2.11.2 and by 2.21.0 of the same 2 MB of packaged open source code in each language (198 to 1773
# files); docs/perplexity.md says how that was counted. Other code moves otherwise.
MEASURED_TOKENS = {
    "C": (458_076, 458_102),
    "C#": (360_860, 356_986),
    "C++": (520_406, 520_234),
    "Go": (620_237, 620_195),
    "Java": (397_124, 398_898),
    "JavaScript": (415_603, 415_588),
    "PHP": (297_470, 298_396),
    "Python": (523_469, 523_469),
    "Ruby": (378_902, 378_902),
    "Rust": (450_944, 450_944),
    "Scala": (448_983, 448_983),
    "TypeScript": (492_029, 509_163),
}


def count_tokens(name: str, text: str) -> int | None:
    """Pygments' tokens of a file, by the lexer of its name; none where no lexer goes by such a name."""
    try:
        lexer = get_lexer_for_filename(name, text)
    except ClassNotFound:
        return None
    return sum(1 for _ in lexer.get_tokens(text))


def count_language_tokens(language: str, text: str) -> int:
    """Pygments' tokens of a text, by the lexer that has the language's name among its aliases."""
    return sum(1 for _ in _lexer(language.lower()).get_tokens(text))


def warn_of_version(language: str) -> None:
    """Say that another Pygments is installed than that of the published figures, and what it does to one of them."""
    if PYGMENTS_VERSION == PUBLISHED_VERSION:
        return
    log.warning(
        "Pygments %s is installed, and the published figures are of %s; %s\n  for the same count: "
        "pip install pygments==%s",
        PYGMENTS_VERSION, PUBLISHED_VERSION, version_effect(language), PUBLISHED_VERSION,
    )  # fmt: skip


def version_effect(language: str) -> str:
    """What the measured version does to the published perplexity of a language, in words."""
    before, after = MEASURED_TOKENS[language]
    published = code_perplexity().rows[language]
    moved = published ** (before / after)
    return (
        f"on 2 MB of other {language} code {MEASURED_VERSION} counts {100 * (after - before) / before:+.2f}% "
        f"tokens, with which {published:.4f} reads {moved:.4f}"
    )


@cache
def _lexer(alias: str) -> Any:
    return get_lexer_by_name(alias)
