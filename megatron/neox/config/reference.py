"""The documentation of every YAML key, made from the sections: `python -m megatron.neox.config.reference --write`.

It writes `configs/neox_arguments.md` for readers and `configs/neox_arguments.schema.json` for editors.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from megatron.neox.config import foreign, legacy
from megatron.neox.config.config import Config
from megatron.neox.config.section import PartChoice, Section

MARKDOWN = "neox_arguments.md"
SCHEMA = "neox_arguments.schema.json"

_HEAD = """\
# Arguments

Every key that a config file may hold, by section. Made from `megatron/neox/config` by `make docs`; change it there.
A *part* is a plugin's name, or `{"type": name, option: value}`; `./deepy.py plugins` lists the parts and their options.
How files are found and merged is told in [README.md](README.md).
"""


def markdown() -> str:
    """The text of neox_arguments.md."""
    blocks = [_HEAD]
    for name, field in Config.model_fields.items():
        section = _section_class(field)
        blocks.append(f"## {name}\n\n{inspect.getdoc(section)}\n\n{_table(section, '')}")
    blocks.append(_translations())
    blocks.append(_not_implemented())
    return "\n".join(blocks)


def _section_class(field: FieldInfo) -> type[Section]:
    assert isinstance(field.annotation, type)
    assert issubclass(field.annotation, Section)
    return field.annotation


def _table(section: type[Section], prefix: str) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"] if not prefix else []
    for key, field in section.model_fields.items():
        annotation = field.annotation
        is_block = isinstance(annotation, type) and issubclass(annotation, Section)
        kind = "block" if is_block else _type_name(annotation)
        cells = [
            f"`{prefix}{key}`",
            kind,
            "" if is_block else _default(field),
            _one_line(field.description or ""),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        if is_block:
            assert isinstance(annotation, type)
            lines.append(_table(annotation, f"{prefix}{key}.").rstrip("\n"))
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _type_name(annotation: Any) -> str:
    """A type in the words of somebody who writes YAML."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        names = [_type_name(part) for part in inner if part is not type(None)]
        # "a name among these, or any other": the list is what there is to say.
        return names[0] if len(names) == 2 and names[1] == "text" else " or ".join(dict.fromkeys(names))
    if origin is list:
        return f"list of {_type_name(inner[0])}"
    if origin is dict:
        return "mapping"
    simple = {
        int: "integer",
        float: "number",
        bool: "true or false",
        str: "text",
        PartChoice: "part",
        Any: "values",
    }
    return simple.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, PartChoice):
        value = {"type": value.name, **value.options} if value.options else value.name
    return "" if value is None else f"`{json.dumps(value)}`"


def _translations() -> str:
    rows = [f"| `{old}` | `{new}` |" for old, new in sorted(legacy.translations().items())]
    title = "## Keys of GPT-NeoX that are read as others\n"
    return "\n".join([title, "| key | read as |", "|---|---|", *rows, ""])


def _not_implemented() -> str:
    lines = [
        "## GPT-NeoX's keys that are not implemented\n",
        "Accepted with a note, because they change nothing:\n",
    ]
    lines += ["| key | why |", "|---|---|"]
    lines += [f"| `{key}` | {reason} |" for key, reason in sorted(foreign.NO_EFFECT.items())]
    lines += ["\nAn error, unless the value asks for nothing:\n", "| key | what to do |", "|---|---|"]
    lines += [f"| `{key}` | {refused.remedy} |" for key, refused in sorted(foreign.UNSUPPORTED.items())]
    return "\n".join(lines) + "\n"


def schema() -> dict[str, Any]:
    """A JSON Schema of one config file: flat keys, `-` or `_`, none required."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for field in Config.model_fields.values():
        made = TypeAdapter(_section_class(field)).json_schema(mode="validation")
        definitions.update(made.pop("$defs", {}))
        properties.update(made["properties"])
    for old, new in legacy.translations().items():
        properties[old] = {"description": f"Read as {new}.", "deprecated": True}
    for key, reason in foreign.NO_EFFECT.items():
        properties[key] = {"description": f"No effect here: {reason}.", "deprecated": True}
    for key, refused in foreign.UNSUPPORTED.items():
        properties[key] = {"description": f"Not implemented: {refused.remedy}.", "deprecated": True}
    hyphenated = {key.replace("_", "-"): value for key, value in properties.items() if "_" in key}
    definitions["PartChoice"] = _PART
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A config file",
        "type": "object",
        "additionalProperties": False,
        "properties": {**properties, **hyphenated},
        "$defs": definitions,
    }


_PART = {
    "title": "part",
    "description": "A plugin's name, or its name as `type` with its options.",
    "anyOf": [{"type": "string"}, {"type": "object", "required": ["type"]}],
}


def files() -> dict[str, str]:
    """Name and text of each generated file."""
    return {
        MARKDOWN: markdown(),
        SCHEMA: json.dumps(schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n",
    }


def main() -> int:
    """Write the files, or say which are not what they would be."""
    parser = argparse.ArgumentParser(
        prog="python -m megatron.neox.config.reference",
        description="Make configs/neox_arguments.md and its JSON Schema from the config's sections.",
        epilog="examples:\n  python -m megatron.neox.config.reference\n"
        "  python -m megatron.neox.config.reference --write\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--write", action="store_true", help="write the files; without it they are only compared"
    )
    parser.add_argument("--folder", type=Path, default=Path("configs"), help="default: configs")
    given = parser.parse_args()
    stale = [
        name for name, text in files().items()
        if not (given.folder / name).is_file() or (given.folder / name).read_text(encoding="utf-8") != text
    ]  # fmt: skip
    for name in stale:
        if given.write:
            (given.folder / name).write_text(files()[name], encoding="utf-8")
        sys.stderr.write(
            f"{given.folder / name} {'written' if given.write else 'is not up to date; use --write'}\n"
        )
    return 0 if given.write or not stale else 1


if __name__ == "__main__":
    sys.exit(main())
