from __future__ import annotations

import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from megatron.neox.config.load import load_config
from megatron.neox.launch.arguments import door_parser, parser, read

ROOT = Path(__file__).resolve().parents[3]


def test_without_arguments_only_the_verb_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(parser("./deepy.py"), [])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("the following arguments are required: VERB\n")


def test_configs_may_stand_before_and_behind_options() -> None:
    start = read(parser("./deepy.py"), ["train.py", "a.yml", "--set", "seed=1", "b.yml"])
    assert (start.script, start.conf_files, start.overrides) == ("train.py", ["a.yml", "b.yml"], ["seed=1"])


@pytest.mark.parametrize(
    "made",
    [parser("./deepy.py"), *map(door_parser, ("train.py", "generate.py", "evaluate.py"))],
    ids=lambda p: p.prog,
)
def test_the_examples_of_the_help_load(made: ArgumentParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    examples = (made.epilog or "").partition("examples:\n")[2].splitlines()
    assert len(examples) == 2
    for example in examples:
        program, *arguments = shlex.split(example)
        script = program.removeprefix("./")
        is_door = script != "deepy.py"
        start = read(
            door_parser(script) if is_door else parser(program), arguments, script if is_door else ""
        )
        loaded = load_config(start.conf_files, overrides=start.overrides)
        assert (start.script != "generate.py") or loaded.config.generation.text_gen_type is not None
        assert (start.script != "evaluate.py") or loaded.config.evaluation.eval_tasks
