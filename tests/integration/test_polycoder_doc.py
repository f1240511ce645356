"""docs/polycoder.md, command by command, on a miniature tar that a server on this machine hands out."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron.neox.downloads import polycoder as released
from tests.integration.origin import Origin, serving
from tests.neox_2022 import unpack_tar

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "polycoder.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", TEXT, re.M)
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.S)

# The miniature's sizes, what fp16 is on a CPU, and little work.
TRAINING = (
    "num_layers=2 hidden_size=64 num_attention_heads=4 precision=fp32 train_micro_batch_size_per_gpu=1 "
    "gradient_accumulation_steps=1 train_iters=1 eval_interval=0 split=100,0,0"
)


@pytest.fixture(scope="module")
def checkout(polycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder that looks like a fresh checkout, and the server's address."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "tools", "deepy.py", "train.py", "generate.py", "evaluate.py"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "prompt.py").write_text("def return1():\n  ")
    (folder / "code").mkdir()
    for name in ("errors.py", "plugins.py"):
        (folder / "code" / name).write_text((ROOT / "megatron" / "neox" / name).read_text())
    origin = Origin()
    origin.release("2-7B-150K.tar", _tar(tmp_path_factory.mktemp("tar")))
    for name in ("code-vocab.json", "code-merges.txt"):
        origin.files[f"/{released.VOCABULARY_FOLDER}/{name}"] = (polycoder / name).read_bytes()
    with serving(origin):
        yield folder, origin.url


def _tar(folder: Path) -> bytes:
    unpack_tar(folder, "2-7B")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder / "checkpoints", arcname=".")
    return packed.getvalue()


def _shortened(command: str, url: str) -> list[str]:
    words = shlex.split(command)
    extra = {
        "download_checkpoint.py": f"--mirror {url}",
        "generate.py": "--set maximum_tokens=4",
        "train.py": " ".join(f"--set {setting}" for setting in TRAINING.split()),
    }
    return words + next((shlex.split(more) for script, more in extra.items() if script in command), [])


@pytest.mark.long
def test_every_command_runs(checkout: tuple[Path, str]) -> None:
    folder, url = checkout
    assert len(COMMANDS) == 13
    for command in COMMANDS:
        _make_data(folder, command)
        words = _shortened(command, url)
        typed = 'def return1():\\n  """Returns 1."""\\n  \n'
        ran = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            input=typed,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr, ran.stderr
        if "--to hf" in command:
            difference = re.search(r"check against transformers: .*?([0-9.]+e[-+][0-9]+)", ran.stdout)
            assert difference is not None, ran.stdout
            assert float(difference[1]) <= 1e-5
    assert (folder / "2.7b-humaneval-outputs.jsonl").read_text().count("\n") == 164
    assert (folder / "samples.jsonl").read_text().count('"context": "def return1():\\n  "') == 2
    ran = subprocess.run(
        [sys.executable, "-c", SNIPPETS[0]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("def binarySearch(arr, left, right, x):\n    mid = (left +") == 4


def _make_data(folder: Path, command: str) -> None:
    """The dataset that a user has when it comes to training."""
    if "train.py" not in command:
        return
    made = shlex.split(
        "tools/preprocess_data.py --input code --tokenizer-type GPT2BPETokenizer --vocab-file data/code-vocab.json"
        " --merge-file data/code-merges.txt --output-prefix data/code/code"
    )
    subprocess.run([sys.executable, *made], cwd=folder, check=True, capture_output=True)
