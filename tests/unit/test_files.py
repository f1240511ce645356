"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.files import appearing, write_whole


def test_text_replaces_what_was_there_with_its_own_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    write_whole(path, "é\r\n\tb\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n\tb\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with appearing(path) as partial:
            partial.write_text("ne")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
