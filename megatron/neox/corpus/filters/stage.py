"""The stage that leaves files out by plugins of kind `filter`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import yaml

from megatron.neox.corpus.filters import Filter, reasons_of
from megatron.neox.corpus.stages.counts import Counts
from megatron.neox.corpus.stages.rewriting import bytes_of, describe_input, documents, drop_rows
from megatron.neox.corpus.stages.shards import find_shards
from megatron.neox.corpus.stages.stage import Phase, Stage, fingerprint
from megatron.neox.errors import InputError, UserError
from megatron.neox.plugins import filters as registry

Chosen = Mapping[str, Mapping[str, Any]]
"""Names of filters in the order they are asked, and the options of each."""


@dataclass(frozen=True)
class FilterShards:
    """Shards without the files that a filter has a reason against; each file counts under the first reason."""

    shards: tuple[Path, ...]
    output: Path
    filters: str
    """A `Chosen` as JSON."""

    def run(self, number: int) -> Counts:
        """Filter a shard."""
        checks, source = _build(self.filters), self.shards[number]
        return drop_rows(
            source, self.output / source.name, lambda batch: reasons_of(list(documents(batch)), checks)
        )


def filter_stage(folder: Path, output: Path, chosen: Chosen) -> Stage:
    """The stage that filters the shards in `folder`.

    Raises:
        InputError: the folder holds no finished shards.
        UserError: there is no such filter, or it has no such option.
    """
    if not chosen:
        raise UserError(
            "no filter is chosen; --preset or --filters names some (./deepy.py plugins filter lists all)"
        )
    told = {
        name: _all_options(name, check, chosen[name]) for name, check in zip(chosen, build_filters(chosen))
    }
    task = FilterShards(tuple(find_shards(folder)), output, json.dumps(chosen))
    settings = {"input": describe_input(folder), "filters": told}
    phases = [Phase("filter", len(task.shards), task.run, partial(bytes_of, task.shards))]
    return Stage("filter", output, settings, phases, inputs=[folder])


def _all_options(name: str, check: Filter, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as settings say them, with those that nobody gave: they decide the output, and may be others one day."""
    values = {
        key: given.get(key, getattr(check, key, parameter.default))
        for key, parameter in registry.part(name).options.items()
    }
    told = {key: _identity(key, value) for key, value in values.items() if value is not None}
    return json.loads(json.dumps(told, default=str))


def _identity(option: str, value: Any) -> Any:
    """An option as settings say it: of a file what is in it, not where it lies."""
    path = Path(value) if isinstance(value, str) else None
    if path is not None and option == "tokenizer" and path.is_dir():
        path /= "tokenizer.json"
    return f"{path.name}, SHA-256 {fingerprint([path])}" if path is not None and path.is_file() else value


def read_options(path: Path) -> dict[str, dict[str, Any]]:
    """Options of filters from a YAML file: a mapping of names, each with a mapping of options or nothing.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(v, dict | None) for v in content.values()):
        raise InputError(
            f"{path}: give filters and their options, such as `long_line: {{max_characters: 500}}`"
        )
    return {str(name): options or {} for name, options in content.items()}


def choose(base: Chosen, names: Sequence[str], options: Chosen) -> dict[str, dict[str, Any]]:
    """Filters of a preset, then those that are named, with options set over theirs.

    A filter that only has options is chosen, too.
    """
    chosen = {name: dict(values) for name, values in base.items()}
    for name in (*names, *options):
        chosen.setdefault(name, {}).update(options.get(name, {}))
    return chosen


def build_filters(chosen: Chosen) -> list[Filter]:
    """The filters.

    Raises:
        UserError: there is no such filter, or it has no such option.
    """
    return _build(json.dumps(chosen))


@lru_cache(maxsize=2)
def _build(filters: str) -> list[Filter]:
    chosen: dict[str, dict[str, Any]] = json.loads(filters)
    return [registry.build(name, options=options) for name, options in chosen.items()]
