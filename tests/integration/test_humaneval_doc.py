"""The worked example of docs/humaneval.md: its program and commands print what stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_worked_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "humaneval.md").read_text(encoding="utf-8")
    example = page.partition("### A worked example")[2].partition("### Speed")[0]
    program = re.findall(r"```python\n(.*?)```", example, re.DOTALL)[0]
    session = re.findall(r"```\n(\$.*?)```", example, re.DOTALL)[0]
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    for command, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", session, re.MULTILINE):
        tool, *arguments = command.split()
        ran = subprocess.run(
            [sys.executable, str(ROOT / tool), *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ), timeout=300,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert _without_machine(ran.stderr + ran.stdout) == _without_machine(shown)


def _without_machine(text: str) -> list[str]:
    """Lines but that of the sandbox, which is the best that a machine has."""
    return [line for line in text.splitlines() if not line.startswith("  sandbox: ")]
