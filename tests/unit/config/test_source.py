"""Every dialect of YAML that GPT-NeoX's users write, and where each key stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.config.source import parse_entries, parse_value, read_entries
from megatron.neox.errors import ConfigError, InputError


def _values(text: str) -> dict[str, object]:
    return {entry.key: entry.value for entry in parse_entries(text, "a.yml")}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("num_layers: 2\nlr: 1e-5", {"num_layers": 2, "lr": 1e-05}),
        ('{"num-layers": 2, "save": "x",}', {"num_layers": 2, "save": "x"}),
        ('"num_layers": 2,\n"save": "x",  # why\n', {"num_layers": 2, "save": "x"}),
        ("optimizer: {\n type: adam,\n params: {lr: 6e-4, betas: [.9, .95,],},\n},\nseed: 1",
         {"optimizer": {"type": "adam", "params": {"lr": 0.0006, "betas": [0.9, 0.95]}}, "seed": 1}),
        ('{\n\t"a": True,\n\t"b": False, "c": None, "d": null }', {"a": True, "b": False, "c": None, "d": None}),
        ('{"a": "x, # y,", "b": "it\\"s,"}', {"a": "x, # y,", "b": 'it"s,'}),
        ("a: it's,\nb: don't", {"a": "it's", "b": "don't"}),
        ("a: data/{x},y", {"a": "data/{x},y"}),
        ("a: 1.E3\nb: -2e+4\nc: 1e5x", {"a": 1000.0, "b": -20000.0, "c": "1e5x"}),
        ("", {}),
        ("# nothing\n", {}),
    ],
)  # fmt: skip
def test_dialects(text: str, values: dict[str, object]) -> None:
    assert _values(text) == values


def test_places_of_nested_keys() -> None:
    (entry,) = parse_entries("\noptimizer: {\n type: adam,\n params: {lr: 1, betas: [1,\n 2]}}", "a.yml")
    assert entry.places == {
        "optimizer": "a.yml:2",
        "optimizer.type": "a.yml:3",
        "optimizer.params": "a.yml:4",
        "optimizer.params.lr": "a.yml:4",
        "optimizer.params.betas": "a.yml:4",
        "optimizer.params.betas.0": "a.yml:4",
        "optimizer.params.betas.1": "a.yml:5",
    }


def test_a_key_given_twice_is_kept_twice() -> None:
    assert [entry.where for entry in parse_entries("a: 1\nb: 2\na: 3", "a.yml")] == [
        "a.yml:1",
        "a.yml:2",
        "a.yml:3",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,\nb", "a.yml:2: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got"),
        ("a: b: c", "a.yml:1: not valid YAML: mapping values are not allowed here"),
        ("- 1\n- 2", "a.yml:1: a config is a mapping of keys to values"),
        ("just words", "a.yml:1: a config is a mapping of keys to values"),
        ("a: !!python/name:os.system x", "a.yml:1: not valid YAML: could not determine a constructor"),
        ("b: 1\na: \x00", "a.yml:2: not valid YAML: special characters are not allowed"),
    ],
)
def test_what_is_no_config(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_entries(text, "a.yml")
    assert str(caught.value).startswith(message)


def test_a_nested_key_given_twice() -> None:
    with pytest.raises(ConfigError, match=r"a.yml:2: x.lr is given twice, with another value in a.yml:1"):
        parse_entries("x: {lr: 1,\n lr: 2}", "a.yml")
    assert _values("x: {lr: 1,\n lr: 1}") == {"x": {"lr": 1}}


def test_a_binary_file_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(InputError, match=r"x.yml: not a text file in UTF-8 \(byte 3\)"):
        read_entries(path)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("[1, 2]", [1, 2]), ("null", None), ("a b", "a b")]
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text) == value
