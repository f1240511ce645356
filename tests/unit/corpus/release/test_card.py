from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.corpus.filters.stage import filter_stage
from megatron.neox.corpus.release.card import (
    DataCard,
    gigabytes,
    language_table,
    license_table,
    read_summaries,
)
from megatron.neox.corpus.release.census import take_census
from megatron.neox.corpus.release.split import split_stage
from megatron.neox.corpus.stages.running import run_stage
from megatron.neox.corpus.stages.shards import SourceFile, find_shards, new_shard, shard_name
from megatron.neox.errors import InputError


def row(repository: str, language: str, size: int, licenses: list[str]) -> SourceFile:
    path = f"{size}.x"
    return SourceFile(
        repository, language, path, f"{size:064}", size, 1, licenses, None, False, "x = 1\n" * 9
    )


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        with new_shard(folder / shard_name(number)) as shard:
            for index in range(20):
                repository = f"o/p{index % 10}"
                shard.write(
                    row(repository, "C" if index % 2 else "Python", 10**6 + index, ["MIT"] if index else [])
                )
            shard.write(row("o/p0", "C", 1000, ["MIT", "GPL-2.0-only"]))
    return folder


def test_the_table_is_that_of_polycoders_readme(shards: Path) -> None:
    census = take_census(find_shards(shards))
    assert language_table(census) == (
        "|Language|Repositories|Size(GB)|Files|\n"
        "|------|-----|-----|-------|\n"
        "|C | 6 | 0.02G | 22 |\n"
        "|Python | 5 | 0.02G | 20 |\n"
        "|**all** | 10 | 0.04G | 42 |\n"
    )
    assert {name: amount.num_files for name, amount in census.licenses.items()} == {
        "MIT": 40, "not known": 2, "GPL-2.0-only": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(55 * 10**9, "55G"), (4_100_000_000, "4.1G"), (9_960_000_000, "10G"), (123_400_000, "0.12G"), (5100, "0.0000051G"),
     (0, "0G"), (1_234_000_000_000, "1,234G")],
)  # fmt: skip
def test_sizes_are_written_as_there(num_bytes: int, text: str) -> None:
    assert gigabytes(num_bytes) == text


def test_a_card_tells_it_all(shards: Path, tmp_path: Path) -> None:
    chosen = {"license": {}, "no_keywords": {"seed": 7, "probability": 0.0}}
    run_stage(filter_stage(shards, tmp_path / "out", chosen))
    summaries = read_summaries([tmp_path / "out"])
    census = take_census(find_shards(tmp_path / "out"))
    card = DataCard(
        title="Mine", parts={"out": census}, stages=summaries, datasets={"a_text_document": (1234567, 89)},
        commit="0123abc", funnel="funnel.png", data_files={"train": "train/*.parquet"},
    )  # fmt: skip
    card.write(tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    for line in (
        "  - split: train\n    path: train/*.parquet", "# Mine", "|C | 5 | 0.02G | 20 |",
        "|a_text_document | 1,234,567 | 89 |", "|filter | license_unknown | 2 | 2,000,000 |",
        "|filter | license | 2 | 2,000 |", "|filter | **kept** | 38 |", "![What is left after each step](funnel.png)",
        '"probability": 0.0', "- filter, filters, no_keywords: 7", "- this software: commit 0123abc", "- pyarrow ",
    ):  # fmt: skip
        assert line in text
    with pytest.raises(InputError, match="is no finished stage's output"):
        read_summaries([shards])


def test_names_of_others_stay_in_their_cell(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with new_shard(tmp_path / "in" / shard_name(0)) as shard:
        shard.write(row("o/p", "C|<img src=x>", 1, ["MIT |\n# Pwned", "[x](http://x)"]))
    census = take_census(find_shards(tmp_path / "in"))
    assert "|C&#124;&#60;img src=x&#62; | 1 |" in language_table(census)
    assert "|MIT &#124; # Pwned | 1 |" in license_table(census)
    assert "|&#91;x&#93;(http://x) | 1 |" in license_table(census)


def test_tokens_are_counted_by_language(shards: Path, polycoder: Path) -> None:
    from megatron.neox.corpus.filters.tokens import load_encoder

    encoder = load_encoder(None, f"{polycoder}/code-vocab.json", f"{polycoder}/code-merges.txt")
    each = len(encoder.encode(["x = 1\n" * 9])[0])
    census = take_census(find_shards(shards), encoder)
    assert census.tokens == {"C": 22 * each, "Python": 20 * each}
    assert f"|**all** | 10 | 0.04G | 42 | {42 * each:,} |" in language_table(census)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_repository_is_on_one_side(shards: Path, tmp_path: Path, share: float) -> None:
    repositories = {}
    for side in ("train", "valid"):
        run_stage(split_stage(shards, tmp_path / side, side, share=share, seed=1))
        census = take_census(find_shards(tmp_path / side))
        repositories[side] = set().union(*census.repositories.values())
    assert not repositories["train"] & repositories["valid"]
    assert len(repositories["train"] | repositories["valid"]) == 10
    assert bool(repositories["valid"]) == bool(share)
    assert len(repositories["valid"]) <= 3


def test_one_repository_cannot_be_divided(tmp_path: Path) -> None:
    for name, repository in (("one", "o/p"), ("none", "unknown/unknown")):
        (tmp_path / name).mkdir()
        with new_shard(tmp_path / name / shard_name(0)) as shard:
            for size in range(1, 401):
                shard.write(row(repository, "C", size, []))
    with pytest.raises(
        InputError, match="holds one repository, which cannot be divided; --valid-share 0 keeps"
    ):
        split_stage(tmp_path / "one", tmp_path / "out", "train", share=0.1, seed=1)
    run_stage(split_stage(tmp_path / "one", tmp_path / "all", "train", share=0.0, seed=1))
    summary = run_stage(split_stage(tmp_path / "none", tmp_path / "drawn", "valid", share=0.1, seed=1))
    assert 20 < summary["kept"]["C"]["num_files"] < 60
