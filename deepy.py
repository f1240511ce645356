#!/usr/bin/env python3
"""Start training, generation or evaluation from config files: `./deepy.py train.py configs/160M.yml`."""

# Every other door imports this file first, so that `enter` can find the environment before anything else is needed:
# keep it free of imports outside the standard library, and of syntax newer than Python 3.8.
from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
_NEEDED = ("yaml", "pydantic", "numpy", "torch", "deepspeed")


def enter() -> None:
    """Make `megatron.neox` importable, in the `.venv` beside this file where the environment at hand lacks something.

    Exits with code 2 and a message where what is needed is nowhere.
    """
    # Our evaluate.py must not stand in the way of the package `evaluate`, nor tools/ in that of any other.
    here = str(Path(sys.argv[0]).resolve().parent) if sys.argv and sys.argv[0] else ""
    sys.path[:] = [entry for entry in sys.path if entry and entry not in (str(ROOT), here)]
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent or sys.version_info < (3, 11):
        _move_to_venv(absent)
    sys.path.append(str(ROOT))
    megatron = importlib.import_module("megatron")
    ours = str(ROOT / "megatron")
    # A checkout comes before a copy of it that was installed some other time.
    megatron.__path__ = [ours] + [entry for entry in megatron.__path__ if entry != ours]


def _move_to_venv(absent: list[str]) -> None:
    """Replace this process by the same command under the `.venv`, or exit with a message."""
    python = ROOT / ".venv" / "bin" / "python"
    inside = Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()
    if not inside and os.access(str(python), os.X_OK):
        os.execv(str(python), [str(python), *_own_command()])
    found = ", ".join(absent) if absent else "nothing"
    sys.exit(_fail(found, inside))


def _own_command() -> list[str]:
    original = getattr(sys, "orig_argv", None)
    return list(original[1:]) if original else list(sys.argv)


def _fail(found: str, inside: bool) -> int:
    version = ".".join(map(str, sys.version_info[:3]))
    where = f"{ROOT / '.venv'} lacks" if inside else f"{sys.executable} (Python {version}) lacks"
    sys.stderr.write(
        f"DependencyError\n{where}: {found}; and there is no usable environment in {ROOT / '.venv'}\n"
        "  set one up (Python 3.11 to 3.13):  make -C "
        f"{ROOT} .venv/base\n  or:  python3 -m pip install -r {ROOT / 'requirements' / 'requirements.txt'}\n"
    )
    return 2


if __name__ == "__main__":
    enter()
    from megatron.neox.launch import deepy

    sys.exit(deepy(sys.argv[1:]))
