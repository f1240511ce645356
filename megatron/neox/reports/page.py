"""One self-contained HTML page about a run: no script, no other file, nothing fetched."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron.neox.files import write_whole

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; } caption { text-align: left; color: #555; }
pre { background: #f6f6f4; padding: .75rem; overflow-x: auto; tab-size: 4; } .made { background: #fdf3d0; }
img { max-width: 100%; } .side { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
@media (max-width: 45rem) { .side { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True)
class Picture:
    """A PNG file that becomes part of the page."""

    title: str
    path: Path
    says: str
    """What it shows, for those who cannot see it."""


@dataclass(frozen=True)
class Table:
    """Rows of cells below a header; the first column is text, the others numbers."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt, and what stood there."""

    source: str
    prompt: str
    generated: str
    real: str


@dataclass(frozen=True)
class Page:
    """What a report shows, in this order."""

    title: str
    facts: Mapping[str, object] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    completions: Sequence[Completion] = ()

    def write(self, output: Path) -> None:
        """Write the page; it gets its name only when it is whole."""
        write_whole(output, self.render())

    def render(self) -> str:
        """The page's HTML."""
        parts = [f"<h1>{html.escape(self.title)}</h1>"]
        if self.facts:
            parts.append(_table(Table("", ("what", "value"), list(self.facts.items()))))
        parts += [_picture(picture) for picture in self.pictures]
        parts += [_table(table) for table in self.tables]
        if self.completions:
            parts.append("<h2>Completions</h2>")
            parts += [_completion(completion) for completion in self.completions]
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width"><title>{html.escape(self.title)}</title>'
            f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
        )


def _picture(picture: Picture) -> str:
    encoded = base64.b64encode(picture.path.read_bytes()).decode()
    title, says = html.escape(picture.title), html.escape(picture.says)
    return f'<h2>{title}</h2><img alt="{says}" src="data:image/png;base64,{encoded}">'


def _cell(value: object) -> str:
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>\n" for row in table.rows
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>"


def _completion(completion: Completion) -> str:
    escape = html.escape
    return (
        f"<h3>{escape(completion.source)}</h3><pre>{escape(completion.prompt)}</pre>"
        f'<div class="side"><div>the model goes on<pre class="made">{escape(completion.generated)}</pre>'
        f"</div><div>the file goes on<pre>{escape(completion.real)}</pre></div></div>"
    )
