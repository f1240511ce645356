"""The published tables, read from the TOML files beside this one, and how they are shown."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from megatron.neox.evaluation.markdown import markdown

NUM_TASKS = 164
_KS = (1, 10, 100)


@dataclass(frozen=True)
class Disagreement:
    """Where published figures contradict each other, or are not of one protocol."""

    about: str
    says: str


@dataclass(frozen=True)
class HumanEvalRow:
    """What one model scored."""

    model: str
    pass_at: Mapping[int, float]
    """Percent, by k."""
    protocol: str
    """Whose: a key of HumanEvalTable.protocols."""
    sources: Sequence[str]
    """The documents that hold it: keys of HumanEvalTable.sources."""


@dataclass(frozen=True)
class HumanEvalTable:
    """HumanEval of PolyCoder, CodeParrot, GPT-Neo, GPT-J and Codex."""

    rows: Sequence[HumanEvalRow]
    protocols: Mapping[str, Mapping[str, str]]
    sources: Mapping[str, str]
    disagreements: Sequence[Disagreement]


@dataclass(frozen=True)
class PerplexityTable:
    """PolyCoder 2.7B's perplexities by language."""

    model: str
    source: str
    protocol: Mapping[str, str]
    rows: Mapping[str, float]
    disagreements: Sequence[Disagreement]

    @property
    def described(self) -> str:
        """What the figures are of, and what compares with them, in a line."""
        return (
            f"{self.model} ({self.source}): {self.protocol['data']}; divided by {self.protocol['divided_by']}; "
            f"window {self.protocol['window']}; compares with eval_compat polycoder on the same files alone"
        )


@cache
def human_eval() -> HumanEvalTable:
    """HumanEval as published."""
    data = _read("human_eval.toml")
    rows = [
        HumanEvalRow(row["model"], {k: row[f"pass@{k}"] for k in _KS}, row["protocol"], tuple(row["sources"]))
        for row in data["rows"]
    ]
    sources = {name: source["document"] for name, source in data["sources"].items()}
    return HumanEvalTable(rows, data["protocols"], sources, _disagreements(data))


@cache
def code_perplexity() -> PerplexityTable:
    """Perplexity by language as published."""
    data = _read("code_perplexity.toml")
    return PerplexityTable(
        data["model"], data["source"], data["protocol"], data["rows"], _disagreements(data)
    )


def standard_error_bound(percent: float, num_tasks: int = NUM_TASKS) -> float:
    """The most that the standard error over tasks of a pass@k can be, in points.

    Values in [0, 1] with mean p have a variance of at most p (1 - p), which they reach where every one is 0 or 1.
    """
    share = percent / 100
    return 100 * math.sqrt(share * (1 - share) / num_tasks)


def human_eval_markdown() -> str:
    """The published rows, each with the most that its standard error can be, and what to mind in comparing."""
    table = human_eval()
    header = ["Published", *(f"pass@{k}" for k in _KS), "measured by"]
    rows = [
        [
            row.model,
            *(f"{value:.2f}% ± {standard_error_bound(value):.1f}" for value in row.pass_at.values()),
            table.protocols[row.protocol]["measured_by"],
        ]
        for row in table.rows
    ]
    protocols = "".join(
        f"- {protocol['measured_by']}: n {protocol['num_samples']}; temperature {protocol['temperature']}\n"
        for protocol in table.protocols.values()
    )
    return (
        markdown([header, *rows]) + "\n± is the most that the standard error over 164 tasks can be; none was "
        f"published. Protocols differ, and from ours; docs/evaluation.md says where the tables disagree:\n\n"
        f"{protocols}"
    )


def _disagreements(data: Mapping[str, Any]) -> list[Disagreement]:
    return [Disagreement(**row) for row in data["disagreements"]]


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(
        files("megatron.neox.evaluation.published").joinpath(name).read_text(encoding="utf-8")
    )
