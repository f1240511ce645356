from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.errors import InputError
from megatron.neox.quickstart.prompts import cut_prompts, read_prompts, write_prompts

BEFORE = [f"a{line} = {line}\n" for line in range(30)]
AFTER = [f"\treturn {line}\n" for line in range(30)]


def write(folder: Path, name: str, opening: str = "def f(x):\n") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join([*BEFORE, opening, *AFTER]), newline="")


def test_a_prompt_ends_with_the_line_that_opens_a_block(tmp_path: Path) -> None:
    write(tmp_path, "pack/a.py")
    (prompt,) = cut_prompts(tmp_path)
    assert prompt.source == "pack/a.py"
    assert prompt.text.splitlines(keepends=True) == [*BEFORE[-9:], "def f(x):"]
    assert prompt.real.startswith("\n\treturn 0\n\treturn 1\n")
    assert len(prompt.real.splitlines()) == 11


def test_a_prompt_is_short_enough_for_any_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("".join([*BEFORE, f"x = '{'y' * 210}'\n", "def f(x):\n", *AFTER]))
    (tmp_path / "b.py").write_text("".join([*BEFORE, f"def f({'x' * 300}):\n", *AFTER]))
    (prompt,) = cut_prompts(tmp_path)
    assert prompt.text == f"a29 = 29\nx = '{'y' * 210}'\ndef f(x):"


def test_three_prompts_come_from_files_spread_over_the_folder(tmp_path: Path) -> None:
    for name in "abcde":
        write(tmp_path, f"{name}.py")
    assert [prompt.source for prompt in cut_prompts(tmp_path)] == ["a.py", "c.py", "e.py"]


def test_prompt_files_keep_tabs_and_newlines(tmp_path: Path) -> None:
    write(tmp_path / "heldout", "a.c", "\tif (x)\t{\n")
    write_prompts(tmp_path / "heldout", tmp_path / "prompts")
    assert (tmp_path / "prompts" / "1.txt").read_bytes().endswith(b"a29 = 29\n\tif (x)\t{")
    assert [prompt.source for prompt in read_prompts(tmp_path)] == ["a.c"]


def test_files_without_blocks_are_cut_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "a.rb").write_text("".join(f"def f{line}; end\n" for line in range(30)))
    (tmp_path / "b.rb").write_text("x = 1\ny = 2\n")
    (tmp_path / "c.rb").write_text("z = 3\n")
    one, two = cut_prompts(tmp_path)
    assert one.text.splitlines() == [f"def f{line}; end" for line in range(5, 15)]
    assert one.real.startswith("\ndef f15; end\n")
    assert (two.text, two.real) == ("x = 1", "\ny = 2\n")


def test_a_folder_without_a_file_to_complete_is_said(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("x = 1\n")
    with pytest.raises(InputError, match=r"no file below .* has two lines"):
        cut_prompts(tmp_path)
