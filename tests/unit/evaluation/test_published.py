"""Published figures: the data, what is told of them, and where they stand beside ours."""

from __future__ import annotations

import math

import numpy
import pytest

from megatron.neox.evaluation.languages import LANGUAGES
from megatron.neox.evaluation.published.tables import (
    code_perplexity,
    human_eval,
    human_eval_markdown,
    standard_error_bound,
)


def test_every_row_names_a_protocol_and_its_documents() -> None:
    table = human_eval()
    assert len(table.rows) == 15
    assert len({row.model for row in table.rows}) == 15
    for row in table.rows:
        assert row.protocol in table.protocols
        assert set(row.sources) <= set(table.sources)
        assert row.sources
        assert 0 < row.pass_at[1] < row.pass_at[10] < row.pass_at[100] < 100
    keys = {frozenset(protocol) for protocol in table.protocols.values()}
    assert len(keys) == 1, "every protocol tells the same things, or that they are not stated"
    assert all(value for protocol in table.protocols.values() for value in protocol.values())


def test_each_document_holds_the_rows_that_it_holds() -> None:
    held = {
        name: [row.model for row in human_eval().rows if name in row.sources] for name in human_eval().sources
    }
    assert len(held["code_lms"]) == 12
    assert len(held["codeparrot"]) == 10
    assert set(held["codeparrot"]) - set(held["code_lms"]) == {"Codex 25M", "Codex 85M"}
    assert held["codeparrot_june_2022"] == ["CodeParrot 1.5B, June 2022"]


@pytest.mark.parametrize(
    ("model", "figures"),
    [
        ("PolyCoder 2.7B", (5.59, 9.87, 17.68)),
        ("CodeParrot 1.5B", (3.58, 8.03, 14.96)),
        ("CodeParrot 1.5B, June 2022", (3.99, 8.69, 17.88)),
        ("GPT-Neo 2.7B", (6.41, 11.27, 21.37)),
        ("Codex 12B", (28.81, 46.81, 72.31)),
    ],
)
def test_figures(model: str, figures: tuple[float, ...]) -> None:
    assert tuple({row.model: row for row in human_eval().rows}[model].pass_at.values()) == figures


def test_the_disagreements_are_told() -> None:
    told = {note.about: note.says for note in human_eval().disagreements}
    assert "3.99 / 8.69 / 17.88" in told["CodeParrot 1.5B"]
    assert "1.5B" in told["GPT-Neo 1.3B"]
    assert len(told) == 6


def test_perplexities_are_of_the_twelve_languages() -> None:
    table = code_perplexity()
    assert set(table.rows) == set(LANGUAGES.values())
    assert (table.rows["C"], table.rows["Ruby"]) == (2.3464, 3.9742)
    assert table.protocol["window"].startswith("not stated")


def test_no_standard_error_is_above_its_bound() -> None:
    assert standard_error_bound(5.59) == pytest.approx(1.794, abs=1e-3)
    generator = numpy.random.default_rng(1)
    for sharpness in (0.05, 1.0, 20.0):
        values = generator.beta(0.06 * sharpness, 0.94 * sharpness, size=164)
        error = 100 * values.std() / math.sqrt(164)
        assert error <= standard_error_bound(100 * values.mean()) + 1e-12


def test_the_table_is_shown_with_its_protocols() -> None:
    shown = human_eval_markdown()
    row = "| PolyCoder 2.7B             | 5.59% ± 1.8  | 9.87% ± 2.3  | 17.68% ± 3.0 |  PolyCoder's authors |"
    assert row in shown.splitlines()
    assert "- CodeParrot's authors: n 200; temperature for each k the best of 0.2, 0.6, 0.8\n" in shown
