"""What every config section is, and the types that several of them share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A frozen group of YAML keys; the string under a field is that key's documentation.

    A field's name is its YAML key, in GPT-NeoX's spelling; what the code would rather read is a property.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        arbitrary_types_allowed=False,
    )


class PartChoice(BaseModel):
    """A plugin chosen in YAML: `"name"`, or `{"type": "name", "option": value}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


def _part_choice(value: Any) -> Any:
    if isinstance(value, str):
        return PartChoice(name=value)
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        options = {key: option for key, option in value.items() if key != "type"}
        # GPT-NeoX writes an optimizer's options below "params".
        nested = options.pop("params", {})
        return PartChoice(name=value["type"], options={**options, **nested})
    if isinstance(value, PartChoice) or (isinstance(value, dict) and "name" in value):
        return value
    raise ValueError('a part is written "name", or {"type": "name", "option": value}')


Choice = Annotated[PartChoice, BeforeValidator(_part_choice)]
"""A field that names a part, with its options."""
