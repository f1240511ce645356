"""What became of the files of a stage: how many went on, and how many were left out for which reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Amount:
    """Files, and their bytes as they were found."""

    num_files: int = 0
    num_bytes: int = 0

    def add(self, num_files: int, num_bytes: int) -> None:
        """Count more."""
        self.num_files += num_files
        self.num_bytes += num_bytes


def _by_language() -> defaultdict[str, Amount]:
    return defaultdict(Amount)


class Counts:
    """Amounts by language, of the files that were kept and of those left out for each reason.

    Counts of parts add up to those of the whole, in any order.
    """

    def __init__(self) -> None:
        self.kept: defaultdict[str, Amount] = defaultdict(Amount)
        self.left_out: defaultdict[str, defaultdict[str, Amount]] = defaultdict(_by_language)
        self.numbers: Counter[str] = Counter()
        """Whatever else a stage adds up, such as tokens."""

    def keep(self, language: str, num_bytes: int) -> None:
        """Count a file that goes on."""
        self.kept[language].add(1, num_bytes)

    def leave_out(self, reason: str, language: str, num_bytes: int = 0) -> None:
        """Count a file that does not; of one that was never opened the bytes are not known."""
        self.left_out[reason][language].add(1, num_bytes)

    def merge(self, other: Counts) -> None:
        """Add those of another part."""
        for language, amount in other.kept.items():
            self.kept[language].add(amount.num_files, amount.num_bytes)
        for reason, languages in other.left_out.items():
            for language, amount in languages.items():
                self.left_out[reason][language].add(amount.num_files, amount.num_bytes)
        self.numbers.update(other.numbers)

    def to_json(self) -> dict[str, Any]:
        """As mappings, sorted, so that equal counts give equal files."""
        return {
            "kept": _plain(self.kept),
            "left_out": {reason: _plain(self.left_out[reason]) for reason in sorted(self.left_out)},
            "numbers": dict(sorted(self.numbers.items())),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Counts:
        """The counts that `to_json` gave."""
        counts = cls()
        for language, amount in value["kept"].items():
            counts.kept[language].add(**amount)
        for reason, languages in value["left_out"].items():
            for language, amount in languages.items():
                counts.left_out[reason][language].add(**amount)
        counts.numbers.update(value["numbers"])
        return counts

    def total_kept(self) -> Amount:
        """Over all languages."""
        return _sum(self.kept.values())

    def reasons(self) -> dict[str, Amount]:
        """What was left out, over all languages, the most frequent reason first."""
        sums = {reason: _sum(languages.values()) for reason, languages in self.left_out.items()}
        return dict(sorted(sums.items(), key=lambda item: (-item[1].num_files, item[0])))

    def lines(self) -> str:
        """For people: what was kept, and a line a reason."""
        kept = self.total_kept()
        lines = [f"kept: {kept.num_files:,} files, {kept.num_bytes / 1e6:,.2f} MB"]
        lines += [
            f"left out, {reason}: {amount.num_files:,} files, {amount.num_bytes / 1e6:,.2f} MB"
            for reason, amount in self.reasons().items()
        ]
        return "\n".join(lines) + "\n"

    def number_lines(self) -> str:
        """For people: a line for each of `numbers`."""
        return "".join(f"{name}: {count:,}\n" for name, count in sorted(self.numbers.items()))


def _plain(amounts: Mapping[str, Amount]) -> dict[str, dict[str, int]]:
    return {
        language: {"num_files": amounts[language].num_files, "num_bytes": amounts[language].num_bytes}
        for language in sorted(amounts)
    }


def _sum(amounts: Iterable[Amount]) -> Amount:
    total = Amount()
    for amount in amounts:
        total.add(amount.num_files, amount.num_bytes)
    return total
