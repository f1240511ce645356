"""What a checkpoint or a model file holds, found without building a model.

Tensors are read one by one from mapped files, and what is damaged is told of, file by file, instead of ending the
inspection.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megatron.neox.errors import CheckpointError, InputError
from megatron.neox.layouts import neox
from megatron.neox.layouts.gguf.file import GGUFFile
from megatron.neox.layouts.huggingface.weights import WeightFiles
from megatron.neox.layouts.manifest import NAME, Manifest
from megatron.neox.layouts.torch_files import read_file
from megatron.neox.layouts.upstream import UpstreamCheckpoint

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "tokenizer_config.json")


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as it is stored: of a split layer, each rank's share is one."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def num_values(self) -> int:
        """Elements."""
        return torch.Size(self.shape).numel()


@dataclass
class Inspection:
    """All that was found.

    Args:
        layout: what the files are, for people.
        step: training step; none where the format does not tell.
        facts: further findings by name, in order: text, numbers, lists.
        config: keys that describe the model, in the words of whoever wrote it.
        tokenizer: its fingerprint, or the files and keys that hold it.
        integrity: what was compared.
        damage: what is wrong, one line each; nothing where all is well.
    """

    path: Path
    layout: str = "unknown"
    step: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    plugins: list[str] = field(default_factory=list)
    tensors: list[TensorRecord] = field(default_factory=list)
    integrity: str = "nothing was compared"
    damage: list[str] = field(default_factory=list)

    def as_dict(self, *, tensors: bool) -> dict[str, Any]:
        """For JSON; `tensors` adds the list of them."""
        made = {
            "path": str(self.path), "layout": self.layout, "step": self.step, **self.facts,
            "num_tensors": len(self.tensors), "num_values": sum(t.num_values for t in self.tensors),
            "num_bytes": sum(t.num_bytes for t in self.tensors),
            "dtypes": dict(Counter(t.dtype for t in self.tensors)),
            "config": self.config, "tokenizer": self.tokenizer, "plugins": self.plugins,
            "integrity": self.integrity, "damage": self.damage,
        }  # fmt: skip
        return made | (
            {"tensors": [vars(t) | {"shape": list(t.shape)} for t in self.tensors]} if tensors else {}
        )

    def lines(self, *, tensors: bool) -> Iterator[str]:
        """For people; `tensors` adds a line for each of them."""
        size = sum(t.num_bytes for t in self.tensors)
        types = ", ".join(
            f"{dtype} ({n})" for dtype, n in Counter(t.dtype for t in self.tensors).most_common()
        )
        yield str(self.path)
        rows: dict[str, Any] = {"layout": self.layout, "step": self.step, **self.facts}
        rows["tensors"] = (
            f"{len(self.tensors)}, {sum(t.num_values for t in self.tensors):,} values, {size:,} bytes"
        )
        rows["types"] = types or None
        rows["config"] = ", ".join(f"{key}: {value}" for key, value in self.config.items()) or None
        rows["tokenizer"] = ", ".join(f"{key}: {value}" for key, value in self.tokenizer.items()) or None
        rows["plugins"] = ", ".join(self.plugins) or None
        rows["integrity"] = self.integrity
        for name, value in rows.items():
            if value is not None and value != []:
                shown = ", ".join(map(str, value)) if isinstance(value, list) else value
                yield f"  {name:<12} {shown}"
        for line in self.damage:
            yield f"  damage       {line}"
        if tensors:
            for t in self.tensors:
                yield f"  {t.file:<40} {t.name:<44} {t.dtype:<9} {list(t.shape)!s:<16} {t.num_bytes:>14,}"


def inspect_model(path: Path, *, iteration: int | None = None, verify: bool = False) -> Inspection:
    """Look at a folder of checkpoints, a step's folder, a Hugging Face folder, or a file of weights.

    Args:
        iteration: step to look at, of a folder of checkpoints; none means what `latest` names, or the newest.
        verify: read every byte: compare checksums where there are any, and look for values that are not finite.

    Raises:
        InputError: there is nothing of a known kind.
        CheckpointError: the step is not there.
        DependencyError: a package that reads the format is not installed.
    """
    if iteration is not None and not (path.is_dir() and neox.steps_in(path)):
        raise InputError(f"--iteration: {path} is no folder of checkpoints (global_stepN)")
    if path.is_dir():
        found = _folder(path, iteration, verify)
    elif path.is_file():
        found = _file(path, verify)
    else:
        raise InputError(f"no file or folder {path}")
    found.damage = list(dict.fromkeys(found.damage))
    return found


def _folder(path: Path, iteration: int | None, verify: bool) -> Inspection:
    if neox.step_of(path.name) is not None or neox.holds_weights(path):
        return _step(path, verify)
    if steps := neox.steps_in(path):
        return _checkpoints(path, steps, iteration, verify)
    if (path / "model.bin").is_file():
        return _ctranslate2(path)
    if (path / "config.json").is_file() or any(path.glob("*.safetensors")):
        return _hugging_face(path, verify)
    halves = ", ".join(sorted(half.name for half in path.glob("global_step*.tmp")))
    raise InputError(
        f"{path} holds no global_stepN folder, no layer files, no config.json and no .safetensors"
        + (f", but what a killed run left behind: {halves}" if halves else "")
    )


def _file(path: Path, verify: bool) -> Inspection:
    found = Inspection(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF" or path.suffix == ".gguf":
        _gguf(found, verify)
    elif path.suffix == ".safetensors":
        found.layout = "safetensors file"
        _add(found, path.name, lambda: _safetensors(path), verify)
        found.integrity = _told(verify, "its header fits its size")
    else:
        found.layout = "file of torch.save"
        _add(found, path.name, lambda: _tensors_in(read_file(path, random_state=True)), verify)
        found.integrity = _archives(found, [path], verify)
    return found


# --- folders of checkpoints ---------------------------------------------------------------------------------


def _checkpoints(path: Path, steps: dict[int, Path], iteration: int | None, verify: bool) -> Inspection:
    """The step that is asked for, that `latest` names, or the newest."""
    listed = ", ".join(map(str, sorted(steps)))
    if iteration is not None and iteration not in steps:
        raise CheckpointError(f"{path} holds no step {iteration}; it holds {listed}")
    latest, problem = _latest(path)
    named = neox.step_of(latest) if latest else None
    if problem is None and latest is not None and named not in steps:
        problem = f"{path / neox.LATEST} names {latest}, which is missing"
    chosen = iteration if iteration is not None else named if named in steps else max(steps)
    found = _step(steps[chosen], verify)
    found.facts = {"steps": sorted(steps), "latest": latest or "absent", **found.facts}
    if problem is not None:
        found.damage.insert(0, problem)
    return found


def _latest(path: Path) -> tuple[str | None, str | None]:
    """What `latest` says, and what is wrong with it."""
    file = path / neox.LATEST
    if not file.is_file():
        return None, None
    try:
        return file.read_text(encoding="utf-8").strip(), None
    except (UnicodeDecodeError, OSError) as error:
        return None, f"{file} cannot be read ({error})"


def _step(path: Path, verify: bool) -> Inspection:
    found = Inspection(path, step=neox.step_of(path.name))
    checkpoint = UpstreamCheckpoint(path, sums_biases=False)
    numbers: list[int] = []
    try:
        numbers = checkpoint.layer_numbers()
    except CheckpointError as error:
        found.damage.append(str(error))
    ranks = neox.rank_files(path) if checkpoint.is_sequential else _layer_ranks(path)
    form = "one file a rank" if checkpoint.is_sequential else "layer files"
    for number in numbers:
        for rank in ranks:
            label = f"{number}/" if checkpoint.is_sequential else ""
            name = f"{label}{checkpoint.path(number, rank).name}"
            _add(found, name, lambda n=number, r=rank: checkpoint.read_raw(n, r), verify)
    found.facts["tensor ranks"] = len(ranks)
    found.facts["layers"] = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
    if (path / NAME).is_file():
        found.layout = f"checkpoint of this toolkit, {form}"
        _ours(found, verify)
    else:
        found.layout = f"GPT-NeoX checkpoint, {form}"
        _upstream(found, checkpoint, numbers, ranks, verify)
    return found


def _layer_ranks(path: Path) -> list[int]:
    return sorted(
        {int(file.name.split("-model_")[1][:2]) for file in path.glob("layer_*-model_*-model_states.pt")}
    )


def _ours(found: Inspection, verify: bool) -> None:
    try:
        manifest = Manifest.read(found.path)
    except CheckpointError as error:
        found.damage.append(str(error))
        return
    optimizer = manifest.optimizer
    state = sum(record.size for name, record in manifest.files.items() if "optim_states" in name)
    found.facts["precision"] = manifest.precision
    found.facts["written by"] = ", ".join(f"{key} {value}" for key, value in manifest.layout.items())
    found.facts["optimizer"] = f"{optimizer.get('name')}, {state:,} bytes" if optimizer else "not saved"
    found.config, found.tokenizer, found.plugins = manifest.architecture, manifest.tokenizer, manifest.plugins
    if verify:
        found.damage += manifest.damage(found.path)
        found.integrity = f"checksums of {len(manifest.files)} files compared, values looked at"
        return
    found.integrity = f"sizes of {len(manifest.files)} files compared; --verify reads them"
    for name, record in sorted(manifest.files.items()):
        file = found.path / name
        size = file.stat().st_size if file.is_file() else None
        if size != record.size:
            told = "is missing" if size is None else f"has {size} bytes instead of {record.size}"
            found.damage.append(f"{name} {told}")


def _upstream(
    found: Inspection, checkpoint: UpstreamCheckpoint, numbers: list[int], ranks: list[int], verify: bool
) -> None:
    if not checkpoint.is_sequential:
        found.damage += _missing_layers(numbers, ranks)
        missing = [checkpoint.path(n, r) for n in numbers for r in ranks]
        found.damage += [f"{path.name} is missing" for path in missing if not path.is_file()]
    rank_file = found.path / neox.rank_file(0)
    if rank_file.is_file():
        try:
            content = read_file(rank_file, random_state=True)
            found.config |= {
                k: v for k, v in (content.get("args") or {}).items() if not isinstance(v, Tensor)
            }
            found.facts |= {
                k: content[k] for k in ("iteration", "dp_world_size", "mp_world_size") if k in content
            }
        except (CheckpointError, AttributeError) as error:
            found.facts["training state"] = f"not read: {error}"
    configs = [*found.path.glob("configs/*.yml"), *found.path.parent.glob("configs/*.yml")]
    found.facts["configs"] = [str(config.relative_to(found.path.parent)) for config in sorted(configs)]
    files = sorted(found.path.glob("*.pt"))
    found.integrity = _archives(found, files, verify)


def _missing_layers(numbers: list[int], ranks: list[int]) -> list[str]:
    """Gaps in the numbers; 1 never has a file, nor the function between the layers and the last norm."""
    if len(numbers) < 3:
        return ["it does not hold the layers of a whole model"]
    function = numbers[-1] - (2 if numbers[-1] - numbers[-2] == 1 else 1)
    gaps = sorted(set(range(numbers[-1])) - set(numbers) - {1, function})
    return [f"{neox.weights_file(number, ranks[0])} is missing" for number in gaps]


# --- other formats ------------------------------------------------------------------------------------------


def _settings(found: Inspection) -> None:
    """Take config.json over, and try to read the other settings."""
    if not (found.path / "config.json").is_file():
        found.damage.append("config.json is missing")
    for file in sorted(found.path.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError, RecursionError) as error:
            found.damage.append(f"{file.name} cannot be read ({error})")
            continue
        if file.name == "config.json" and isinstance(content, dict):
            found.config = content


def _ctranslate2(path: Path) -> Inspection:
    found = Inspection(
        path, layout="CTranslate2 folder", integrity="not compared: model.bin is not read here"
    )
    found.facts["model.bin"] = f"{(path / 'model.bin').stat().st_size:,} bytes"
    _settings(found)
    found.tokenizer = _tokenizer_files(path, (*_TOKENIZER_FILES, "vocabulary.json", "vocabulary.txt"))
    return found


def _tokenizer_files(path: Path, names: tuple[str, ...]) -> dict[str, str]:
    return {name: f"{(path / name).stat().st_size} bytes" for name in names if (path / name).is_file()}


def _hugging_face(path: Path, verify: bool) -> Inspection:
    found = Inspection(path)
    _settings(found)
    found.layout = f"Hugging Face folder of a {found.config.get('model_type', 'model of no named type')}"
    try:
        WeightFiles(path)
    except CheckpointError as error:
        found.damage.append(str(error))
    for file in sorted(path.glob("*.safetensors")):
        _add(found, file.name, lambda file=file: _safetensors(file), verify)
    pickled = sorted(path.glob("pytorch_model*.bin"))
    for file in pickled:
        _add(found, file.name, lambda file=file: _tensors_in(read_file(file)), verify)
    found.tokenizer = _tokenizer_files(path, _TOKENIZER_FILES)
    found.integrity = (
        _archives(found, pickled, verify) if pickled else _told(verify, "headers fit the files' sizes")
    )
    return found


def _gguf(found: Inspection, verify: bool) -> None:
    found.layout, found.integrity = "GGUF file", _told(verify, "its header fits its size")
    try:
        file = GGUFFile.open(found.path)
    except CheckpointError as error:
        found.damage.append(str(error))
        return
    for key, stored in file.reader.fields.items():
        try:
            value = stored.contents()
        except (ValueError, LookupError) as error:
            found.damage.append(f"the key {key} cannot be read ({error})")
            continue
        if key.startswith("tokenizer."):
            found.tokenizer[key] = f"{len(value)} entries" if isinstance(value, list) else str(value)[:60]
        elif not key.startswith("GGUF."):
            found.config[key] = value if not isinstance(value, str) else value[:120]
    for name, stored in file.tensors.items():
        record = TensorRecord(
            found.path.name, name, stored.tensor_type.name, file.shape(name), int(stored.n_bytes)
        )
        found.tensors.append(record)
        if verify:
            tensor = file.tensor(name)
            if tensor is not None and not torch.isfinite(tensor).all():
                found.damage.append(f"{name} holds values that are not finite")


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); take a fresh copy") from error


def _tensors_in(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors in nested dictionaries, by dotted names."""
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict):
            yield from _tensors_in(value, f"{prefix}{name}.")


# --- integrity ----------------------------------------------------------------------------------------------


def _add(
    found: Inspection,
    file: str,
    read: Callable[[], dict[str, Tensor] | Iterator[tuple[str, Tensor]]],
    verify: bool,
) -> None:
    """Note the tensors of a file, and with `verify` look at their values."""
    try:
        content = read()
        for name, tensor in content.items() if isinstance(content, dict) else content:
            dtype = str(tensor.dtype).removeprefix("torch.")
            found.tensors.append(TensorRecord(file, name, dtype, tuple(tensor.shape), tensor.nbytes))
            if verify and tensor.is_floating_point() and not torch.isfinite(tensor).all():
                found.damage.append(f"{file}: {name} holds values that are not finite")
    except CheckpointError as error:
        found.damage.append(str(error))


def _told(verify: bool, compared: str) -> str:
    return f"{compared}; the format has no checksums" + (
        ", values looked at" if verify else "; --verify looks at values"
    )


def _archives(found: Inspection, files: list[Path], verify: bool) -> str:
    """Check the archives of torch.save by the checksums that they hold of themselves."""
    if not verify:
        return f"{len(files)} file{'s' * (len(files) != 1)} opened; --verify reads all of them"
    num_checked = 0
    for path in files:
        if not zipfile.is_zipfile(path):
            continue
        num_checked += 1
        try:
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
            bad = str(error)
        if bad:
            found.damage.append(f"{path.name} is damaged ({bad} has other content than was written)")
    told = f"checksums of {num_checked} of {len(files)} files compared, values looked at"
    return told if num_checked == len(files) else f"{told}; the others have none"
