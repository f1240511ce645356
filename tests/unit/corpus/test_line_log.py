from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron.neox.corpus.line_log import LineLog
from megatron.neox.errors import InputError


def numbers(path: Path) -> list[int]:
    found: list[int] = []

    def take(row: Any) -> None:
        found.append(row["n"] + 0)

    with LineLog(path, take, "not a number; remove the file"):
        return found


def test_whole_lines_are_read_again_and_half_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert numbers(path) == []
    for number in (1, 2):
        with LineLog(path, lambda _: None, "") as log:
            log.append({"n": number})
            assert path.read_bytes().endswith(b'{"n": %d}\n' % number)  # already, for a kill may come now
    path.write_bytes(path.read_bytes() + b'{"n": 3')
    assert numbers(path) == [1, 2]
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2}\n'


@pytest.mark.parametrize("line", ["{", "{}", '{"n": "1"}', "[1]"])
def test_a_line_that_is_none_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"n": 1}}\n{line}\n{{"n": 2}}\n')
    with pytest.raises(InputError, match=r"log\.jsonl:2: not a number; remove the file"):
        numbers(path)
    assert path.read_text().endswith('{"n": 2}\n')
