"""Whether the parts that a config names exist and have its options, told with the other problems of the config.

Importing parts imports torch, which takes seconds. So what our own modules say in their text is taken at that; only for
something else, a plugin's part or a slip of the pen, are the registries asked.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from megatron.neox import plugins
from megatron.neox.config.config import Config
from megatron.neox.errors import InputError, Problem, UnknownPartError, UserError
from megatron.neox.plugins import Registry, load_plugins


@dataclass(frozen=True)
class _Named:
    """A kind of part, the YAML key that names one, the name, and the options given with it."""

    registry: Registry[object]
    key: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the text of our modules has all of it."""
        written = _written_parts(self.registry).get(self.name)
        return written is not None and self.options.keys() <= written

    def problems(self) -> Iterator[Problem]:
        """What the registry says: the name, or each option, is unknown."""
        try:
            self.registry.part(self.name)
        except UnknownPartError as error:
            yield Problem.about((self.key,), str(error))
            return
        for option in self.options:
            try:
                self.registry.check_option(self.name, option)
            except UserError as error:
                # GPT-NeoX writes an optimizer's options below "params"; a place is found from the longest path.
                path = f"{self.key}.params.{option}" if self.key == "optimizer" else f"{self.key}.{option}"
                yield Problem.about((path,), str(error))


def unknown_parts(config: Config) -> Iterator[Problem]:
    """Names that no plugin registered and options that a part has not, each with what there is instead."""
    doubtful = [named for named in _named(config) if not named.is_plain]
    if not doubtful:
        return
    try:
        load_plugins(config.training.plugins)
    except InputError as error:
        yield Problem.about(("plugins",), str(error))
        return
    for named in doubtful:
        yield from named.problems()


def _named(config: Config) -> Iterator[_Named]:
    """The parts of a run, each once; tasks are left to evaluate.py, which knows those of lm-eval too."""
    model = config.model
    yield _Named(plugins.models, "model", model.model)
    yield _Named(plugins.positions, "pos_emb", model.pos_emb)
    for name in _attention_names(config):
        yield _Named(plugins.attentions, "attention_config", name)
    yield _Named(plugins.tokenizers, "tokenizer_type", config.tokenizer.tokenizer_type)
    yield _Named(plugins.schedules, "lr_decay_style", config.schedule.lr_decay_style)
    sampler = config.generation.sampler
    for registry, key, choices in (
        (plugins.norms, "norm", [model.norm]),
        (plugins.activations, "activation", [model.activation]),
        (plugins.initializers, "init_method", [model.init_method]),
        (plugins.initializers, "output_layer_init_method", [model.output_layer_init_method]),
        (plugins.optimizers, "optimizer", [config.optimizer.optimizer]),
        (plugins.samplers, "sampler", [] if sampler is None else [sampler]),
        (plugins.transforms, "transforms", config.data.transforms),
        (plugins.hooks, "hooks", config.training.hooks),
        (plugins.monitors, "monitors", config.logging.monitors),
    ):
        for choice in choices:
            yield _Named(registry, key, choice.name, choice.options)


def _attention_names(config: Config) -> list[str]:
    """The kinds of attention in use; none where attention_config cannot be read, which `checks` tells."""
    try:
        return sorted(set(config.model.layer_attention))
    except (TypeError, ValueError, ArithmeticError):
        return []


@cache
def _written_parts(registry: Registry[object]) -> dict[str, frozenset[str]]:
    """Name and options of the parts in the text of a kind's built-in modules, which is read and not run.

    A class that leaves its options to a base class shows none here, and is then asked about in the registry.
    """
    found: dict[str, frozenset[str]] = {}
    for module in registry.builtin:
        for file in _files(module):
            for part in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(part, ast.FunctionDef | ast.ClassDef):
                    found |= dict.fromkeys(_registered_names(part), _keyword_options(part))
    return found


def _registered_names(part: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """The names in its decorators `@KIND.register("name")`."""
    return [
        call.args[0].value
        for call in part.decorator_list
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "register"
        if call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    ]


def _keyword_options(part: ast.FunctionDef | ast.ClassDef) -> frozenset[str]:
    functions = [part] if isinstance(part, ast.FunctionDef) else part.body
    return frozenset(
        argument.arg
        for function in functions
        if isinstance(function, ast.FunctionDef) and (function is part or function.name == "__init__")
        for argument in function.args.kwonlyargs
    )


def _files(module: str) -> list[Path]:
    """The source files of a module, or of all modules of a package."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    return sorted(origin.parent.glob("*.py")) if spec.submodule_search_locations else [origin]
