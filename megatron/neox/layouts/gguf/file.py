"""A GGUF file opened for reading, every number in it checked before it is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.inference_engines import import_package

# What the package's reader raises on files that are not whole.
_DAMAGE = (ValueError, LookupError, TypeError, ArithmeticError, MemoryError, RecursionError, OSError)

_TORCH_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class GGUFFile:
    """Keys and tensors of a GGUF file, which is mapped into memory."""

    path: Path
    reader: Any
    tensors: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> GGUFFile:
        """Read everything but the weights.

        Raises:
            CheckpointError: the file is absent, truncated, damaged, or one of several.
            DependencyError: the package gguf is not installed.
        """
        gguf = import_package("gguf")
        try:
            reader = _checked_reader(gguf)(path, "c")  # private pages: torch takes writable memory only
        except _DAMAGE as error:
            raise CheckpointError(f"{path} is not a whole GGUF file ({error}); take a fresh copy") from error
        if reader.byte_order == "S":
            raise CheckpointError(
                f"{path} is a GGUF of the other byte order; convert it with gguf-convert-endian"
            )
        file = cls(path, reader, {tensor.name: tensor for tensor in reader.tensors})
        if (file.number(gguf.Keys.Split.LLM_KV_SPLIT_COUNT) or 1) > 1:
            raise CheckpointError(f"{path} is one of several; join them with `llama-gguf-split --merge`")
        return file

    def text(self, key: str) -> str | None:
        """The value of a key of text."""
        return self._value(key, str)

    def number(self, key: str) -> float | None:
        """The value of a key of a number or of yes and no."""
        return self._value(key, (int, float))

    def values(self, key: str) -> Sequence[Any]:
        """The values of a key of a list; empty where there is no such key."""
        return self._value(key, list) or []

    def _value(self, key: str, kind: Any) -> Any:
        field = self.reader.get_field(key)
        if field is None:
            return None
        value = self.contents(field)
        if not isinstance(value, kind):
            raise CheckpointError(f"{self.path}: {key} is {str(value)[:60]!r}, which is no value for it")
        return value

    def contents(self, field: Any) -> Any:
        """The value of one of the reader's fields."""
        try:
            return field.contents()
        except UnicodeDecodeError as error:
            raise CheckpointError(
                f"{self.path}: {field.name} is no text ({error}); take a fresh copy"
            ) from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor as torch counts it."""
        return tuple(int(size) for size in reversed(self.tensors[name].shape.tolist()))

    def tensor(self, name: str) -> Tensor | None:
        """A tensor, none where there is none of that name; quantised ones as fp32.

        Raises:
            CheckpointError: its type cannot be dequantised.
        """
        stored = self.tensors.get(name)
        if stored is None:
            return None
        kind = stored.tensor_type.name
        if kind in _TORCH_TYPES:
            return torch.from_numpy(stored.data).view(_TORCH_TYPES[kind]).view(self.shape(name))
        gguf = import_package("gguf")
        try:
            return torch.from_numpy(gguf.quants.dequantize(stored.data, stored.tensor_type))
        except NotImplementedError:
            raise CheckpointError(f"{self.path}: {name} is of type {kind}, which is not read") from None


def _checked_reader(gguf: Any) -> Any:
    """The package's reader, which takes a file that ends early for one with empty values."""

    class CheckedReader(gguf.GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            values = super()._get(offset, dtype, count, override_order)
            if values.size != int(count):
                raise ValueError(f"it ends at byte {len(self.data)}, inside a value at byte {offset}")
            return values

    return CheckedReader
