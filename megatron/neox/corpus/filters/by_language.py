"""What became of the files of each language, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megatron.neox.corpus.stages.counts import Amount, Counts


def language_lines(summary: Mapping[str, Any]) -> str:
    """A line a language of a stage's summary: files and bytes that were kept, and those left out for each reason."""
    counts = Counts.from_json(summary)
    languages = sorted(
        counts.kept.keys() | {name for amounts in counts.left_out.values() for name in amounts}
    )
    return "".join(f"{name}: {_told(counts, name)}\n" for name in languages)


def _told(counts: Counts, language: str) -> str:
    kept = counts.kept.get(language, Amount())
    reasons = [
        f"{amounts[language].num_files:,} {reason} ({amounts[language].num_bytes / 1e6:,.2f} MB)"
        for reason in counts.reasons()
        if language in (amounts := counts.left_out[reason])
    ]
    told = f"kept {kept.num_files:,} files, {kept.num_bytes / 1e6:,.2f} MB"
    return f"{told}; left out {', '.join(reasons)}" if reasons else told
