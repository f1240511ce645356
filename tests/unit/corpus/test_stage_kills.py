"""Every stage, killed at random instants and resumed, writes what it would have written."""

from __future__ import annotations

import json
import runpy
import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest

from megatron.neox.config import TokenizerConfig
from megatron.neox.corpus.deduplication.exact import ExactDuplicates
from megatron.neox.corpus.deduplication.near import NearDuplicates
from megatron.neox.corpus.filters.stage import filter_stage
from megatron.neox.corpus.importing.import_dataset import PRESETS, ImportSettings, importing
from megatron.neox.corpus.index.writer import write_index
from megatron.neox.corpus.protection.protect import Protection, protect_stage
from megatron.neox.corpus.release.split import split_stage
from megatron.neox.corpus.stages.running import run_stage
from megatron.neox.corpus.stages.stage import Stage
from megatron.neox.data.tokenize import TokenizeSettings, tokenize
from tests.unit.corpus.deduplication.files import source, write_shards
from tests.unit.corpus.killing import Run, Straight, instants, straight

ROOT = Path(__file__).resolve().parents[3]


def stage(name: str, folder: Path, output: Path) -> Stage:
    if name == "filter":
        return filter_stage(folder, output, {"long_line": {"max_characters": 60}})
    if name == "protect":
        return protect_stage(folder, output, Protection())
    if name == "exact":
        return ExactDuplicates(folder, output).stage()
    if name == "near":
        return NearDuplicates(folder, output).stage()
    if name == "import":
        return importing(
            ImportSettings(inputs=(str(folder / "rows"),), output=output, columns=PRESETS["codeparrot"])
        )
    return split_stage(folder, output, "train", share=0.3, seed=1)


def run_one(name: str, folder: Path, output: Path) -> None:
    run_stage(stage(name, folder, output), resume=True)


def index(folder: Path, output: Path) -> None:
    for name in ("index.zip", "index.txt"):
        write_index(folder, output / name, overwrite=True)


def clean(folder: Path, output: Path) -> None:
    """The command itself: all stages, the card and the picture."""
    tool = ROOT / "tools" / "collect" / "clean_dataset.py"
    arguments = ["--input", folder, "--preset", "codeparrot", "--protect", "--valid-share", "0.3", "--resume"]
    sys.argv = [str(tool), *map(str, arguments), "--workers", "1", "--output", str(output / "clean")]
    try:
        runpy.run_path(str(tool), run_name="__main__")
    except SystemExit as end:
        assert not end.code  # noqa: PT017 - it always raises


def encode(folder: Path, vocabulary: Path, output: Path) -> None:
    tokenizer = TokenizerConfig(
        tokenizer_type="GPT2BPETokenizer",
        vocab_file=str(vocabulary / "code-vocab.json"),
        merge_file=str(vocabulary / "code-merges.txt"),
    )
    tokenize(
        TokenizeSettings(
            inputs=[folder],
            output_prefix=str(output / "code"),
            tokenizer=tokenizer,
            resume=True,
        )
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight shards of twelve repositories: copies, near ones, long lines, addresses; and their rows as JSON."""
    folder, chance = tmp_path_factory.mktemp("corpus") / "shards", Random(6)
    files = []
    for number in range(240):
        lines = [f"value_{number % 90}_{line} = {line * 7919}\n" for line in range(60)]
        lines[chance.randrange(60)] = chance.choice(["edited\n", "x" * 70 + "\n", "# jane@corp.example\n"])
        files.append(
            source("".join(lines), f"{number}.py", repository=f"org/p{number % 12}", stars=number % 5)
        )
    write_shards(folder, *(files[start : start + 30] for start in range(0, 240, 30)))
    (folder / "rows").mkdir()
    for part in range(4):
        rows = [
            {"repo_name": f.repository, "path": f.path, "content": f.content, "license": "mit"}
            for f in files[part * 60 :][:60]
        ]
        (folder / "rows" / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


STAGES = ("filter", "protect", "split", "exact", "near", "import")


@pytest.fixture(scope="module", params=[*STAGES, "index", "clean", "tokenize"])
def left_alone(
    request: pytest.FixtureRequest, shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> Straight:
    name = request.param
    if name in STAGES:
        run: Run = partial(run_one, name, shards)
    elif name == "tokenize":
        run = partial(encode, shards, request.getfixturevalue("polycoder"))
    else:
        run = partial({"index": index, "clean": clean}[name], shards)
    return straight(run, tmp_path_factory.mktemp(name))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", instants(2))
def test_what_was_killed_and_resumed_is_what_it_would_have_been(left_alone: Straight, seed: int) -> None:
    left_alone.check(seed)
