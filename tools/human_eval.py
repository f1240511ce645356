#!/usr/bin/env python3
"""Score samples of HumanEval: execute them in a sandbox, write every verdict, and print pass@k with intervals."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
from collections import Counter
from collections.abc import Sequence

from megatron.neox.errors import InputError, log_to_stderr, run_door
from megatron.neox.evaluation.humaneval.problems import read_problems
from megatron.neox.evaluation.humaneval.protocols import PROTOCOLS, Protocol, protocol_named
from megatron.neox.evaluation.humaneval.samples import Sample, read_samples, told_settings
from megatron.neox.evaluation.humaneval.summary import (
    choose_ks,
    compare,
    count,
    difference_table,
    read_counts,
    score,
    score_table,
)
from megatron.neox.evaluation.humaneval.verdicts import Scorer
from megatron.neox.evaluation.published.tables import human_eval_markdown
from megatron.neox.evaluation.sandbox import Limits, Sandbox, choose_backend

EXAMPLES = """examples:
  tools/human_eval.py --generated-file 2.7b-humaneval-outputs.jsonl --num-samples 100
  tools/human_eval.py --compare 2.7b-humaneval-outputs.jsonl_results.jsonl 160m.jsonl_results.jsonl
"""


def main(arguments: Sequence[str]) -> None:
    """Score files of samples, or compare two files of results."""
    options = _options(arguments)
    log_to_stderr()
    if options.compare:
        first, second = options.compare
        return _compare(first, second, options.k)
    if options.results_file and len(options.generated_file) > 1:
        raise InputError("--results-file names one file; give one --generated-file with it")
    problems = read_problems(options.problem_file)
    protocol = protocol_named(options.protocol)
    files = {path: read_samples(path, problems, options.num_samples) for path in options.generated_file}
    for samples in files.values():  # before hours of work, not after
        choose_ks(count({"task_id": sample.task_id, "passed": False} for sample in samples), options.k)
    backend = choose_backend(options.sandbox)
    limits = Limits(wall_seconds=options.timeout or protocol.timeout_seconds)
    with Sandbox(backend, limits, num_lanes=options.workers) as sandbox:
        for path, samples in files.items():
            _score(path, samples, options, Scorer(problems, protocol, sandbox))
    if options.published and not options.problem_file:
        print(f"\n{human_eval_markdown()}", end="")
    return None


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--generated-file", type=Path, nargs="+", metavar="F",
        help="samples: of generate.py, or {task_id, completion} a line; of several files, all are told",
    )  # fmt: skip
    what.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="two results files: A minus B, paired"
    )
    parser.add_argument("--num-samples", type=_positive, help="samples of each task (default: counted)")
    parser.add_argument("--problem-file", type=Path, help="tasks in HumanEval's form (default: HumanEval)")
    parser.add_argument(
        "--protocol", default="polycoder", help=f"{', '.join(PROTOCOLS)} (default: %(default)s)"
    )
    parser.add_argument(
        "--k", type=_positive, nargs="+", help="(default: those of 1 10 100 that can be told)"
    )
    parser.add_argument("--results-file", type=Path, help="(default: F_results.jsonl)")
    parser.add_argument(
        "--timeout", type=_seconds, help="seconds a sample may take (default: the protocol's, 3)"
    )
    parser.add_argument(
        "--sandbox", default="auto", help="auto, bubblewrap, landlock or container (default: %(default)s)"
    )
    parser.add_argument(
        "--published", action=argparse.BooleanOptionalAction, default=True,
        help="print HumanEval's published figures below (default: yes; no with --problem-file)",
    )  # fmt: skip
    parser.add_argument("--workers", type=_positive, help="samples at a time (default: processor cores)")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _seconds(text: str) -> float:
    if not 0 < (number := float(text)) <= 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3600")
    return number


def _score(path: Path, samples: Sequence[Sample], options: argparse.Namespace, scorer: Scorer) -> None:
    results = options.results_file or path.with_name(path.name + "_results.jsonl")
    rows = scorer.score(samples, results)
    counts = count(rows)
    ks, untold = choose_ks(counts, options.k)
    numbers = sorted({number for number, _ in counts.values()})
    each = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    protocol, limits = scorer.protocol, scorer.sandbox.limits
    print(f"{path}: {len(counts)} tasks, n = {each} samples of each")
    print(f"  protocol: {_described(protocol)}, {limits.wall_seconds:g} s a sample")
    print(f"  sandbox: {scorer.sandbox.backend.description}")
    for name, value in (told_settings(samples) or {"sampling": "the file does not tell"}).items():
        print(f"  {name}: {value}")
    if empty := sum(sample.completion is None for sample in samples):
        print(f"  without text (the document ended at once; taken as empty): {empty}")
    print(
        f"  verdicts: {', '.join(f'{name} {n}' for name, n in Counter(row['reason'] for row in rows).most_common())}"
    )
    print(score_table(score(counts, ks)), end="")
    if untold:
        print(f"  {untold}")
    print(f"  wrote {results}")


def _described(protocol: Protocol) -> str:
    return f"{protocol.name} ({protocol.description})"


def _compare(first: Path, second: Path, ks: Sequence[int] | None) -> None:
    ours, theirs = read_counts(first), read_counts(second)
    difference, untold = compare(ours, theirs, ks)
    print(f"A = {first}\nB = {second}\nA - B over {len(ours)} tasks, in points, paired by task")
    print(difference_table(difference), end="")
    if untold:
        print(f"  {untold}")


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
