"""Which files of an evaluation a model has seen in training, by the index of what it was trained on.

Only exact copies are found. A file that was reformatted, or cut out of another, passes for unseen; line ends alone
make no difference.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from megatron.neox.corpus.index import index as corpus_index
from megatron.neox.errors import InputError


def find_seen(index: Path, wanted: Collection[str]) -> set[str]:
    """Those of the wanted hashes that the index holds.

    Raises:
        InputError: the index is absent, damaged, or not in its form; the message names the line.
    """
    if not index.is_file():
        raise InputError(f"eval_contamination_index {index} does not exist (looked for {index.absolute()})")
    return corpus_index.find_seen(index, wanted)
