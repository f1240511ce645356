"""The shape of the house: namespace, tiers, and what the doors may import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOORS = [
    *sorted(ROOT.glob("*.py")),
    *sorted((ROOT / "tools").rglob("*.py")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
]
_BARE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}


def _run(
    *command: str, folder: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment, timeout=120
    )


def test_megatron_is_a_namespace() -> None:
    """An __init__.py there would hide megatron.core (docs/design.md, section 2)."""
    assert not (ROOT / "megatron" / "__init__.py").exists()


def test_imports_point_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    ran = _run(str(lint))
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("door", DOORS, ids=lambda path: str(path.relative_to(ROOT)))
def test_help_works_and_ends_with_two_examples(door: Path) -> None:
    """From another directory, and without the engine: --help is there at once."""
    ran = _run(sys.executable, str(door), "--help", folder=Path("/"))
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.rstrip().splitlines()
    commands = [
        line
        for line in lines[-6:]
        if line.lstrip(" $").startswith(("./", "python", "tools/", "benchmarks/", "neox "))
    ]
    assert len(commands) >= 2, "\n".join(lines[-6:])
    described, _, examples = ran.stdout.rpartition("examples:")
    told = set(re.findall(r"(?<![\w-])--[-\w]+", described))
    assert set(re.findall(r"(?<=\s)--[-\w]+", examples)) <= told


@pytest.mark.parametrize(
    "arguments", [["--help"], ["config", "configs/2-7B.yml"], ["plugins", "monitor"]], ids=str
)
def test_deepy_needs_no_torch(arguments: list[str]) -> None:
    code = (
        "import runpy, sys, atexit\n"
        f"sys.argv = ['deepy.py', *{arguments!r}]\n"
        "@atexit.register\n"
        "def told(): sys.stderr.write(' '.join(n for n in ('torch', 'deepspeed') if n in sys.modules))\n"
        "runpy.run_path('deepy.py', run_name='__main__')\n"
    )
    ran = _run(sys.executable, "-c", code)
    assert ran.returncode == 0
    assert ran.stdout
    assert ran.stderr == ""


def test_a_door_finds_the_environment_beside_it() -> None:
    """From a shell with nothing set, in another directory, by the system's own Python."""
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve() or not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("needs the checkout's .venv and a system Python")
    ran = _run(
        "/usr/bin/python3", str(ROOT / "deepy.py"), "config", "160M", folder=Path("/"), environment=_BARE
    )
    assert ran.returncode == 0, ran.stderr
    assert "162,322,944" in ran.stdout


def test_without_any_environment_the_remedy_is_told(tmp_path: Path) -> None:
    copy = tmp_path / "deepy.py"
    copy.write_text((ROOT / "deepy.py").read_text())
    ran = _run(sys.executable, "-S", "-E", str(copy), "--help", folder=tmp_path, environment=_BARE)
    assert ran.returncode == 2
    assert ran.stderr.startswith("DependencyError\n")
    assert "requirements/requirements.txt" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_evaluate_does_not_shadow_the_package(tmp_path: Path) -> None:
    """evaluate.py beside the doors must not stand in for the package that lm-eval imports."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import deepy; deepy.enter()\n"
        "import importlib.util; print(importlib.util.find_spec('evaluate').origin)\n"
        "import megatron.core, megatron.neox.errors as ours; print(ours.__file__)\n"
    )
    ran = _run(sys.executable, "-W", "ignore", "-c", code, folder=tmp_path)
    origin, ours = ran.stdout.splitlines()
    assert "site-packages" in origin
    assert Path(ours) == ROOT / "megatron" / "neox" / "errors.py"
