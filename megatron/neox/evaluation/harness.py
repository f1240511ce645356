"""lm-evaluation-harness' tasks by name or pattern: found, loaded before any weights are read, and run by rank 0.

Rank 0 alone holds the tasks and their data; the other ranks compute what it asks for (`harness_model.py`).
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.neox.config import EvaluationConfig
from megatron.neox.errors import (
    ConfigError,
    DependencyError,
    InputError,
    NeoXError,
    UnknownPartError,
    did_you_mean,
)
from megatron.neox.plugins import tasks as our_tasks

if TYPE_CHECKING:
    from lm_eval.api.model import LM

    from megatron.neox.evaluation.harness_model import SharedWork

log = logging.getLogger(__name__)

_WILD = frozenset("*?[")
_BOOTSTRAP_ITERATIONS = 10_000  # as in PolyCoder's evaluate.py; only lm-eval's own standard errors need them


class Harness:
    """The tasks of eval_tasks that lm-eval has. Only rank 0 calls `choose`, `load` and `run`.

    A name that one of our tasks has is ours; a pattern takes ours and lm-eval's single tasks (its groups and tags
    go by their names).
    """

    def __init__(self, settings: EvaluationConfig) -> None:
        self._settings = settings
        self._manager: Any = None  # lm-eval's TaskManager, which comes late: to import it takes seconds
        self._is_whole = False  # whether lm-eval's own tasks are in it
        self._loaded: list[Any] = []

    def choose(self) -> tuple[list[str], list[str]]:
        """Names of our tasks, and of lm-eval's, in the order of eval_tasks.

        Raises:
            UnknownPartError: a name or pattern that neither has; the message lists all such.
            InputError: a folder of eval_include_path is not there.
        """
        ours: dict[str, None] = {}
        theirs: dict[str, None] = {}
        unknown: list[str] = []
        for name in self._settings.eval_tasks:
            if name in our_tasks:
                ours[name] = None
                continue
            mine = fnmatch.filter([part.name for part in our_tasks], name)
            found = self._find(name)
            ours.update(dict.fromkeys(mine))
            theirs.update(dict.fromkeys(found))
            unknown += [] if mine or found else [name]
        if unknown:
            raise UnknownPartError("\n".join(map(self._unknown, unknown)))
        return [*ours], [*theirs]

    def load(self, names: Sequence[str]) -> None:
        """Read the tasks and their data.

        Raises:
            InputError: a task's data cannot be had, or its YAML is wrong.
            ConfigError: a task runs generated programs, which eval_allow_unsafe_code does not allow.
        """
        problems: list[str] = []
        unsafe: list[str] = []
        for name in names:
            try:
                loaded = self._manager.load([name])
            except Exception as error:  # whatever a task's own code, its YAML or its data may raise
                problems.append(f"lm-eval's task {name} cannot be loaded: {type(error).__name__}: {error}")
                continue
            self._loaded += [loaded["groups"][name]] if name in loaded["groups"] else loaded["tasks"].values()
            unsafe += [key for key, task in loaded["tasks"].items() if getattr(task, "UNSAFE_CODE", False)]
        if problems:
            raise InputError("\n".join(problems))
        if unsafe and not self._settings.eval_allow_unsafe_code:
            raise ConfigError(
                [
                    f"lm-eval's {', '.join(unsafe)}: runs generated programs on this machine, outside any sandbox; "
                    "eval_allow_unsafe_code true allows it"
                ]
            )

    def run(self, work: SharedWork) -> dict[str, Any]:
        """`run_with` the model whose work is shared among all ranks."""
        from megatron.neox.evaluation.harness_model import HarnessModel

        return self.run_with(HarnessModel(work))

    def run_with(self, model: LM) -> dict[str, Any]:
        """Results in lm-eval's form, its `samples` in the form of its samples files.

        Raises:
            InputError: a task fails on what the model answers, or asks for what a causal model cannot give.
        """
        from lm_eval.evaluator import simple_evaluate

        settings = self._settings
        try:
            results = simple_evaluate(
                model=model,
                tasks=self._loaded,
                num_fewshot=settings.eval_num_fewshot,
                limit=settings.eval_limit,
                batch_size=settings.eval_batch_size,
                bootstrap_iters=_BOOTSTRAP_ITERATIONS,
                task_manager=self._manager,
                confirm_run_unsafe_code=settings.eval_allow_unsafe_code,
            )
        except NeoXError:
            raise
        except (ValueError, NotImplementedError, ImportError) as error:
            raise InputError(f"lm-eval's tasks failed: {type(error).__name__}: {error}") from error
        assert results is not None, "rank 0 gets the results"
        samples = {name: [*map(_sample, rows)] for name, rows in results.get("samples", {}).items()}
        hashes = {name: _task_hash(rows) for name, rows in samples.items()}
        return {**results, "samples": samples, "task_hashes": hashes}

    def _find(self, name: str) -> list[str]:
        """lm-eval's tasks of that name or pattern; its own thousands are read where eval_include_path has it not."""
        is_pattern = not _WILD.isdisjoint(name)
        if self._manager is None and self._settings.eval_include_path and not is_pattern:
            self._manager = self._index(include_defaults=False)
        if self._manager is not None and name in self._manager.all_tasks:
            return [name]
        if not self._is_whole:
            self._manager, self._is_whole = self._index(include_defaults=True), True
        manager: Any = self._manager
        names: list[str] = manager.all_subtasks if is_pattern else manager.all_tasks
        return fnmatch.filter(names, name) if is_pattern else [name for known in names if known == name]

    def _index(self, *, include_defaults: bool) -> Any:
        try:
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise DependencyError(
                f"eval_tasks: {', '.join(self._settings.eval_tasks)} are not all tasks of ours, and lm-eval's need "
                f"pip install lm-eval==0.4.13 ({error})"
            ) from error

        folders = self._settings.eval_include_path
        if absent := [folder for folder in folders if not Path(folder).is_dir()]:
            raise InputError(f"eval_include_path {', '.join(absent)}: no such folder")
        return TaskManager(include_path=[*folders] or None, include_defaults=include_defaults)

    def _unknown(self, name: str) -> str:
        ours = [part.name for part in our_tasks]
        theirs = self._manager.all_tasks
        lines = [
            f"no task is named '{name}' (YAML key 'eval_tasks'): neither one of ours, nor one of the "
            f"{len(theirs)} that lm-eval {importlib.metadata.version('lm-eval')} and eval_include_path have"
        ]
        if close := did_you_mean(name, ours) or did_you_mean(name, theirs):
            lines.append(f"  {close.removeprefix('; ')}")
        return "\n".join([*lines, f"  ours: {', '.join(ours)}"])


def _task_hash(samples: Sequence[Mapping[str, Any]]) -> str:
    """lm-eval's hash of all documents, prompts and targets: equal where two runs asked the same."""
    from lm_eval.utils import hash_string

    return hash_string("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in samples))


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A document's outcome as lm-eval writes it to a samples file: arguments by number, all answers as text."""
    from lm_eval.utils import sanitize_list

    arguments = {
        f"gen_args_{number}": {f"arg_{place}": value for place, value in enumerate(values)}
        for number, values in enumerate(sample["arguments"])
    }
    return {
        **sample,
        "arguments": arguments,
        "resps": sanitize_list(sample["resps"]),
        "filtered_resps": sanitize_list(sample["filtered_resps"]),
        "target": str(sample["target"]),
    }
