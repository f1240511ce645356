"""Whether the parts that a config names exist, told with the other problems of the config.

Importing parts imports torch, which takes seconds. So a name that our own modules register in their text is taken at
that; only for another one, a plugin's or a slip of the pen, are the registries asked.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from megatron.neox import plugins
from megatron.neox.config.config import Config
from megatron.neox.errors import InputError, Problem, UnknownPartError
from megatron.neox.plugins import Registry, load_plugins

Named = tuple[Registry[object], str, str]
"""A kind of part, the YAML key that names one, and the name."""


def unknown_parts(config: Config) -> Iterator[Problem]:
    """Names that no plugin registered, each with what there is instead."""
    doubtful = [named for named in _named(config) if named[2] not in _written_names(named[0])]
    if not doubtful:
        return
    try:
        load_plugins(config.training.plugins)
    except InputError as error:
        yield Problem.about(("plugins",), str(error))
        return
    for registry, key, name in doubtful:
        try:
            registry.part(name)
        except UnknownPartError as error:
            yield Problem.about((key,), str(error))


def _named(config: Config) -> Iterator[Named]:
    """The parts of a run, each once; tasks are left to evaluate.py, which knows those of lm-eval too."""
    model = config.model
    yield plugins.models, "model", model.model
    yield plugins.positions, "pos_emb", model.pos_emb
    yield plugins.norms, "norm", model.norm.name
    yield plugins.activations, "activation", model.activation.name
    yield plugins.initializers, "init_method", model.init_method.name
    yield plugins.initializers, "output_layer_init_method", model.output_layer_init_method.name
    for name in _attention_names(config):
        yield plugins.attentions, "attention_config", name
    yield plugins.tokenizers, "tokenizer_type", config.tokenizer.tokenizer_type
    yield plugins.optimizers, "optimizer", config.optimizer.optimizer.name
    yield plugins.schedules, "lr_decay_style", config.schedule.lr_decay_style
    if config.generation.sampler is not None:
        yield plugins.samplers, "sampler", config.generation.sampler.name
    for registry, key, choices in (
        (plugins.transforms, "transforms", config.data.transforms),
        (plugins.hooks, "hooks", config.training.hooks),
        (plugins.monitors, "monitors", config.logging.monitors),
    ):
        for choice in choices:
            yield registry, key, choice.name


def _attention_names(config: Config) -> list[str]:
    """The kinds of attention in use; none where attention_config cannot be read, which `checks` tells."""
    try:
        return sorted(set(config.model.layer_attention))
    except (TypeError, ValueError):
        return []


@cache
def _written_names(registry: Registry[object]) -> frozenset[str]:
    """The names in the `register` lines of a kind's built-in modules, which are read and not imported."""
    texts = [file.read_text(encoding="utf-8") for module in registry.builtin for file in _files(module)]
    return frozenset(name for text in texts for name in re.findall(r'^@\w+\.register\("(\w+)"\)', text, re.M))


def _files(module: str) -> list[Path]:
    """The source files of a module, or of all modules of a package."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    return sorted(origin.parent.glob("*.py")) if spec.submodule_search_locations else [origin]
