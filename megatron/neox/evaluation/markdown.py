"""Tables in Markdown, their columns aligned."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the header; the last column is set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    rule = ["-" * width for width in widths[:-1]] + ["-" * (widths[-1] - 1) + ":"]
    lines = [_line(rows[0], widths), _line(rule, widths), *(_line(row, widths) for row in rows[1:])]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths)]
    return f"| {' | '.join([*padded, cells[-1].rjust(widths[-1])])} |"
