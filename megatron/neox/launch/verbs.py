"""What deepy can be asked: start a script, show a config, list the plugins."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from megatron.neox.config import Config, legacy
from megatron.neox.config.batch import resolve
from megatron.neox.config.config import section_of
from megatron.neox.config.load import LoadedConfig, find_config, installed_folder, load_config
from megatron.neox.config.source import Entry, parse_value, read_entries
from megatron.neox.errors import ConfigError, InputError, UserError, did_you_mean
from megatron.neox.launch.arguments import Start, door_parser, parser, read
from megatron.neox.launch.door import CONFIG_ARGUMENT, encode
from megatron.neox.launch.inputs import check_inputs
from megatron.neox.launch.plan import make_plan
from megatron.neox.launch.show import show_config, show_plugins
from megatron.neox.launch.snapshots import newest_run, snapshot_of
from megatron.neox.launch.start import start

_REQUIRED = {
    "train.py": ("training", "data"),
    "generate.py": ("checkpoint",),
    "evaluate.py": ("evaluation", "checkpoint"),
}
INFERENCE = ("generate.py", "evaluate.py")
"""Doors that read a checkpoint and need no pipeline."""
# The name that GPT-NeoX gave its evaluate.py after PolyCoder's fork; a script of that name comes first.
_RENAMED = {"eval.py": "evaluate.py"}


def dispatch(arguments: list[str], *, program: str) -> int:
    """Do what a command line asks; returns the exit code.

    Raises:
        UserError: it cannot be done.
    """
    script = program.removeprefix("./")
    asked = (
        read(door_parser(script), arguments[1:], script)
        if script in _REQUIRED
        else read(parser(program), arguments)
    )
    verbs: dict[str, Callable[[Start], int]] = {"config": _config, "plugins": _plugins}
    return verbs.get(asked.script, _start)(asked)


def parse_start(arguments: list[str]) -> Start:
    """The command line of a door, its script's name first."""
    script, *rest = arguments
    return read(door_parser(script), rest, script)


def _config(asked: Start) -> int:
    if not asked.conf_files:
        raise InputError("config needs a config file: ./deepy.py config configs/2-7B.yml")
    loaded = load_config(asked.conf_files, conf_dir=asked.conf_dir, overrides=asked.overrides)
    with _placing(loaded):
        show_config(loaded)
    return 0


def _plugins(asked: Start) -> int:
    show_plugins(asked.conf_files, files=[text for text in asked.overrides if text.startswith("plugins=")])
    return 0


def _start(asked: Start) -> int:
    script = _find_script(asked.script)
    loaded = load_for(script.name, asked)
    for note in loaded.notes:
        print(f"note: {note}", file=sys.stderr)
    check_inputs(script.name, loaded.config, loaded.places)
    keys = dict(loaded.keys)
    stages = loaded.config.parallelism.num_pipe_stages
    if script.name in INFERENCE and stages > 1:
        print(f"note: the {stages} pipeline stages are folded into one for {script.name}", file=sys.stderr)
        keys["pipe_parallel_size"] = 1
    config = Config.from_flat(keys)
    with _placing(loaded):
        plan = make_plan(config, script, [CONFIG_ARGUMENT, encode(keys)])
        if script.name == "train.py" and plan.num_ranks is not None:
            resolve(config, data_size=plan.num_ranks // config.parallelism.num_model_ranks)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    return start(plan)


@contextlib.contextmanager
def _placing(loaded: LoadedConfig) -> Iterator[None]:
    """Give the problems that come up inside the places of their keys."""
    try:
        yield
    except ConfigError as error:
        raise error.placed(loaded.places) from None


def load_for(script: str, asked: Start) -> LoadedConfig:
    """The config that a script gets, with what is taken where the command line gives nothing.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    name = Path(script).name
    files, overrides, notes = asked.conf_files, list(asked.overrides), []
    defaults: list[Path] = []
    given = _given(asked)
    if name == "train.py":
        if not files:
            raise InputError("train.py needs a config file: ./deepy.py train.py configs/160M.yml")
        if not {"data_path", "train_data_paths"} & given.keys():
            defaults.append(find_config("local_setup.yml", asked.conf_dir))
            notes.append(f"no data keys: {defaults[0]} is merged for the keys that are not given")
    if name == "evaluate.py" and _brings_model(given):
        overrides += _without_own_model(given, notes)
    elif name in INFERENCE:
        snapshot = _inference_defaults(name, given, overrides, notes)
        if snapshot is not None:
            defaults.append(snapshot)
            overrides += [f"{key}=null" for key in _of_the_run() if key not in given]
    loaded = load_config(
        files,
        conf_dir=asked.conf_dir,
        overrides=overrides,
        require=_REQUIRED.get(name, ()),
        defaults=defaults,
    )
    return LoadedConfig(loaded.config, loaded.keys, loaded.places, [*notes, *loaded.notes])


def _given(asked: Start) -> dict[str, object]:
    """The keys that the command line gives, by today's spelling; problems with them come up later."""
    found: dict[str, object] = {}
    for path in asked.conf_files:
        entries: list[Entry] = read_entries(find_config(path, asked.conf_dir))
        found.update({legacy.RENAMED.get(entry.key, entry.key): entry.value for entry in entries})
    for text in asked.overrides:
        key, _, value = text.partition("=")
        found[key.replace("-", "_")] = parse_value(value)
    return found


def _brings_model(given: dict[str, object]) -> bool:
    """Whether the model to evaluate is not a checkpoint of ours, so that the config's own is not asked for."""
    block = given.get("evaluated_model")
    kind = block.get("type") if isinstance(block, dict) else given.get("evaluated_model.type")
    return kind is not None and kind != "neox"


def _without_own_model(given: dict[str, object], notes: list[str]) -> list[str]:
    """Overrides that take out what belongs to a checkpoint of ours; what is given of it is said."""
    idle = [key for key, section in section_of().items() if section in ("model", "tokenizer")]
    idle += ["load", "iteration", "load_fallback", "allow_tokenizer_mismatch", "pipe_parallel_size"]
    found = [key for key in idle if given.get(key) is not None]
    if found:
        notes.append(f"evaluated_model brings its own model and tokenizer; not read: {', '.join(found)}")
    return [f"{key}=null" for key in found]


def _inference_defaults(
    name: str, given: dict[str, object], overrides: list[str], notes: list[str]
) -> Path | None:
    """The snapshot that fills in a config without a model.

    Raises:
        InputError: nothing was given, and there is no run to take.
    """
    if "num_layers" in given:
        return None
    load = given.get("load")
    if isinstance(load, str):
        iteration = given.get("iteration")
        snapshot = snapshot_of(load, iteration if isinstance(iteration, int) else None)
        if snapshot is None:
            raise InputError(
                f"the config gives no model, and {load} (load) holds no checkpoint with a config of its own; "
                "add the config that the model was trained with"
            )
    else:
        snapshot = newest_run()
        if snapshot is None:
            raise InputError(
                f"no config is given, and there is no run below runs/ or checkpoints/ of {Path.cwd()}\n"
                f"  ./deepy.py {name} CONF... names one;  make quickstart  trains a small model in minutes"
            )
        overrides.append(f"load={snapshot.parents[2]}")
    notes.append(f"the model's config is taken from {snapshot}")
    return snapshot


def _of_the_run() -> list[str]:
    """Keys of a training run that say nothing about its model: where it ran, what it did, what it has written."""
    return [key for key, section in section_of().items() if section in ("parallelism", "launch")] + [
        "iteration", "save", "log_dir", "tensorboard_dir", "use_wandb", "monitors", "hooks",
        "sample_output_file", "eval_results_path", "load_fallback", "allow_tokenizer_mismatch",
    ]  # fmt: skip


def _find_script(name: str) -> Path:
    """The script that a verb names: a file here, or one of the doors.

    Raises:
        InputError: there is none.
    """
    file = name if name.endswith(".py") else f"{name}.py"
    for folder in (Path(), installed_folder()):
        if (folder / file).is_file():
            return (folder / file).resolve()
    if file in _RENAMED:
        print(f"note: {file} is {_RENAMED[file]} here", file=sys.stderr)
        return _find_script(_RENAMED[file])
    known = [*_REQUIRED, "config", "plugins"]
    if name.endswith((".yml", ".yaml", ".json")):
        raise UserError(f"{name} is a config; say first what to start: ./deepy.py train.py {name}")
    raise InputError(
        f"no script and no verb is named {name}{did_you_mean(name, known)} (verbs: {', '.join(known)})"
    )
