"""`pip install .` gives a command `neox` that finds its doors and configs, away from the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def neox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from a copy of the tree into an environment that borrows ours for the rest."""
    folder = tmp_path_factory.mktemp("install")
    for name in ("megatron", "configs", "requirements"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "deepy.py",
        "train.py",
        "generate.py",
        "evaluate.py",
        "pickle_dataset.py",
    ):
        shutil.copy(ROOT / name, folder / "source")
    venv.create(folder / "venv")
    purelib = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    (Path(purelib) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    wheel = [
        *pip,
        "wheel",
        *offline,
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(folder / "source"),
    ]
    done = subprocess.run(wheel, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    install = [*pip, "--python", str(folder / "venv" / "bin" / "python"), "install", *offline, str(built)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "venv" / "bin" / "neox"


def run(neox: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [neox, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_neox_shows_a_shipped_config_from_anywhere(neox: Path, tmp_path: Path) -> None:
    shown = run(neox, "config", "configs/2-7B.yml", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "2,775,208,960" in shown.stdout
    assert str(ROOT) not in shown.stdout


def test_neox_train_starts_the_installed_door(neox: Path, tmp_path: Path) -> None:
    """It gets as far as the data, which there is none of here."""
    started = run(neox, "train", "configs/2-7B.yml", folder=tmp_path)
    assert started.returncode == 2
    assert "data/code-vocab.json" in started.stderr
    assert "Traceback" not in started.stderr
