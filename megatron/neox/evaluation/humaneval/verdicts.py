"""Verdicts of samples, in a file that grows while they are found and can be gone on with."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from megatron.neox.errors import InputError, OutputError
from megatron.neox.evaluation.humaneval.json_lines import read_objects
from megatron.neox.evaluation.humaneval.problems import Problem
from megatron.neox.evaluation.humaneval.protocols import Protocol
from megatron.neox.evaluation.humaneval.samples import Sample, sampling_of
from megatron.neox.evaluation.sandbox import Sandbox, Trial
from megatron.neox.files import write_whole

log = logging.getLogger(__name__)

# Problems and backends whose canonical solutions passed in this process.
_SOUND: set[tuple[str, str, float]] = set()
_FORGERY = "class Any:\n    def __eq__(self, other): return True\ndef {name}(*a, **k): return Any()\n"

Row = dict[str, Any]


@dataclass(frozen=True)
class Scorer:
    """What turns a sample into a verdict."""

    problems: Mapping[str, Problem]
    protocol: Protocol
    sandbox: Sandbox

    def score(self, samples: Sequence[Sample], path: Path) -> list[Row]:
        """A row for each sample, in their order, also in the file; what is there already is not done again.

        Until all are there, the file is PATH.partial, one row a line in the order in which they were found.

        Raises:
            InputError: the canonical solution of a task fails, so that no verdict could be trusted.
            OutputError: the file holds other verdicts, or somebody else writes them now.
        """
        keys = [self._key(sample) for sample in samples]
        found = dict(_finished(path, keys))
        if not found:
            with _growing(path.with_name(path.name + ".partial")) as file:
                found = dict(_so_far(file, path, keys))
                if found:
                    log.info("%s: %d of %d samples have their verdict", file.name, len(found), len(keys))
                self._find(samples, keys, found, file)
                rows = [found[key] for key in keys]
                write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
            Path(file.name).unlink()
        else:
            log.info("%s holds the verdicts of these samples already", path)
        return [found[key] for key in keys]

    def _find(
        self, samples: Sequence[Sample], keys: Sequence[str], found: dict[str, Row], file: IO[str]
    ) -> None:
        missing = [position for position, key in enumerate(keys) if key not in found]
        if missing:
            self_test(self.problems, self.sandbox)
        chosen = [samples[position] for position in missing]
        for number, row in _judged(chosen, self.problems, self.protocol, self.sandbox):
            key = keys[missing[number]]
            found[key] = {**row, "key": key}
            file.write(json.dumps(found[key]) + "\n")
            file.flush()

    def _key(self, sample: Sample) -> str:
        """All that the verdict follows from, and which sample it is of."""
        trial = _trial(sample, self.problems, self.protocol, self.sandbox)
        limits = self.sandbox.limits
        told = (
            sample.task_id, sample.number, trial.program, trial.test, trial.support, limits.wall_seconds,
            limits.memory_bytes,
        )  # fmt: skip
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def judge_samples(
    samples: Sequence[Sample], problems: Mapping[str, Problem], protocol: Protocol, sandbox: Sandbox
) -> list[Row]:
    """A row for each sample, in their order; nothing is written."""
    rows = dict(_judged(samples, problems, protocol, sandbox))
    return [rows[number] for number in range(len(samples))]


def _judged(
    samples: Sequence[Sample], problems: Mapping[str, Problem], protocol: Protocol, sandbox: Sandbox
) -> Iterator[tuple[int, Row]]:
    """Position and row of each sample, in the order in which they come to an end."""
    trials = (_trial(sample, problems, protocol, sandbox) for sample in samples)
    for number, verdict in sandbox.verdicts(trials):
        sample = samples[number]
        yield number, {
            "task_id": sample.task_id, "sample": sample.number, "passed": verdict.passed,
            "result": verdict.result, "reason": verdict.reason, "seconds": verdict.seconds,
            "completion": sample.completion, "seed": None, **sampling_of(sample),
            "protocol": protocol.name, "sandbox": sandbox.backend.name,
        }  # fmt: skip


def _trial(sample: Sample, problems: Mapping[str, Problem], protocol: Protocol, sandbox: Sandbox) -> Trial:
    problem = problems[sample.task_id]
    return problem.trial(protocol.program(problem, sample), sandbox.limits.wall_seconds)


def self_test(problems: Mapping[str, Problem], sandbox: Sandbox) -> None:
    """See that every canonical solution passes here, and a forged one fails; once a process.

    Raises:
        InputError: one does not as it should, so that no verdict could be trusted.
    """
    identity = hashlib.sha256(repr(sorted(problems.items())).encode()).hexdigest()
    seen = (identity, sandbox.backend.name, sandbox.limits.wall_seconds)
    if seen in _SOUND:
        return
    seconds = sandbox.limits.wall_seconds
    tasks = list(problems.values())
    trials = [problem.trial(problem.prompt + problem.canonical_solution, seconds) for problem in tasks]
    trials.append(tasks[0].trial(_FORGERY.format(name=tasks[0].entry_point), seconds))
    wrong = []
    for position, verdict in sandbox.verdicts(trials):
        if position == len(tasks):
            wrong += ["  a forged answer: passed"] * verdict.passed
        elif not verdict.passed:
            wrong.append(f"  {tasks[position].task_id}: {verdict.result}")
    if wrong:
        raise InputError(
            f"the self-test failed, so nothing is scored: {len(tasks)} canonical solutions should pass\n"
            + "\n".join(wrong[:10])
        )
    log.info("self-test: %d of %d canonical solutions pass", len(tasks), len(tasks))
    _SOUND.add(seen)


def _finished(path: Path, keys: Sequence[str]) -> Iterable[tuple[str, Row]]:
    """Rows of a complete file, which must be of these samples."""
    if not path.exists():
        return []
    try:
        rows = [row for _, row in read_objects(path, "results file")]
    except InputError as error:
        raise OutputError(f"{error}\n  remove it, or name another with --results-file") from None
    if [row.get("key") for row in rows] != list(keys):
        raise OutputError(
            f"{path} holds verdicts of other samples, tests, limits or another protocol; "
            "remove it, or name another with --results-file"
        )
    return zip(keys, rows)


@contextmanager
def _growing(path: Path) -> Iterator[IO[str]]:
    """The partial file, held against others, at its end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(
            f"results {path} cannot be written: {error.strerror}; name another place"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path} is being written by another process; wait for it") from None
        yield file


def _so_far(file: IO[str], path: Path, keys: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Rows of a run that was broken off; a last line without its end is cut off and done again."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind("\n") + 1]
    known = set(keys)
    for number, line in enumerate(whole.splitlines(), 1):
        row = _row(line)
        key = row.get("key")
        if not isinstance(key, str) or key not in known:
            raise OutputError(
                f"{file.name}:{number}: a verdict of other samples, tests, limits or another protocol; "
                f"remove the file, or name another than {path.name} with --results-file"
            )
        yield key, row
    file.truncate(len(whole.encode()))
    file.seek(0, 2)


def _row(line: str) -> Row:
    """The object of a line; an empty one where it is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
