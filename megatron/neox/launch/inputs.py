"""Looks, before any process starts, whether the files that a config names are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megatron.neox.config import Config
from megatron.neox.errors import CheckpointError, InputError


def check_inputs(script: str, config: Config, places: Mapping[str, str]) -> None:
    """Refuse files that are absent, all at once.

    Args:
        places: file:line of each key.

    Raises:
        InputError: datasets or vocabulary files are absent.
        CheckpointError: `load` is absent, where it must be there.
    """
    if config.has_no_model:
        return
    problems = [] if script not in ("train.py", "generate.py", "evaluate.py") else [*_vocabulary(config)]
    if script == "train.py":
        problems += _datasets(config)
    if problems:
        raise InputError(
            "\n".join(f"{places[key]}: {said}" if places.get(key) else said for key, said in problems)
        )
    if script in ("generate.py", "evaluate.py") and not Path(config.checkpoint.load or "").is_dir():
        raise CheckpointError(
            f"load: there is no folder {config.checkpoint.load}; it is where a training run's `save` pointed"
        )


def _vocabulary(config: Config) -> list[tuple[str, str]]:
    section = config.tokenizer
    return [
        (key, f"{key}: no file {name}; {_vocabulary_remedy(Path(name))}, or give the path of yours")
        for key, name in (("vocab_file", section.vocab_file), ("merge_file", section.merge_file))
        if name is not None and not Path(name).exists()
    ]


def _vocabulary_remedy(path: Path) -> str:
    from megatron.neox.tokenizers.vocabulary_files import POLYCODER_FILES  # slow, and needed only here

    if path.name in POLYCODER_FILES:
        return f"tools/download_checkpoint.py vocab --output {path.parent} fetches PolyCoder's"
    return "tools/train_tokenizer.py makes a vocabulary"


def _datasets(config: Config) -> list[tuple[str, str]]:
    data = config.data
    named = {
        "data_path": [data.data_path] if data.data_path else [],
        "train_data_paths": data.train_data_paths,
        "valid_data_paths": data.valid_data_paths,
        "test_data_paths": data.test_data_paths,
    }
    return [
        (
            key,
            f"{key}: no dataset {prefix} (there is no {prefix}{suffix}); tools/preprocess_data.py makes one, or "
            "give the prefix of yours, without .bin and .idx",
        )
        for key, prefixes in named.items()
        for prefix in prefixes
        if not (prefix.startswith("stream:") or Path(prefix).is_dir())  # of samples of a fixed length
        for suffix in (".idx", ".bin")
        if not Path(prefix + suffix).is_file() and (suffix == ".idx" or Path(prefix + ".idx").is_file())
    ]
