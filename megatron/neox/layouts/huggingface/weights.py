"""The tensors of a folder that save_pretrained wrote, by name: safetensors or .bin, one file or several.

Files are mapped into memory: a tensor costs memory when it is used.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.torch_files import check_weight, read_file

_SINGLE = ("model.safetensors", "pytorch_model.bin")


class WeightFiles:
    """Named tensors in files.

    Args:
        folder: holds model.safetensors, pytorch_model.bin, or the index of several such files.

    Raises:
        CheckpointError: there are none, one is missing or damaged, or an index does not match its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = _files_of(folder)
        self._file_of: dict[str, _File] = {}
        for path in self.files:
            file = _SafeTensors(path) if path.suffix == ".safetensors" else _Pickled(path)
            self._file_of |= dict.fromkeys(file.names, file)

    @property
    def format(self) -> str:
        """What the files are, for people."""
        name = "safetensors" if self.files[0].suffix == ".safetensors" else ".bin"
        return f"{len(self.files)} {name} file{'s' if len(self.files) > 1 else ''}"

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, which is not read."""
        return self._file_of[name].shape(name)

    def tensor(self, name: str) -> Tensor:
        """A tensor as it is stored.

        Raises:
            CheckpointError: it is none that a layer can compute with.
        """
        tensor = self._file_of[name].tensor(name)
        check_weight(self.folder, name, tensor)
        return tensor


class _SafeTensors:
    def __init__(self, path: Path) -> None:
        try:
            self._open = safe_open(path, "pt")
            self.names = list(self._open.keys())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); take a fresh copy") from error

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._open.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        return self._open.get_tensor(name)


class _Pickled:
    def __init__(self, path: Path) -> None:
        self._tensors = _load(path)
        self.names = list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]


_File = _SafeTensors | _Pickled


def _load(path: Path) -> dict[str, Tensor]:
    """The tensors of a .bin file; nothing in it is run."""
    content = read_file(path)
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        raise CheckpointError(f"{path} holds something else than named tensors; give the file of a model")
    return content


def _files_of(folder: Path) -> list[Path]:
    for name in _SINGLE:
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _indexed(index)
        if (folder / name).is_file():
            return [folder / name]
    raise CheckpointError(
        f"{folder} holds no weights: neither {' nor '.join(_SINGLE)} nor an index of several such files"
    )


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise CheckpointError(f"{index} is damaged ({error}); take a fresh copy") from error
    foreign = [name for name in names if Path(name).name != name]
    missing = [name for name in names if name not in foreign and not (index.parent / name).is_file()]
    if not names or foreign or missing:
        reasons = [
            *(f"  {name} is missing" for name in missing),
            *(f"  {name} is outside" for name in foreign),
        ]
        raise CheckpointError("\n".join([f"{index} names files that are not all there", *reasons]))
    return [index.parent / name for name in names]
