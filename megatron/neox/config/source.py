"""One config file as keys, values and places: YAML in every dialect that GPT-NeoX's users write.

Understood beside plain YAML: JSON, JSON-like braces, `True`/`False`/`None`, `1e-5` as a number, `-` for `_` in keys,
commas at the end of a list, of a block, or of a line that needs none, and tabs between words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megatron.neox.errors import ConfigError, InputError, Problem


@dataclass(frozen=True)
class Entry:
    """One top-level key as it was written."""

    key: str  # with "_"
    written: str  # as in the file
    value: Any
    where: str  # file:line
    places: dict[str, str]  # places of nested keys by dotted path, the key itself included

    @property
    def is_hyphenated(self) -> bool:
        """Whether the key was written with `-`, which lets it override an earlier file."""
        return "-" in self.written


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `1e-5` as a number and `None` as nothing, as Python's users expect."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class declares it as an instance attribute
        first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^None$"), ["N"])


def read_entries(path: Path, *, shown: str | None = None) -> list[Entry]:
    """The top-level keys of a file, in order, duplicates included.

    Args:
        shown: what messages call the file.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
        ConfigError: it is not YAML, or not a mapping of keys to values.
    """
    shown = shown or str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{shown}: not a text file in UTF-8 (byte {error.start}); is it a config?"
        ) from error
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror}") from error
    return parse_entries(text, shown)


def parse_entries(text: str, shown: str) -> list[Entry]:
    """Like `read_entries`, of a text."""
    try:
        loader = _Loader(_forgive(text))
    except yaml.reader.ReaderError as error:
        where = f"{shown}:{text.count(chr(10), 0, error.position) + 1}"
        raise ConfigError([Problem(where, f"not valid YAML: {error.reason}")]) from error
    try:
        root = loader.get_single_node()
        if root is None:
            return []
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError([Problem(_place(shown, root), "a config is a mapping of keys to values")])
        return [_entry(loader, key, value, shown) for key, value in root.value]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{shown}:{mark.line + 1}" if mark else shown
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError([Problem(where, f"not valid YAML: {said}")]) from error
    finally:
        loader.dispose()


def parse_value(text: str) -> Any:
    """A value as YAML reads it, for `--set KEY=VALUE`.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


def _place(shown: str, node: yaml.Node) -> str:
    return f"{shown}:{node.start_mark.line + 1}"


def _entry(loader: _Loader, key: yaml.Node, value: yaml.Node, shown: str) -> Entry:
    written = str(loader.construct_object(key, deep=True))
    normalized = written.replace("-", "_")
    places = {normalized: _place(shown, key)}
    _nested_places(value, normalized, shown, places)
    return Entry(normalized, written, loader.construct_object(value, deep=True), _place(shown, key), places)


def _nested_places(node: yaml.Node, path: str, shown: str, places: dict[str, str]) -> None:
    """Note where each key and item below `node` stands."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}"
            if inner in places and value.value != _value_in(node, key.value):
                problem = f"{inner} is given twice, with another value in {places[inner]}"
                raise ConfigError([Problem(_place(shown, key), problem)])
            places[inner] = _place(shown, key)
            _nested_places(value, inner, shown, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            inner = f"{path}.{index}"
            places[inner] = _place(shown, item)
            _nested_places(item, inner, shown, places)


def _value_in(node: yaml.MappingNode, name: str) -> Any:
    """What the first key `name` of a mapping holds, unread."""
    return next(value.value for key, value in node.value if key.value == name)


_TOKEN = re.compile(
    r"""(?P<comment>(?:^|(?<=\s))\#[^\n]*)
      | (?P<quoted>"(?:\\.|[^"\\])*"|'(?:''|[^'])*')
      | (?P<open>[\[{]) | (?P<close>[\]}])
      | (?P<comma>,[ \t]*(?=\n|\Z|\#))
      | (?P<tab>\t)
      | (?P<word>[^\s"'\[\]{},\#]+["'\[\]{}\#\w]*)
    """,
    re.VERBOSE | re.MULTILINE,
)


def _forgive(text: str) -> str:
    """Blank what YAML refuses and everybody understands: commas that end a block's line, and tabs.

    Lines and columns stay where they are, so that messages name the right place.
    """
    depth = 0

    def blank(match: re.Match[str]) -> str:
        nonlocal depth
        kind, found = match.lastgroup, match.group()
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "tab" or (kind == "comma" and depth == 0):
            return " " * len(found)
        return found

    return _TOKEN.sub(blank, text)
