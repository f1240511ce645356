from __future__ import annotations

import random
from pathlib import Path

import pytest

from megatron.neox.corpus.deduplication import parts
from megatron.neox.corpus.deduplication.exact import ExactDuplicates, Key, digest_without_space
from megatron.neox.corpus.stages.running import run_stage
from megatron.neox.errors import InputError, OutputError
from tests.unit.corpus.deduplication.files import contents, read_all, source, write_shards

CODE = "def f(x):\n\treturn x\n"


def kept(folder: Path) -> list[str]:
    return [f"{file.repository}/{file.path}" for file in read_all(folder)]


def test_of_copies_in_any_language_and_repository_the_most_starred_stays(tmp_path: Path) -> None:
    shards = write_shards(
        tmp_path / "shards",
        [source(CODE, "a.py", stars=3), source("x = 1\n", "own.py"), source(CODE, "h.h", language="C")],
        [source(CODE, "z.h", repository="big/project", stars=900, language="C++")],
        [source(CODE, "b.h", repository="big/project", stars=900, language="C"), source("", "empty.py")],
    )
    summary = run_stage(ExactDuplicates(shards, tmp_path / "out").stage())
    # 900 stars before 3 and none; of equal stars b.h comes before z.h.
    assert kept(tmp_path / "out") == ["org/project/own.py", "big/project/b.h", "org/project/empty.py"]
    assert summary["left_out"] == {
        "duplicate": {
            "C": {"num_files": 1, "num_bytes": len(CODE)},
            "C++": {"num_files": 1, "num_bytes": len(CODE)},
            "Python": {"num_files": 1, "num_bytes": len(CODE)},
        }
    }
    assert summary["kept"] == {
        "C": {"num_files": 1, "num_bytes": len(CODE)},
        "Python": {"num_files": 2, "num_bytes": 6},
    }


@pytest.mark.parametrize(
    ("key", "left"), [("raw", ["a.py", "b.py", "c.py"]), ("normalized", ["a.py", "c.py"])]
)
def test_white_space_counts_unless_it_is_normalized(tmp_path: Path, key: Key, left: list[str]) -> None:
    files = [source(CODE, "a.py"), source(CODE.replace("\t", "    "), "b.py"), source("y = 2\n", "c.py")]
    run_stage(ExactDuplicates(write_shards(tmp_path / "in", files), tmp_path / "out", key).stage())
    assert [file.path for file in read_all(tmp_path / "out")] == left


def test_what_stands_in_an_index_is_left_out(tmp_path: Path) -> None:
    files = [source(f"x = {number}\n", f"{number}.py") for number in range(4)]
    (tmp_path / "one").write_text(
        f"C__a__b__c.c\t{'0' * 64}\nPython__a__b__c.py\t{files[1].sha256.upper()}\n"
    )
    (tmp_path / "two").write_text(f"Python__x__y__z.py\t{files[3].sha256}\r\n")
    shards = write_shards(
        tmp_path / "in", [*files, source("x = 1\n", "copy.py"), source("x = 0\n", "dup.py")]
    )
    stage = ExactDuplicates(shards, tmp_path / "out", against=[tmp_path / "one", tmp_path / "two"]).stage()
    summary = run_stage(stage)
    assert [file.path for file in read_all(tmp_path / "out")] == ["0.py", "2.py"]
    assert {reason: found["Python"]["num_files"] for reason, found in summary["left_out"].items()} == {
        "duplicate": 1,
        "in_index": 3,
    }


def random_shards(folder: Path) -> Path:
    """300 files of 90 contents, in 5 shards, one of them empty."""
    chance = random.Random(7)
    files = [
        source(
            f"x = {chance.randrange(90)}\n",
            f"{chance.randrange(10**9)}.py",
            stars=chance.choice([None, 1, 2]),
        )
        for _ in range(300)
    ]
    return write_shards(folder, files[:100], files[100:110], [], files[110:250], files[250:])


@pytest.mark.parametrize("workers", [1, 2])
def test_buckets_give_what_a_dictionary_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    shards = random_shards(tmp_path / "in")
    best = {}
    files = read_all(shards)
    for file in sorted(files, key=lambda file: (-(file.stars or -1), file.repository, file.path)):
        best.setdefault(file.sha256, file)
    expected = [file for file in files if best[file.sha256] is file]
    run_stage(ExactDuplicates(shards, tmp_path / "one").stage(), workers=workers)
    assert read_all(tmp_path / "one") == expected
    monkeypatch.setattr(parts, "BUCKET_ROWS", 40)
    run_stage(ExactDuplicates(shards, tmp_path / "many").stage())
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_white_space_is_unicodes() -> None:
    text = "a\t b\u00a0c\u3000\x1c\n日\u2028本"
    assert digest_without_space(text) == digest_without_space("abc日本")
    assert digest_without_space("a\x1c\x0b b") == digest_without_space("ab")


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder of shards"):
        ExactDuplicates(tmp_path / "absent", tmp_path / "out").stage()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "shard-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"shard-00000.parquet"):
        ExactDuplicates(tmp_path / "bad", tmp_path / "out").stage()
    shards = write_shards(tmp_path / "in", [source("x\n", "a.py")])
    with pytest.raises(InputError, match=r"the index .*absent does not exist"):
        ExactDuplicates(shards, tmp_path / "out", against=[tmp_path / "absent"]).stage()
    run_stage(ExactDuplicates(shards, tmp_path / "out").stage())
    with pytest.raises(OutputError, match="other settings: key was 'raw' and is 'normalized'"):
        run_stage(ExactDuplicates(shards, tmp_path / "out", "normalized").stage(), resume=True)
