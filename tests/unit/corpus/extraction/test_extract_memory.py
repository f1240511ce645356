"""Extraction needs as much memory for much as for little."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[4] / "tools" / "collect" / "extract_code.py"


def peak_bytes(source: Path, output: Path) -> int:
    """The largest resident size of an extraction in one process."""
    command = [sys.executable, str(TOOL), "--input", str(source), "--output", str(output), "--workers", "1"]
    process = subprocess.Popen([*command, "--repositories-per-task", "1"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert status == 0
    return usage.ru_maxrss << 10


@pytest.mark.long
def test_eight_times_the_input_takes_no_more_memory(tmp_path: Path) -> None:
    """40 and 320 MB; the files of the second are links to those of the first."""
    words = random.Random(0).choices(range(10**9), k=4000)
    for number in range(2):
        folder = tmp_path / "small" / "Python" / f"org{number}" / "project"
        folder.mkdir(parents=True)
        for name in range(400):
            lines = (f"x{word} = {word + name} + y{name}\n" for word in words[name : name + 1600])
            (folder / f"{name}.py").write_text("".join(lines))
    for copy in range(8):
        for number in range(2):
            folder = tmp_path / "big" / "Python" / f"org{number}-{copy}" / "project"
            folder.mkdir(parents=True)
            for file in (tmp_path / "small" / "Python" / f"org{number}" / "project").iterdir():
                os.link(file, folder / file.name)
    small, big = (peak_bytes(tmp_path / name, tmp_path / f"{name}-out") for name in ("small", "big"))
    assert big < 1.1 * small
