"""deepy's command line: which verb, which config files, and the options that stand for YAML keys."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from megatron.neox.errors import UserError


@dataclass(frozen=True)
class Start:
    """What a command line asks to start, or to show."""

    script: str
    conf_files: list[str]
    conf_dir: str | None
    overrides: list[str]  # KEY=VALUE


_EXAMPLES = """\
verbs:
  train.py generate.py evaluate.py   start that script on the ranks that the config asks for
  config                             show the merged config, DeepSpeed's JSON, parameters, memory and FLOPs
  plugins [KIND]                     list every swappable part with its options

examples:
  {program} train{suffix} configs/160M.yml configs/local_setup.yml
  {program} config configs/2-7B.yml --set model_parallel_size=2
"""

_DOOR_EXAMPLES = {
    "train.py": """\
examples:
  ./train.py configs/160M.yml configs/local_setup.yml
  ./deepy.py train.py configs/quickstart.yml --set train_iters=3000
""",
    "generate.py": """\
examples:
  ./generate.py configs/160M.yml configs/local_setup.yml configs/text_generation.yml
  ./deepy.py generate.py configs/quickstart.yml --set text_gen_type=interactive
""",
    "evaluate.py": """\
examples:
  ./evaluate.py configs/160M.yml configs/code_ppl.yml
  ./deepy.py evaluate.py configs/quickstart.yml --set eval_stride=256
""",
}

# Option: the YAML key it stands for.
_KEYS = {
    "--wandb_group": "wandb_group",
    "--wandb_run_name": "wandb_run_name",
    "--wandb_team": "wandb_team",
    "--eval_results_prefix": "eval_results_prefix",
    "--sample_input_file": "sample_input_file",
    "--sample_output_file": "sample_output_file",
    "--hostfile": "hostfile",
    "--iteration": "iteration",
}
_SHORT = {"--sample_input_file": "-i", "--sample_output_file": "-o", "--hostfile": "-H"}
_HELP = {
    "--wandb_group": "group of the run at Weights & Biases",
    "--wandb_run_name": "name of the run at Weights & Biases",
    "--wandb_team": "team at Weights & Biases",
    "--eval_results_prefix": "prefix of the results file's name",
    "--sample_input_file": "a file whose text is the prompt",
    "--sample_output_file": "where the samples go",
    "--hostfile": "machines, as `host slots=N` lines",
    "--iteration": "step of the checkpoint to load; default: the newest",
}


def parser(program: str) -> argparse.ArgumentParser:
    """The parser of `./deepy.py` or `neox`."""
    suffix = "" if program == "neox" else ".py"
    made = argparse.ArgumentParser(
        prog=program,
        description="Train, generate and evaluate language models of code from config files.",
        epilog=_EXAMPLES.format(program=program, suffix=suffix),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("script", metavar="VERB", help="a script to start (train.py), or config, or plugins")
    _add_options(made)
    return made


def door_parser(script: str) -> argparse.ArgumentParser:
    """The parser of a door called by itself: `./train.py CONF...`."""
    made = argparse.ArgumentParser(
        prog=f"./{script}",
        description=f"Start {script} on the ranks that the config asks for; the same as ./deepy.py {script}.",
        epilog=_DOOR_EXAMPLES[script],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(made)
    return made


def _add_options(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        # With a default argparse does not name CONF among the arguments that are missing.
        "conf_file",
        nargs="*",
        default=[],
        metavar="CONF",
        help="config files, merged in order; .yml is implied",
    )
    made.add_argument(
        "-d", "--conf_dir", "--conf-dir", metavar="DIR", help="folder to look for config files in first"
    )
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="give or replace a key; may be repeated",
    )
    made.add_argument("--eval_tasks", "--eval-tasks", nargs="+", metavar="TASK", help="tasks of evaluate.py")
    for option, key in _KEYS.items():
        names = [name for name in (_SHORT.get(option), option, option.replace("_", "-")) if name]
        made.add_argument(*dict.fromkeys(names), dest=key, metavar=key.upper(), help=_HELP[option])
    made.add_argument("--autotuning", choices=["tune", "run"], help=argparse.SUPPRESS)


def read(made: argparse.ArgumentParser, arguments: list[str], script: str = "") -> Start:
    """Parse a command line.

    Raises:
        UserError: an option of GPT-NeoX that is not implemented.
        SystemExit: 2 for misuse, 0 after `--help`.
    """
    given = made.parse_intermixed_args(arguments)
    if given.autotuning:
        raise UserError(
            "--autotuning: DeepSpeed's autotuning is not supported; compare `./deepy.py config` outputs"
        )
    overrides = [
        f"{key}={json.dumps(value)}" for key in _KEYS.values() if (value := getattr(given, key)) is not None
    ]
    if given.iteration is not None:
        overrides = [text for text in overrides if not text.startswith("iteration=")] + [
            f"iteration={given.iteration}"
        ]
    if given.eval_tasks:
        overrides.append(f"eval_tasks={json.dumps(given.eval_tasks)}")
    return Start(getattr(given, "script", script), given.conf_file, given.conf_dir, [*overrides, *given.set])
