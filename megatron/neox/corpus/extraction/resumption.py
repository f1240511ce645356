"""What the repositories held when they were extracted, for a run that goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from megatron.neox.corpus.extraction.checkouts import Checkout
from megatron.neox.corpus.extraction.source_files import listing_of
from megatron.neox.corpus.listing import changed
from megatron.neox.corpus.stages.stage import work_folder
from megatron.neox.files import write_whole


def keep_listings(output: Path, task: int, listings: Sequence[str]) -> None:
    """Remember the `listing_of` each repository of a task."""
    write_whole(_path(output, task), json.dumps(listings))


def check_listings(output: Path, groups: Sequence[Sequence[Checkout]]) -> None:
    """Refuse to go on where a repository of a task that is done has changed.

    Raises:
        OutputError: one has; it is named.
    """
    for task, checkouts in enumerate(groups):
        try:
            listings = json.loads(_path(output, task).read_text("utf-8"))
        except FileNotFoundError:
            continue
        for checkout, listing in zip(checkouts, listings, strict=True):
            if listing_of(checkout) != listing:
                raise changed(os.fsdecode(checkout.folder))


def _path(output: Path, task: int) -> Path:
    return work_folder(output) / f"listings-{task:05d}.json"
