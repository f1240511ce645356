from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest

from megatron.neox.corpus.filters.stage import filter_stage
from megatron.neox.corpus.stages.options import add_stage_options, run_as_told
from megatron.neox.corpus.stages.running import run_stage
from megatron.neox.corpus.stages.shards import new_shard, shard_name
from megatron.neox.errors import InputError, OutputError
from tests.unit.corpus.stages.doubling import row


def test_a_stage_that_leaves_everything_out_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "in"
    shards.mkdir()
    with new_shard(shards / shard_name(0)) as shard:
        shard.write(row(1))
        shard.write(row(2))
    parser = argparse.ArgumentParser()
    add_stage_options(parser)
    options = parser.parse_args(["--output", str(tmp_path / "out"), "--workers", "1"])
    with caplog.at_level(logging.WARNING):
        run_as_told(filter_stage(shards, options.output, {"long_line": {"max_characters": 3}}), options)
    assert f"NOTE: {tmp_path}/out holds not one file: 2 were left out as long_line" in caplog.text
    assert "kept: 0 files" in capsys.readouterr().out
    with pytest.raises(
        InputError, match=r"out holds no file: its shards are empty; .* summary\.json there says"
    ):
        filter_stage(options.output, tmp_path / "next", {"empty": {}})


def test_shards_that_are_not_those_of_before_are_named(tmp_path: Path) -> None:
    shards = tmp_path / "in"
    shards.mkdir()
    for number in (1, 2):
        with new_shard(shards / shard_name(0)) as shard:
            shard.write(row(number))
        stage = filter_stage(shards, tmp_path / "out", {"empty": {}})
        if number == 1:
            run_stage(stage)
    with pytest.raises(
        OutputError, match=rf"out was begun with other settings: the input {shards} is another than"
    ):
        run_stage(stage, resume=True)
