"""Config files to one `Config`: find, read, merge, translate old keys, check. Every problem is told at once.

Files are merged in order. A key given twice with one value is fine; with two values it is an error, unless the later
one is written with `-`: that is how GPT-NeoX's users override a key, so it wins, with a note. `--set` always wins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from megatron.neox.config import checks, foreign, legacy, parts
from megatron.neox.config.config import MODEL_SIZES, Config, section_of
from megatron.neox.config.source import Entry, parse_value, read_entries
from megatron.neox.errors import ConfigError, InputError, Problem, did_you_mean, place_of


@dataclass(frozen=True)
class LoadedConfig:
    """A config with what it was made from."""

    config: Config
    keys: dict[str, Any]  # every key that was given, under today's names; `Config.from_flat` takes it
    places: dict[str, str]  # file:line of each key, nested keys by dotted path
    notes: list[str]  # what the user should know: overrides, old spellings, keys without effect


@dataclass
class _Reading:
    """What is known so far."""

    keys: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    bad_keys: set[str] = field(default_factory=set)
    absent: list[str] = field(default_factory=list)  # keys that every config must give, and none did

    def refuse(self, key: str, message: str, where: str | None = None) -> None:
        """Record a problem with a key, and keep checks that read the key silent."""
        self.problems.append(Problem(self.place(key) if where is None else where, message))
        self.bad_keys.add(key.partition(".")[0])

    def place(self, key: str) -> str:
        """Where a key stands, by its dotted path or the nearest enclosing one."""
        return place_of(key, self.places)


def load_config(
    paths: Sequence[str | Path],
    *,
    conf_dir: str | Path | None = None,
    overrides: Iterable[str] = (),
    require: Iterable[str] = (),
    defaults: Sequence[str | Path] = (),
) -> LoadedConfig:
    """Read, merge and check config files.

    Args:
        paths: file names; `.yml` may be left out, and a name that is no file is looked for in `conf_dir`,
            the working directory and the folder `configs`.
        conf_dir: folder to look in first.
        overrides: `KEY=VALUE`, dots for nested keys (`optimizer.lr=1e-3`).
        require: what must be there: "training", "data", "checkpoint" (see `checks.missing`).
        defaults: files whose keys hold where no file of `paths` gives them.

    Raises:
        InputError: a file is absent or unreadable.
        ConfigError: everything that is wrong with the contents.
    """
    reading = _Reading()
    entries = _read_all(paths, conf_dir)
    _merge(entries, reading)
    for path in _find_all(defaults, conf_dir):
        for entry in read_entries(path, shown=_shown(path)):
            _put_default(entry, reading)
    for text in overrides:
        _override(text, reading)
    _translate(reading)
    _judge_foreign(reading)
    config = _build(reading)
    if reading.absent and "evaluated_model" not in reading.bad_keys:
        files = " or ".join(map(str, paths)) or "the command line"
        told = f"{files} must give {', '.join(reading.absent)}; see configs/160M.yml"
        reading.problems.append(Problem("", told))
    _check(config, reading, require)
    if reading.problems:
        raise ConfigError(_in_order(reading.problems, entries))
    return LoadedConfig(config, reading.keys, reading.places, reading.notes)


# --- finding ------------------------------------------------------------------------------------------------


def installed_folder() -> Path:
    """The folder that holds the doors and `configs`: the checkout, or where a wheel put them."""
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "deepy.py").is_file() else Path(sys.prefix) / "share" / "megatron-neox"


def find_config(name: str | Path, conf_dir: str | Path | None = None) -> Path:
    """The file that a config name means.

    Raises:
        InputError: there is none; the message lists where it was looked for.
    """
    name = Path(name).expanduser()
    shipped = installed_folder()  # its own `configs/`, whether or not the name spells that out
    folders = [Path()] if name.is_absolute() else [Path(), Path("configs"), shipped, shipped / "configs"]
    if conf_dir is not None and not name.is_absolute():
        folders.insert(0, Path(conf_dir).expanduser())
    names = (
        [name] if name.suffix in (".yml", ".yaml", ".json") else [name.with_name(name.name + ".yml"), name]
    )
    for folder in folders:
        for candidate in names:
            if (folder / candidate).is_file():
                return folder / candidate
    tried = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    known = sorted(p.name for folder in folders for p in folder.glob("*.yml"))
    raise InputError(f"no config file {names[0]} (looked in: {tried}){did_you_mean(names[0].name, known)}")


def _find_all(paths: Sequence[str | Path], conf_dir: str | Path | None) -> list[Path]:
    """All the files, or all that is wrong with finding them."""
    found: list[Path] = []
    failures: list[str] = []
    for path in paths:
        try:
            found.append(find_config(path, conf_dir))
        except InputError as error:
            failures.append(str(error))
    if failures:
        raise InputError("\n".join(failures))
    return found


def _shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _read_all(paths: Sequence[str | Path], conf_dir: str | Path | None) -> list[Entry]:
    """The keys of all the files in order, or all that keeps the files from being read."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for path in _find_all(paths, conf_dir):
        try:
            entries += read_entries(path, shown=_shown(path))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return entries


# --- merging ------------------------------------------------------------------------------------------------


def _merge(entries: Sequence[Entry], reading: _Reading) -> None:
    for entry in entries:
        key = legacy.RENAMED.get(entry.key, entry.key)
        if key != entry.key:
            reading.notes.append(f"{entry.where}: {entry.written} is an old name of {key}")
        if key in reading.keys and reading.keys[key] != entry.value:
            before = f"{_say(reading.keys[key])} in {reading.places[key]}"
            if not entry.is_hyphenated:
                reading.refuse(
                    key, f"{key} is {_say(entry.value)} here but {before}; keep one of them", entry.where
                )
                continue
            reading.notes.append(
                f"{entry.where}: {entry.written} {_say(entry.value)} replaces {before}, because it is written with '-'"
            )
        _put(reading, key, entry.value, {_renamed(p, entry.key, key): at for p, at in entry.places.items()})


def _put_default(entry: Entry, reading: _Reading) -> None:
    key = legacy.RENAMED.get(entry.key, entry.key)
    if key not in reading.keys:
        _put(reading, key, entry.value, {_renamed(p, entry.key, key): at for p, at in entry.places.items()})


def _put(reading: _Reading, key: str, value: Any, places: dict[str, str]) -> None:
    for old in [path for path in reading.places if path == key or path.startswith(f"{key}.")]:
        del reading.places[old]
    reading.keys[key] = value
    reading.places.update(places)


def _renamed(path: str, old: str, new: str) -> str:
    return new + path.removeprefix(old)


def _say(value: Any) -> str:
    """A value as YAML would write it, shortened."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _override(text: str, reading: _Reading) -> None:
    name, equals, written = text.partition("=")
    path = name.strip().replace("-", "_")
    if not equals or not path:
        reading.problems.append(Problem(f"--set {text}", "write --set KEY=VALUE"))
        return
    try:
        value = parse_value(written)
    except yaml.YAMLError:
        reading.problems.append(Problem(f"--set {name}", f"{written} is not a YAML value"))
        return
    key, *nested = path.split(".")
    key = legacy.RENAMED.get(key, key)
    if not nested and key in legacy.MOVED:  # as a key of its own it would yield to the block in a file
        key, *nested = legacy.MOVED[key]
    if nested:
        value = _nest(reading.keys.get(key), nested, value)
    _put(reading, key, value, {key: "--set"})
    if key == "precision":
        _switch_off_other_blocks(reading, str(value))


def _switch_off_other_blocks(reading: _Reading, precision: str) -> None:
    """Let `--set precision=...` win over a file's block of another number format."""
    for block in {"fp16", "bf16"} - {precision}:
        given = reading.keys.get(block)
        if isinstance(given, dict):
            reading.keys[block] = {
                **given,
                "enabled": False,
                **({"fp16": False} if given.get("fp16") else {}),
            }


def _nest(block: Any, path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of `block` with the value at `path` replaced."""
    block = dict(block) if isinstance(block, dict) else ({"type": block} if isinstance(block, str) else {})
    first, *rest = path
    # An optimizer's options stand below "params"; `--set optimizer.lr=` means that one.
    if not rest and isinstance(block.get("params"), dict) and first != "type":
        block["params"] = {**block["params"], first: value}
    else:
        block[first] = _nest(block.get(first), rest, value) if rest else value
    return block


# --- translating and judging --------------------------------------------------------------------------------


def _translate(reading: _Reading) -> None:
    # GPT-NeoX writes null for "not given".
    for key in [key for key, value in reading.keys.items() if value is None]:
        del reading.keys[key]
    notes: list[str] = []
    for new, old in legacy.rewrite(reading.keys, notes).items():
        reading.places.setdefault(new, reading.places.get(old, ""))
    for note in notes:
        where = reading.place(note.partition(" ")[0])
        reading.notes.append(f"{where}: {note}" if where else note)


def _judge_foreign(reading: _Reading) -> None:
    """Take out what is not ours: with a note, or as a problem."""
    known = section_of()
    for key in list(reading.keys):
        value = reading.keys[key]
        if key in known:
            if reason := foreign.refused_value(key, value):
                reading.refuse(key, f"{key}: {reason}")
            if note := foreign.idle(key, value):
                reading.notes.append(f"{reading.place(key)}: {note}")
            continue
        del reading.keys[key]
        where = reading.place(key)
        if not foreign.is_foreign(key):
            suggestion = did_you_mean(key, [*known, *legacy.RENAMED])
            reading.problems.append(Problem(where, f"unknown key {key}{suggestion}"))
            continue
        try:
            if note := foreign.judge(key, value):
                reading.notes.append(f"{where}: {note}")
        except ConfigError as error:
            reading.problems += [Problem(where, problem.message) for problem in error.problems]


# --- building -----------------------------------------------------------------------------------------------


def _build(reading: _Reading) -> Config:
    """The config of all keys that are right; what is wrong becomes problems.

    A key that is missing or wrong is filled with a stand-in, so that the rest can still be checked.
    """
    keys = dict(reading.keys)
    for key in [key for key in keys if key in reading.bad_keys]:
        del keys[key]
    while True:
        try:
            config = Config.from_flat(keys)
            break
        except ValidationError as error:
            # Each round takes out, or fills in, the keys it names; so this ends.
            for fault in error.errors(include_url=False):
                _fault(fault, keys, reading)
    _refuse_booleans(config, keys, reading)
    return config


def _fault(fault: Any, keys: dict[str, Any], reading: _Reading) -> None:
    path = [str(part) for part in fault["loc"][1:]]
    key = path[0]
    if fault["type"] == "missing" and len(path) == 1:
        if key not in reading.bad_keys:
            reading.absent.append(key)
        reading.bad_keys.add(key)
        keys[key] = 1
        return
    reading.refuse(".".join(path), f"{_dotted(path)}: {_in_words(fault)}")
    keys.pop(key, None)
    if key in MODEL_SIZES:
        keys[key] = 1


def _dotted(path: Sequence[str]) -> str:
    return ".".join(path)


def _in_words(fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if fault["type"] == "extra_forbidden":
        siblings = _siblings([str(part) for part in fault["loc"]])
        return f"unknown key{did_you_mean(str(fault['loc'][-1]), siblings)}"
    given = fault.get("input")
    if isinstance(given, str | int | float):
        message += f", not {_say(given)}"
    return (
        f"{message}; write [{given}]" if fault["type"] == "list_type" and isinstance(given, str) else message
    )


def _siblings(path: Sequence[str]) -> list[str]:
    """The keys that the block named by `path[:-1]` has."""
    block: Any = Config
    for name in path[:-1]:
        described = getattr(block, "model_fields", {}).get(name)
        block = described.annotation if described is not None else None
    return list(getattr(block, "model_fields", {}))


def _refuse_booleans(config: Config, keys: dict[str, Any], reading: _Reading) -> None:
    """`true` for a number: pydantic would read it as 1."""
    owner = section_of()
    for key, value in keys.items():
        if isinstance(value, bool) and key not in reading.bad_keys:
            read = getattr(getattr(config, owner[key]), key)
            if not isinstance(read, bool):
                reading.refuse(key, f"{key}: input should be a number, not {_say(value)}")


def _check(config: Config, reading: _Reading, require: Iterable[str]) -> None:
    """Add the problems across keys; those about a key that is wrong by itself stay unsaid."""
    for check in (checks.missing(config, require), checks.conflicts(config), parts.unknown_parts(config)):
        reading.problems += [
            found.placed(reading.places)
            for found in check
            if not reading.bad_keys.intersection(key.partition(".")[0] for key in found.keys)
        ]


def _in_order(problems: Sequence[Problem], entries: Sequence[Entry]) -> list[Problem]:
    """Problems in the order of the files and their lines; those of no place last."""
    files = list(dict.fromkeys(entry.where.rpartition(":")[0] for entry in entries))

    def position(problem: Problem) -> tuple[int, int]:
        file, _, line = problem.where.rpartition(":")
        return (files.index(file), int(line)) if file in files and line.isdigit() else (len(files), 0)

    return sorted(dict.fromkeys(problems), key=position)
