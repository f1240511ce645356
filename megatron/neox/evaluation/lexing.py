"""Tokens by a lexer that all models share, so that perplexities of models with other vocabularies compare.

PolyCoder's table counts Pygments' tokens, white space included, with Pygments 2.11.2; other versions count a
little otherwise, so results name the version.
"""

from __future__ import annotations

import pygments
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound

PYGMENTS_VERSION = pygments.__version__


def count_tokens(name: str, text: str) -> int | None:
    """Pygments' tokens of a file, by the lexer of its name; none where no lexer goes by such a name."""
    try:
        lexer = get_lexer_for_filename(name, text)
    except ClassNotFound:
        return None
    return sum(1 for _ in lexer.get_tokens(text))
