"""docs/from-the-seeds.md: every command of the column "here" runs on a miniature, or is run by the test named here."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from megatron.neox.evaluation.languages import LANGUAGES
from tests.huggingface_folders import NUM_POSITIONS, save_model
from tests.integration.completions import Completions, serve
from tests.integration.origin import Origin, serving
from tests.neox_2022 import unpack_tar

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "from-the-seeds.md").read_text(encoding="utf-8")
SOURCE = "def half(number):\n\treturn number / 2\n"

NOT_RUN = {"docker": "no Docker where this is tested"}
"""First words of commands that cannot be run here, and why."""

SHORTER = {
    "download_eval_data.py": "--mirror {url}",
    "code_ppl.yml": "--set eval_limit=1 --set eval_results_path=eval_results.json",
    "validation_loss": "--set eval_results_path=validation_loss.json",
    "eval_codex_all.py": "--base-url {endpoint} --model tiny --context-tokens 48",
    "generate.py": "--set maximum_tokens=2 --set num_samples=1",
}
"""What makes a command cheap, by the script that is in it."""

SMALLER = {"--num-samples 100": "--num-samples 1"}

GIVES = {
    "tools/download_eval_data.py": "evaldata/Code-sampled100/Python",
    "humaneval_generation.yml": "2.7b-humaneval-outputs.jsonl",
    "--num-samples": "2.7b-humaneval-outputs.jsonl_results.jsonl",
    "--protocol codeparrot": "codeparrot.jsonl",
    "code_ppl.yml": "eval_results.json",
    "validation_loss": "validation_loss.json",
    "eval_codex_all.py": "eval_codex_all.jsonl",
    "--output losses": "losses_loss.png",
    "--output figure6": "figure6_languages.png",
}
"""What a command leaves behind, by words that are in it."""


def commands(heading: str) -> list[str]:
    """The column "here" of the table under a heading, one command a line of its cells."""
    table = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return [command for row in rows[1:] for command in re.findall(r"`([^`]+)`", row[1])]


def run_by_another(command: str) -> bool:
    """Whether docs/polycoder.md shows it, all of whose commands test_polycoder_doc.py runs."""
    return f"\n$ {command}\n" in (ROOT / "docs" / "polycoder.md").read_text(encoding="utf-8")


def test_the_models_commands_are_run_elsewhere_or_cannot_be() -> None:
    found = commands("Models")
    assert len(found) == 6
    for command in found:
        assert command.split()[0] in NOT_RUN or run_by_another(command), command
    readme, dockerfile = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Dockerfile"))
    for command in found:
        if command.startswith("docker"):
            assert command in re.sub(r"\s*\\\n\s*", " ", readme), "as the README has it"
    assert "WORKDIR /gpt-neox\n" in dockerfile


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder as a reader of the page has it, with miniatures instead of what is large; and the servers' addresses."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "tools", "deepy.py", "train.py", "generate.py", "evaluate.py"):
        (folder / name).symlink_to(ROOT / name)
    unpack_tar(folder, "2-7B")
    (folder / "checkpoints-2-7B").symlink_to("checkpoints")
    for name, loss in (("checkpoints-160M", 2.0), ("checkpoints-0-4B", 1.5)):
        (folder / name).mkdir()
        (folder / name / "metrics.jsonl").write_text(json.dumps({"step": 1, "validation_loss": loss}))
    with zipfile.ZipFile(folder / "index.zip", "w") as archive:
        digest = hashlib.sha256(SOURCE.encode()).hexdigest()
        archive.writestr("index", f"Python__ann__half__half.py\t{digest}\n")
    origin = Origin()
    origin.release("unseen_test_sets.tar.gz", _test_sets())
    (folder / "validation.jsonl").write_text(json.dumps({"content": SOURCE * 200}) + "\n")
    endpoint = Completions(save_model(tmp_path_factory.mktemp("model"), "gpt2"), NUM_POSITIONS)
    with serving(origin), serve(endpoint):
        yield folder, {"url": origin.url, "endpoint": endpoint.url}


def _test_sets() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for language in LANGUAGES.values():
            member = tarfile.TarInfo(f"Code-sampled100/{language}/ann/half/half.py")
            member.size = len(SOURCE)
            tar.addfile(member, io.BytesIO(SOURCE.encode()))
    return packed.getvalue()


@pytest.fixture
def vocabulary(checkout: tuple[Path, dict[str, str]], polycoder: Path) -> None:
    """What tools/download_checkpoint.py vocab leaves; it is run by test_polycoder_doc.py."""
    (checkout[0] / "data").mkdir()
    for name in ("code-vocab.json", "code-merges.txt"):
        (checkout[0] / "data" / name).symlink_to(polycoder / name)


@pytest.mark.usefixtures("vocabulary")
def test_the_evaluations_commands_run(checkout: tuple[Path, dict[str, str]]) -> None:
    folder, urls = checkout
    found = commands("Evaluation")
    longest = [one for one in found if not any(other.startswith(one) for other in found if other != one)]
    for command in longest:  # the beginning of another need not be run by itself
        ran = subprocess.run(
            [sys.executable, *_shortened(command, urls)],
            cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in ran.stderr, ran.stderr
        for words, left in GIVES.items():
            assert words not in command or (folder / left).exists(), f"{command} leaves no {left}"
    metrics = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))["results"]
    assert set(metrics) == {f"code_{name}" for name in LANGUAGES}
    assert all(found["num_files_seen_in_training"] == 1 for found in metrics.values())
    assert all(found["word_perplexity"] > 1 for found in metrics.values())
    verdicts = (folder / "2.7b-humaneval-outputs.jsonl_results.jsonl").read_text(encoding="utf-8")
    assert verdicts.count('"temperature": 0.4') == 164


def _shortened(command: str, urls: Mapping[str, str]) -> list[str]:
    for long, short in SMALLER.items():
        command = command.replace(long, short)
    extra = next((more for script, more in SHORTER.items() if script in command), "")
    return shlex.split(f"{command} {extra.format(**urls)}")
