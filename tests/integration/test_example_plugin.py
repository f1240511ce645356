"""examples/squared_relu as its README has it: installed by pip, listed with its origin, trained with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.training_case import ROOT, environment, metrics, write_config, write_dataset

EXAMPLE = ROOT / "examples" / "squared_relu"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that the package was installed into."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")  # a build leaves folders beside the source
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--target", str(folder / "site"), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder / "site"


def deepy(*arguments: str, python_path: Path | None) -> subprocess.CompletedProcess[str]:
    variables = environment()
    if python_path is not None:
        variables["PYTHONPATH"] = os.pathsep.join(
            [str(python_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
    return subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), *arguments],
        env=variables, capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip


def test_the_list_of_plugins_says_where_it_comes_from(installed: Path) -> None:
    done = deepy("plugins", "activation", python_path=installed)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.split()[:1] == ["squared_relu"]]
    assert 'relu(x) ** 2 (So et al. 2021, "Primer", section 4).' in lines[place]
    assert lines[place + 1].strip() == f"from: squared_relu ({installed / 'squared_relu.py'})"


def test_a_package_that_cannot_be_imported_is_told(installed: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(installed, tmp_path / "site")
    (broken / "squared_relu.py").write_text("import absent_module\n")
    done = deepy("plugins", "activation", python_path=broken)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("not loaded: squared_relu (neox-squared-relu 0.1): Module")


def config(folder: Path, **keys: object) -> Path:
    data = write_dataset(folder / "data")
    keys |= {"data_path": data, "save": str(folder / "run"), "activation": "squared_relu"}
    return write_config(folder / "tiny.yml", train_iters=1, hidden_dropout=0.0, eval_interval=1, **keys)


@pytest.mark.long
def test_it_trains_installed_and_by_its_file_alike(installed: Path, tmp_path: Path) -> None:
    losses = []
    for name, python_path in (("package", installed), ("file", None)):
        (tmp_path / name).mkdir()
        plugins = [] if python_path else [str(EXAMPLE / "squared_relu.py")]
        done = deepy("train.py", str(config(tmp_path / name, plugins=plugins)), python_path=python_path)
        assert done.returncode == 0, done.stderr
        losses.append([row["loss"] for row in metrics(tmp_path / name / "run") if "loss" in row])
        assert (tmp_path / name / "run" / "latest").read_text().strip() == "global_step1"
    assert len(losses[0]) == 1
    assert losses[0] == losses[1]


def test_without_it_the_name_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = deepy("train.py", str(config(tmp_path)), python_path=None)
    assert done.returncode == 2
    assert "no activation is named 'squared_relu' (YAML key 'activation')" in done.stderr
    assert "known: bilinear, geglu" in done.stderr
    assert "Traceback" not in done.stderr
