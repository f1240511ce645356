from __future__ import annotations

import pytest

from megatron.neox.launch.arguments import parser, read


def test_without_arguments_only_the_verb_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read(parser("./deepy.py"), [])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("the following arguments are required: VERB\n")


def test_configs_may_stand_before_and_behind_options() -> None:
    start = read(parser("./deepy.py"), ["train.py", "a.yml", "--set", "seed=1", "b.yml"])
    assert (start.script, start.conf_files, start.overrides) == ("train.py", ["a.yml", "b.yml"], ["seed=1"])
