"""Prompts: escapes of typed ones, files as GPT-NeoX reads them, and what is said of those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.errors import InputError
from megatron.neox.generation.prompts import human_eval_prompts, read_prompt_files, unescape


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"def f():\n\treturn", "def f():\n\treturn"),
        (r"print('a\\n')", r"print('a\n')"),
        (r"\\\n", "\\\n"),
        (r"\d+\.", r"\d+\."),
        ("ends in \\", "ends in \\"),
    ],
)
def test_escapes_of_a_typed_prompt(typed: str, meant: str) -> None:
    assert unescape(typed) == meant


def test_a_whole_file_is_one_prompt_stripped_unless_told_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "prompt.py"
    file.write_bytes(b"\n  def f(x):\r\n\treturn x\n\n")
    assert read_prompt_files(file, strip=True) == {str(file): "def f(x):\n\treturn x"}
    assert read_prompt_files(file, strip=False) == {str(file): "\n  def f(x):\n\treturn x\n\n"}


def test_a_folder_holds_one_prompt_a_file(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "deeper/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    prompts = read_prompt_files(tmp_path, strip=True)
    assert list(prompts.values()) == ["a.py", "b.py", "deeper/c.py"]
    assert list(prompts)[-1] == str(tmp_path / "deeper" / "c.py")


def test_files_that_cannot_be_prompts(tmp_path: Path) -> None:
    blank, binary = tmp_path / "blank", tmp_path / "binary"
    blank.write_text(" \n")
    binary.write_bytes(b"ab\xff")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="absent does not exist"):
        read_prompt_files(tmp_path / "absent", strip=True)
    with pytest.raises(InputError, match=r'blank holds no text; .*"unconditional"'):
        read_prompt_files(blank, strip=False)
    with pytest.raises(InputError, match="binary is not UTF-8: byte 0xff at offset 2"):
        read_prompt_files(binary, strip=True)
    with pytest.raises(InputError, match="folder is a folder without files"):
        read_prompt_files(tmp_path / "folder", strip=True)


def test_human_eval_has_164_prompts_which_stripping_changes() -> None:
    stripped, whole = human_eval_prompts(strip=True), human_eval_prompts(strip=False)
    assert (len(stripped), len(whole)) == (164, 164)
    assert stripped["HumanEval/0"].startswith("from typing import List\n\n\ndef has_close_elements(")
    assert all(stripped[name] == prompt.strip() != prompt for name, prompt in whole.items())
