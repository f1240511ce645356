"""The files to score: those of the twelve languages below some folders, read as the tasks code_* read them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from megatron.neox.corpus.document import Document, Tally
from megatron.neox.corpus.texts import usable_text
from megatron.neox.errors import InputError
from megatron.neox.evaluation.code_files import NoFilesError, read_documents
from megatron.neox.evaluation.languages import LANGUAGES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodeText:
    """A file that is scored."""

    folder: str
    language: str
    path: str
    text: str

    @cached_property
    def sha256(self) -> str:
        """Of the text as it is sent."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def num_bytes(self) -> int:
        """Of the text in UTF-8."""
        return len(self.text.encode())


def read_folders(folders: Sequence[Path]) -> list[CodeText]:
    """All files that can be scored, by folder, language and name; what is left out is counted and said.

    Raises:
        InputError: a folder is absent, or holds no file of any language that can be scored.
    """
    found: list[CodeText] = []
    for folder in dict.fromkeys(folders):
        before = len(found)
        reasons: list[str] = []
        for language in sorted(LANGUAGES.values()):
            tally = Tally()
            try:
                documents = read_documents(folder, language, tally)
            except NoFilesError:
                continue
            found += [
                CodeText(str(folder), language, document.name, text)
                for document in documents
                if (text := _text(document, tally)) is not None
            ]
            if tally.skipped:
                reasons.append(f"{language}: {tally.reasons()}")
        if reasons:
            log.warning("%s: left out: %s", folder, "; ".join(reasons))
        if len(found) == before:
            raise InputError(
                f"{folder} holds no file that can be scored of {', '.join(sorted(LANGUAGES.values()))}\n"
                "  it takes LANGUAGE/USER/REPOSITORY/FILE in a folder or a tar; tools/download_eval_data.py fetches "
                "PolyCoder's test sets"
            )
    return found


def _text(document: Document, tally: Tally) -> str | None:
    text = usable_text(document, tally)
    if text is not None and not text.strip():
        tally.skip("blank")
        return None
    return text
