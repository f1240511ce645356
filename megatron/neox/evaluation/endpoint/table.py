"""The table of a folder, a language a row: what eval_codex_all.py of Code-LMs printed, and what compares."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from megatron.neox.evaluation.intervals import ratio_interval, resampled_sums
from megatron.neox.evaluation.markdown import markdown

_HEAD = [
    "Language", "files", "sum of log p", "average loss", "perplexity per token", "tokens", "perplexity (Pygments)",
    "95% CI", "bits/byte", "95% CI",
]  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown; sums and averages over all files of a language, logarithms natural."""
    by_language: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_language[row["language"]].append(row)
    return markdown([_HEAD, *(_line(name, by_language[name]) for name in sorted(by_language))])


def _line(language: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = {
        name: [float(row[name]) for row in rows]
        for name in ("log_likelihood", "tokens", "pygments_tokens", "bytes")
    }
    sums = {name: sum(values) for name, values in columns.items()}
    score = sums["log_likelihood"]
    loss = -score / sums["tokens"] if sums["tokens"] else math.nan
    drawn = resampled_sums(columns) if len(rows) > 1 else None

    def interval(count: str) -> tuple[float, float] | None:
        return None if drawn is None else ratio_interval(-drawn["log_likelihood"], drawn[count])

    by_lexer, by_byte = interval("pygments_tokens"), interval("bytes")
    return [
        language,
        str(len(rows)),
        f"{score:.2f}",
        f"{loss:.4f}",
        _short(_exp(loss)),
        f"{sums['tokens']:.0f}",
        _short(_exp(-score / sums["pygments_tokens"])) if sums["pygments_tokens"] else "-",
        _range(by_lexer, _exp),
        _short(-score / sums["bytes"] / math.log(2)),
        _range(by_byte, lambda nats: nats / math.log(2)),
    ]


def _range(ends: tuple[float, float] | None, convert: Any) -> str:
    return "-" if ends is None else f"{_short(convert(ends[0]))} to {_short(convert(ends[1]))}"


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _short(value: float) -> str:
    """Four places; of thousands and more, four digits."""
    return f"{value:.4f}" if value < 1000 else f"{value:.4g}"
