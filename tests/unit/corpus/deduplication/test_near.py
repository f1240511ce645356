from __future__ import annotations

import random
import re
import subprocess
import sys
import sysconfig
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from megatron.neox.corpus.deduplication.exact import ExactDuplicates
from megatron.neox.corpus.deduplication.near import PRESETS, NearDuplicates
from megatron.neox.corpus.deduplication.parts import column, read_part
from megatron.neox.corpus.stages.folders import lock_folder
from megatron.neox.corpus.stages.running import run_stage
from megatron.neox.corpus.stages.shards import SourceFile
from megatron.neox.errors import OutputError
from tests.unit.corpus.deduplication.files import contents, read_all, source, write_shards
from tests.unit.corpus.deduplication.test_shingles import plain


def library(num_files: int, *, most: int = 6_000) -> list[str]:
    """Real files: of Python's standard library, those that come first in an order of their names."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = (path for part in ("*.py", "[a-z]*/*.py") for path in folder.glob(part))
    paths = sorted(path for path in found if "packages" not in path.parts[-2])
    random.Random(3).shuffle(paths)
    texts = (path.read_bytes() for path in paths)
    usable = (data.decode() for data in texts if 500 < len(data) < most and data.isascii())
    return [text for text, _ in zip(usable, range(num_files))]


def edits(text: str, chance: random.Random) -> list[str]:
    """The same file as others would have it."""
    lines = text.split("\n")
    names = sorted(set(re.findall(r"\b[a-z_]{4,}\b", text)))
    name = chance.choice(names) if names else "x"
    place = chance.randrange(len(lines))
    return [
        re.sub(rf"\b{name}\b", "renamed_" + name, text),
        re.sub(r"#.*", "# another comment", text),
        "# Copyright somebody else\n# All rights reserved\n" + text,
        "\n".join([*lines[:place], "    print('here')  # inserted", "    x = 1", *lines[place:]]),
        "\n".join([*lines[:place], *lines[place + 4 :]]),
        re.sub(r"^( +)", lambda match: "\t" * (len(match[1]) // 4), text, flags=re.M),
        "\n".join(line for line in lines if chance.random() > 0.1),
        "\n".join(chance.choices(lines, k=len(lines))),
    ]


def planted(num_files: int = 120, num_edited: int = 24) -> list[SourceFile]:
    """Real files, and edited copies of some, in an order that mixes them."""
    chance = random.Random(11)
    texts = library(num_files)
    texts += [edit for text in texts[:num_edited] for edit in edits(text, chance)]
    files = [
        source(text, f"{number}.py", stars=chance.choice([None, 5, 50])) for number, text in enumerate(texts)
    ]
    chance.shuffle(files)
    return files


def true_pairs(files: list[SourceFile], preset: str) -> set[tuple[int, int]]:
    """All pairs that are alike, by the sets themselves."""
    near = PRESETS[preset]
    sets = [plain(file.content.encode(), near.shingling) for file in files]
    found = set()
    for a, b in combinations(range(len(files)), 2):
        few, many = sorted((len(sets[a]), len(sets[b])))
        if few and few >= near.threshold * many:
            common = len(sets[a] & sets[b])
            if common >= near.threshold * (few + many - common):
                found.add((a, b))
    return found


def found_pairs(shards: Path, output: Path, preset: str) -> set[tuple[int, int]]:
    """The pairs of files of one shard that the phases before `cluster` settle on, and what follows from equality."""
    near = NearDuplicates(shards, output, PRESETS[preset])
    stage = near.stage()
    stage.work.mkdir(parents=True)
    for phase in stage.phases[:4]:
        for number in range(phase.count()):
            phase.run(number)
    alike, links = (
        [(int(a), int(b)) for a, b in zip(column(table, "first"), column(table, "second"))]
        for table in (read_part(near._all(kind), 0) for kind in ("alike", "links"))
    )
    equal = {file: {file} for pair in [*alike, *links] for file in pair}
    for representative, file in links:
        equal[representative].add(file)
    pairs = {tuple(sorted((a, b))) for one, other in alike for a in equal[one] for b in equal[other]}
    pairs |= {tuple(sorted(pair)) for group in equal.values() for pair in combinations(group, 2)}
    return pairs  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("preset", PRESETS)
def test_precision_and_recall_against_brute_force(tmp_path: Path, preset: str) -> None:
    files = planted()
    expected = true_pairs(files, preset)
    found = found_pairs(write_shards(tmp_path / "in", files), tmp_path / "out", preset)
    assert len(expected) > 300
    assert len(found & expected) / len(found) >= 0.95
    assert len(found & expected) / len(expected) >= 0.95


def test_words_sketched_at_once_and_words_read_again_settle_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = planted(60, 10)
    shards = write_shards(tmp_path / "in", files[:30], [], files[30:])
    stage = NearDuplicates(shards, tmp_path / "at once", PRESETS["codeparrot"]).stage()
    assert run_stage(stage)["left_out"]["near_duplicate"]["Python"]["num_files"] > 40
    monkeypatch.setattr(NearDuplicates, "_sketches_all", False)
    run_stage(NearDuplicates(shards, tmp_path / "again", PRESETS["codeparrot"]).stage())
    assert contents(tmp_path / "at once") == contents(tmp_path / "again")


def clusters(num_files: int, pairs: set[tuple[int, int]]) -> list[int]:
    root = list(range(num_files))

    def find(node: int) -> int:
        while root[node] != node:
            node = root[node]
        return node

    for a, b in pairs:
        root[find(a)] = find(b)
    return [find(node) for node in range(num_files)]


def test_of_each_cluster_the_most_starred_stays(tmp_path: Path) -> None:
    files = planted(60, 10)
    root = clusters(len(files), true_pairs(files, "bytes"))
    best: dict[int, SourceFile] = {}
    for number in sorted(range(len(files)), key=lambda n: (-(files[n].stars or -1), files[n].path)):
        best.setdefault(root[number], files[number])
    expected = [file for number, file in enumerate(files) if best[root[number]] is file]
    shards = write_shards(tmp_path / "in", files[:50], files[50:51], [], files[51:])
    summary = run_stage(NearDuplicates(shards, tmp_path / "out").stage())
    kept = read_all(tmp_path / "out")
    assert summary["left_out"]["near_duplicate"]["Python"]["num_files"] == len(files) - len(kept)
    assert kept == expected
    run_stage(NearDuplicates(shards, tmp_path / "two").stage(), workers=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "out")


def test_a_chain_is_one_cluster(tmp_path: Path) -> None:
    lines = [f"value_{number} = compute({number * 7919})\n" for number in range(200)]
    links = [
        source("".join(lines[start : start + 100]), f"{start}.py", stars=start) for start in range(0, 60, 6)
    ]
    pairs = true_pairs(links, "bytes")
    assert (0, 1) in pairs
    assert (0, 9) not in pairs
    run_stage(NearDuplicates(write_shards(tmp_path / "in", links), tmp_path / "out").stage())
    assert [file.path for file in read_all(tmp_path / "out")] == ["54.py"]


def test_what_is_too_short_to_compare_stays(tmp_path: Path) -> None:
    files = [source("x = 1\n", "a.py"), source("x = 1\n", "b.py"), source("", "c.py"), source(" \n", "d.py")]
    run_stage(NearDuplicates(write_shards(tmp_path / "in", files), tmp_path / "out").stage())
    assert read_all(tmp_path / "out") == files


def test_files_without_a_shingle_and_shards_without_a_file(tmp_path: Path) -> None:
    files = [source("x", "x.py"), source("y\n", "y.py")]
    shards = write_shards(tmp_path / "in", [], files, [])
    summary = run_stage(NearDuplicates(shards, tmp_path / "out").stage())
    assert (summary["kept"]["Python"]["num_files"], summary["left_out"]) == (2, {})
    assert read_all(tmp_path / "out") == files


def test_sketches_of_long_files_settle_pairs_too(tmp_path: Path) -> None:
    chance = random.Random(9)
    lines = [f"row({chance.randrange(10**12)}, {chance.random()})\n" for _ in range(3000)]
    others = [f"other({chance.randrange(10**12)})\n" for _ in range(1500)]
    files = [
        source("".join(lines), "long.py", stars=2),
        source("".join([*lines[:2600], *others[:200]]), "near.py", stars=1),
        source("".join([*lines[:1500], *others]), "half.py"),
    ]
    assert all(np.greater([len(file.content) for file in files], 60_000))
    run_stage(NearDuplicates(write_shards(tmp_path / "in", files), tmp_path / "out").stage())
    assert [file.path for file in read_all(tmp_path / "out")] == ["long.py", "half.py"]


ODD = "\n".join(f"def f{number}(x):\n\treturn x + {number}" for number in range(60)) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "stays_after"),
    [
        ("dup_of_ok.py", ODD, set()),
        ("ws_dup_of_ok.py", ODD.replace("\t", "    "), {"raw"}),
        ("near_dup_of_ok.py", ODD.replace("f7(", "g7("), {"raw", "normalized"}),
        ("other.py", ODD.replace("return x", "raise KeyError, x"), {"raw", "normalized", "near"}),
    ],
)
def test_copies_of_the_crafted_tree(tmp_path: Path, name: str, content: str, stays_after: set[str]) -> None:
    files = [source(content, name), source(ODD, "ok.py", repository="org/starred", stars=9)]
    shards = write_shards(tmp_path / "in", files)
    stages = {
        "raw": ExactDuplicates(shards, tmp_path / "raw").stage(),
        "normalized": ExactDuplicates(shards, tmp_path / "normalized", "normalized").stage(),
        "near": NearDuplicates(shards, tmp_path / "near").stage(),
    }
    for key, stage in stages.items():
        run_stage(stage)
        kept = {file.path for file in read_all(tmp_path / key)}
        assert kept == ({name, "ok.py"} if key in stays_after else {"ok.py"})


def test_two_runs_at_once(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "in", [source(ODD, "a.py")])
    (tmp_path / "out").mkdir()
    with lock_folder(tmp_path / "out"), pytest.raises(OutputError, match="another run is writing"):
        run_stage(NearDuplicates(shards, tmp_path / "out").stage())


_RUN = """
import sys
from pathlib import Path
from megatron.neox.corpus.deduplication.near import NearDuplicates
from megatron.neox.corpus.stages.running import run_stage
run_stage(NearDuplicates(Path(sys.argv[1]), Path(sys.argv[2])).stage())
print("pandas" in sys.modules)
"""


def test_no_process_imports_pandas(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "in", [source(ODD, "a.py"), source(ODD, "b.py")])
    command = [sys.executable, "-c", _RUN, str(shards), str(tmp_path / "out")]
    assert subprocess.check_output(command, text=True) == "False\n"
