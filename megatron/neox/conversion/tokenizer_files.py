"""The files of a tokenizer, copied to lie with the model they belong to."""

from __future__ import annotations

import shutil
from pathlib import Path

from megatron.neox.config import TokenizerConfig


def copy_tokenizer(section: TokenizerConfig, folder: Path) -> TokenizerConfig:
    """The tokenizer with copies of its files in the folder, which is made if there are any."""
    for path in _files(section).values():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / Path(path).name)
    return tokenizer_in(section, folder)


def tokenizer_in(section: TokenizerConfig, folder: Path) -> TokenizerConfig:
    """The tokenizer with its files, by their names, in another folder."""
    return section.model_copy(
        update={key: str(folder / Path(path).name) for key, path in _files(section).items()}
    )


def _files(section: TokenizerConfig) -> dict[str, str]:
    """Paths by key."""
    paths = {"vocab_file": section.vocab_file, "merge_file": section.merge_file}
    return {key: path for key, path in paths.items() if path is not None}
