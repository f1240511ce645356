#!/usr/bin/env python3
"""Try config files, GPT-NeoX's among them: which load, and which feature each of the others is refused for."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import json
from collections.abc import Sequence

from megatron.neox.errors import run_door
from megatron.neox.launch.trials import find_configs, markdown_table, try_config

EXAMPLES = """exit status: 0 all load, 1 some are refused, 2 misuse

examples:
  tools/try_configs.py configs --defaults configs/160M.yml
  tools/try_configs.py experiments/large.yml experiments/small.yml --format markdown
"""


def main(arguments: Sequence[str]) -> int:
    """Print one line, table row or JSON object for each file."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a config file, or a folder of them"
    )
    parser.add_argument(
        "--defaults", action="append", default=[], type=Path, metavar="FILE",
        help="a config that completes files without the sizes of a model, which are only part of a config",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("text", "markdown", "json"), default="text", help="default: text"
    )
    options = parser.parse_args(arguments)

    found = list(find_configs(options.paths))
    trials = [try_config(path, shown=shown, defaults=options.defaults) for path, shown in found]
    if options.format == "markdown":
        print(markdown_table(trials))
    else:
        for trial in trials:
            print(
                json.dumps(trial.as_dict()) if options.format == "json" else f"{trial.file}: {trial.outcome}"
            )
    return 0 if all(trial.loads for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(run_door(main, sys.argv[1:]))
