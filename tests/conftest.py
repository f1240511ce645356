"""What all tests share: one thread for torch, the CPU accelerator, and where PolyCoder's vocabulary lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # tests/gpu runs in processes of its own
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked rank must not inherit a thread pool

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def polycoder() -> Path:
    """Folder with PolyCoder's code-vocab.json and code-merges.txt."""
    folder = Path(os.environ.get("POLYCODER_DIR", ROOT.parent / "shared" / "polycoder"))
    if not (folder / "code-merges.txt").is_file():
        pytest.skip(f"PolyCoder's vocabulary is not at {folder}; POLYCODER_DIR names another place")
    return folder
