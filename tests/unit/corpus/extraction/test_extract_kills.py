"""SIGKILL at random instants of an extraction, then --resume: the output is what it would have been."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from megatron.neox.corpus.extraction.extract import extraction
from megatron.neox.corpus.extraction.source_files import ExtractSettings
from megatron.neox.corpus.stages.running import run_stage
from tests.unit.corpus.killing import Straight, instants, straight


def extract(source: Path, form: Literal["parquet", "tree"], output: Path) -> None:
    settings = ExtractSettings(input=source, output=output, format=form, repositories_per_task=2)
    run_stage(extraction(settings), resume=True)


@pytest.fixture(scope="module", params=["parquet", "tree"])
def left_alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    source = tmp_path_factory.mktemp("source")
    for repository in range(8):
        for number in range(6):
            path = source / "Python" / f"org{repository}" / "project" / "a" / f"{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"def f{repository}(x):\n    return x + {number}\n" * 20)
    return straight(partial(extract, source, request.param), tmp_path_factory.mktemp("out"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", instants(2))
def test_a_killed_extraction_goes_on_and_gives_the_same_bytes(left_alone: Straight, seed: int) -> None:
    left_alone.check(seed)
