"""Every swappable part, found by name: one mechanism behind three doors.

A part registers itself with a decorator, whatever file it stands in:

    from megatron.neox.plugins import activations

    @activations.register("squared_relu")
    def squared_relu(x: Tensor) -> Tensor:
        '''relu(x) ** 2 (So et al. 2021, Primer).'''
        return x.relu().square()

The file may be (1) one of ours, listed in the table below, (2) a module of an installed package, named by
an entry point of the group `neox.plugins`, (3) a file named by the YAML key `plugins: [path.py, package.module]`.
A part's keyword-only parameters are its YAML options; its first docstring line is its entry in
`./deepy.py plugins`.

Importing this module imports none of the parts; a registry loads its own at the first look-up.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from megatron.neox.errors import InputError, UnknownPartError, UserError, did_you_mean

ENTRY_POINT_GROUP = "neox.plugins"

T = TypeVar("T")  # what a part of the kind is
P = TypeVar("P")  # the very class or function that a decorator is given


@dataclass(frozen=True)
class Part(Generic[T]):
    """One registered part."""

    name: str
    value: T
    module: str  # where it comes from

    @property
    def summary(self) -> str:
        """First line of the part's docstring."""
        return (inspect.getdoc(self.value) or "").partition("\n")[0]

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Its keyword-only parameters: what YAML may set."""
        parameters = inspect.signature(cast(Callable[..., Any], self.value)).parameters
        return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    @property
    def origin(self) -> str:
        """Its module, and the file that this was read from."""
        file = getattr(sys.modules.get(self.module), "__file__", None)
        return f"{self.module} ({file})" if file else self.module


# What a value of YAML may be for an option that is annotated so; annotations are texts.
_SIMPLE: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


class Registry(Generic[T]):
    """The parts of one kind, by name.

    Args:
        kind: the kind's name in messages and in `./deepy.py plugins`.
        builtin: our modules that register parts of this kind, imported at the first look-up.
        yaml_key: the YAML key that chooses a part of this kind, "" where none does alone.
    """

    def __init__(self, kind: str, *builtin: str, yaml_key: str = "") -> None:
        self.kind = kind
        self.yaml_key = yaml_key
        self.builtin = builtin
        self._parts: dict[str, Part[T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[P], P]:
        """Decorator that adds a class or function under `name`.

        Raises:
            UserError: another module registered the name before.
        """

        def add(value: P) -> P:
            module = getattr(value, "__module__", "?")
            other = self._parts.get(name)
            if other is not None and other.module != module:
                raise UserError(
                    f"{self.kind} '{name}' is registered twice: by {other.module} and by {module}; "
                    "rename one of them"
                )
            self._parts[name] = Part(name, cast(T, value), module)
            return value

        return add

    def get(self, name: str) -> T:
        """The part registered as `name`.

        Raises:
            UnknownPartError: nothing has that name; the message lists what there is.
        """
        return self.part(name).value

    def part(self, name: str) -> Part[T]:
        """Like `get`, with its description."""
        self._load()
        if name not in self._parts:
            raise UnknownPartError(self._unknown(name))
        return self._parts[name]

    def build(
        self, name: str, *arguments: Any, options: Mapping[str, Any] | None = None, **offered: Any
    ) -> Any:
        """Call the part with `arguments`, those of `offered` it asks for, and the user's `options`.

        Raises:
            UnknownPartError: nothing has that name.
            UserError: `options` holds a key that the part does not have, lacks one it needs, or has a value of another
                type than the part's annotation, where that is one of int, float, str and bool.
        """
        part = self.part(name)
        known = part.options
        keywords = {key: value for key, value in offered.items() if key in known}
        for key, value in (options or {}).items():
            self.check_option(name, key)
            self._check_type(name, key, value, known[key].annotation)
            keywords[key] = value
        missing = [n for n, p in known.items() if p.default is p.empty and n not in keywords]
        if missing:
            raise UserError(f"{self.kind} '{name}' needs the option {', '.join(missing)}")
        return cast(Callable[..., Any], part.value)(*arguments, **keywords)

    def check_option(self, name: str, option: str) -> None:
        """Refuse an option that a part does not have.

        Raises:
            UserError: the message lists those it has.
        """
        known = self.part(name).options
        if option not in known:
            raise UserError(
                f"{self.kind} '{name}' has no option {option}{did_you_mean(option, known)}"
                f" (it has: {', '.join(known) or 'none'})"
            )

    def _check_type(self, name: str, option: str, value: object, annotation: object) -> None:
        accepted = _SIMPLE.get(annotation) if isinstance(annotation, str) else None
        if accepted is not None and (
            not isinstance(value, accepted) or isinstance(value, bool) > (bool in accepted)
        ):
            raise UserError(f"{self.kind} '{name}': option {option} is {annotation}, not {value!r}")

    def __iter__(self) -> Iterator[Part[T]]:
        self._load()
        return iter(sorted(self._parts.values(), key=lambda part: part.name))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._parts

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            for module in self.builtin:
                importlib.import_module(module)
            load_entry_points()

    def _unknown(self, name: str) -> str:
        key = f" (YAML key '{self.yaml_key}')" if self.yaml_key else ""
        lines = [f"no {self.kind} is named '{name}'{key}"]
        if close := did_you_mean(name, self._parts):
            lines.append(f"  {close.removeprefix('; ')}")
        lines.append(f"  known: {', '.join(sorted(self._parts))}")
        lines += [f"  not loaded: {failure}" for failure in load_entry_points()]
        return "\n".join(lines)


_entry_point_failures: list[str] | None = None


def load_entry_points() -> list[str]:
    """Import every installed package's `neox.plugins` modules, once; return what failed, in words.

    A broken package must not stop a run that does not use it, so a failure is only told when a name
    is not found.
    """
    global _entry_point_failures
    if _entry_point_failures is None:
        _entry_point_failures = []
        for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            try:
                entry.load()
            except Exception as error:
                package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "?"
                _entry_point_failures.append(f"{entry.name} ({package}): {type(error).__name__}: {error}")
    return _entry_point_failures


def load_plugins(names: Sequence[str]) -> None:
    """Import the files (`path/to/part.py`) and modules (`package.module`) of the YAML key `plugins`.

    Raises:
        InputError: a file or module is absent, or fails while it is imported.
    """
    for name in names:
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                importlib.import_module(name)
        except UserError:
            raise
        except Exception as error:
            raise InputError(
                f"plugin {name} (YAML key 'plugins'): {type(error).__name__}: {error}"
            ) from error


def _import_file(path: Path) -> None:
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"plugin {path} (YAML key 'plugins') is not a file")
    name = f"neox_plugin_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


# The table of swappable kinds. The engine, the loop and the checkpoint layout are not pluggable.
models: Registry[Any] = Registry("model", "megatron.neox.models.gpt_neox", yaml_key="model")
tokenizers: Registry[Any] = Registry("tokenizer", "megatron.neox.tokenizers", yaml_key="tokenizer_type")
readers: Registry[Any] = Registry("reader", "megatron.neox.corpus.readers")
filters: Registry[Any] = Registry("filter", "megatron.neox.corpus.filters")
transforms: Registry[Any] = Registry("transform", yaml_key="transforms")
attentions: Registry[Any] = Registry("attention", "megatron.neox.nn.attention", yaml_key="attention_config")
positions: Registry[Any] = Registry("position", "megatron.neox.nn.positions", yaml_key="pos_emb")
norms: Registry[Any] = Registry("norm", "megatron.neox.nn.norms", yaml_key="norm")
activations: Registry[Any] = Registry("activation", "megatron.neox.nn.activations", yaml_key="activation")
initializers: Registry[Any] = Registry("initializer", "megatron.neox.nn.initializers", yaml_key="init_method")
adapters: Registry[Any] = Registry("adapter", yaml_key="adapters")
optimizers: Registry[Any] = Registry("optimizer", "megatron.neox.engine.optimizers", yaml_key="optimizer")
schedules: Registry[Any] = Registry("schedule", "megatron.neox.engine.schedules", yaml_key="lr_decay_style")
monitors: Registry[Any] = Registry("monitor", "megatron.neox.monitors", yaml_key="monitors")
hooks: Registry[Any] = Registry("hook", "megatron.neox.training.hooks", yaml_key="hooks")
samplers: Registry[Any] = Registry("sampler", "megatron.neox.generation.samplers", yaml_key="sampler")
tasks: Registry[Any] = Registry("task", "megatron.neox.evaluation.tasks", yaml_key="eval_tasks")

REGISTRIES: tuple[Registry[Any], ...] = (
    models, tokenizers, readers, filters, transforms, attentions, positions, norms, activations,
    initializers, adapters, optimizers, schedules, monitors, hooks, samplers, tasks,
)  # fmt: skip
