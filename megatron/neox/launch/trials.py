"""Which of many config files load here, and why the others do not: a first look when moving from GPT-NeoX."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron.neox.config.config import MODEL_SIZES
from megatron.neox.config.load import load_config
from megatron.neox.config.source import read_entries
from megatron.neox.errors import ConfigError, InputError, UserError
from megatron.neox.launch.show import show_config


@dataclass(frozen=True)
class Trial:
    """What `./deepy.py config FILE` says of one file, in short."""

    file: str
    loads: bool
    reasons: tuple[str, ...]  # why it is refused, one for each feature; empty where it loads
    notes: tuple[str, ...]  # what is translated or has no effect
    is_completed: bool  # whether the sizes of the model came from elsewhere

    @property
    def outcome(self) -> str:
        """One line."""
        if not self.loads:
            return "refused: " + "; ".join(self.reasons)
        word = "loads with a model's sizes" if self.is_completed else "loads"
        return f"{word}, {len(self.notes)} note{'s' * (len(self.notes) != 1)}" if self.notes else word

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def find_configs(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Files, and the .yml, .yaml and .json files below folders, each with the name that it is shown by.

    Raises:
        InputError: a path does not exist, or a folder has no configs.
    """
    for path in paths:
        if path.is_dir():
            found = sorted(
                file
                for file in path.rglob("*")
                if file.suffix in (".yml", ".yaml", ".json")
                and file.is_file()
                and not file.name.endswith(".schema.json")
            )
            if not found:
                raise InputError(f"{path} holds no .yml, .yaml or .json file")
            yield from ((file, str(file.relative_to(path))) for file in found)
        elif path.is_file():
            yield path, str(path)
        else:
            raise InputError(f"no file or folder {path}")


def try_config(path: Path, *, shown: str, defaults: Sequence[Path] = ()) -> Trial:
    """Load one file and compute all that `./deepy.py config` prints of it.

    Args:
        shown: what the trial calls the file.
        defaults: files that complete `path` where it does not give the sizes of a model, and is but part of a config.
    """
    is_part = False
    try:
        is_part = not {entry.key for entry in read_entries(path)}.issuperset(MODEL_SIZES)
        loaded = load_config([path], defaults=defaults if is_part else ())
        with contextlib.redirect_stdout(io.StringIO()):
            show_config(loaded)
    except ConfigError as error:
        return Trial(shown, False, _by_feature(error), (), is_part)
    except UserError as error:
        return Trial(shown, False, (str(error),), (), is_part)
    return Trial(shown, True, (), tuple(loaded.notes), is_part)


def _by_feature(error: ConfigError) -> tuple[str, ...]:
    """The problems without their places; keys that are refused for the same reason together."""
    keys_of: dict[str, list[str]] = {}
    for problem in error.problems:
        first_line = re.sub(r" \(\w+: [^()]*:\d+\)", "", problem.message.splitlines()[0])  # other places
        key, separator, reason = first_line.partition(": ")
        if not separator or not re.fullmatch(r"[\w.]+", key):
            key, reason = "", first_line
        keys_of.setdefault(reason, []).append(key)
    return tuple(f"{_list(keys)}: {reason}" if keys[0] else reason for reason, keys in keys_of.items())


def _list(keys: Sequence[str]) -> str:
    return ", ".join(keys) if len(keys) <= 3 else f"{', '.join(keys[:2])} and {len(keys) - 2} more"


def markdown_table(trials: Sequence[Trial]) -> str:
    """A table of all the files."""
    rows = [f"| {trial.file} | {trial.outcome.replace('|', chr(92) + '|')} |" for trial in trials]
    return "\n".join(["| config | outcome |", "|---|---|", *rows])
