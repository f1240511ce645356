"""Folders of checkpoints and steps of them, of this toolkit and of GPT-NeoX."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from megatron.neox.errors import CheckpointError
from megatron.neox.layouts import neox
from megatron.neox.layouts.inspection.report import Inspection, add_tensors, compare_archives
from megatron.neox.layouts.manifest import NAME, Manifest
from megatron.neox.layouts.torch_files import read_file
from megatron.neox.layouts.upstream import UpstreamCheckpoint


def inspect_checkpoints(
    path: Path, steps: dict[int, Path], iteration: int | None, verify: bool
) -> Inspection:
    """The step that is asked for, that `latest` names, or the newest."""
    listed = ", ".join(map(str, sorted(steps)))
    if iteration is not None and iteration not in steps:
        raise CheckpointError(f"{path} holds no step {iteration}; it holds {listed}")
    latest, problem = _latest(path)
    named = neox.step_of(latest) if latest else None
    if problem is None and latest is not None and named not in steps:
        problem = f"{path / neox.LATEST} names {latest}, which is missing"
    chosen = iteration if iteration is not None else named if named in steps else max(steps)
    found = inspect_step(steps[chosen], verify)
    found.facts = {"steps": sorted(steps), "latest": latest or "absent", **found.facts}
    if problem is not None:
        found.damage.insert(0, problem)
    return found


def _latest(path: Path) -> tuple[str | None, str | None]:
    """What `latest` says, and what is wrong with it."""
    file = path / neox.LATEST
    try:
        return file.read_text(encoding="utf-8").strip(), None
    except FileNotFoundError:
        return None, None
    except (UnicodeDecodeError, OSError) as error:
        return None, f"{file} cannot be read ({error})"


def inspect_step(path: Path, verify: bool) -> Inspection:
    """A global_stepN folder, of this toolkit if it has a manifest."""
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
            add_tensors(found, name, lambda n=number, r=rank: checkpoint.read_raw(n, r), verify)
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
    found.integrity = compare_archives(found, files, verify)


def _missing_layers(numbers: list[int], ranks: list[int]) -> list[str]:
    """Gaps in the numbers; 1 never has a file, nor the function between the layers and the last norm."""
    if len(numbers) < 3:
        return ["it does not hold the layers of a whole model"]
    function = numbers[-1] - (2 if numbers[-1] - numbers[-2] == 1 else 1)
    gaps = sorted(set(range(numbers[-1])) - set(numbers) - {1, function})
    return [f"{neox.weights_file(number, ranks[0])} is missing" for number in gaps]
