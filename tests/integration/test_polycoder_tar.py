"""The commands of PolyCoder's README on an unpacked tar, as a user types them in a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron.neox.tokenizers import GPT2BPETokenizer
from tests.integration.training_case import ROOT, environment
from tests.neox_2022 import Miniature, random_model, unpack_tar
from tests.numerics.test_neox_checkpoints import neox_twin

CONFIGS = "configs/text_generation.yml checkpoints/configs/local_setup.yml checkpoints/configs/2-7B.yml"
GENERATE = f"./deepy.py generate.py {CONFIGS}"
RETURN1 = r'def return1():\n  """Returns 1."""\n  '  # as it is typed, two spaces at its end
MINI = Miniature()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, polycoder: Path) -> Path:
    """A folder like a checkout, with the tar of 2-7B unpacked and the vocabulary where its config looks for it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("deepy.py", "generate.py", "evaluate.py", "configs", "megatron"):
        (folder / name).symlink_to(ROOT / name)
    unpack_tar(folder, "2-7B", MINI)
    (folder / "data").mkdir()
    for name in ("code-vocab.json", "code-merges.txt"):
        shutil.copy(polycoder / name, folder / "data")
    return folder


def run(folder: Path, command: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    python = Path(sys.executable).parent
    return subprocess.run(
        command.split(), cwd=folder, input=typed, capture_output=True, text=True, timeout=180, check=False,
        env=environment() | {"PATH": f"{python}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip


def continued(folder: Path, prompt: str, num_tokens: int) -> str:
    """What transformers' model with the same weights makes of a prompt, the likeliest token at each step."""
    tokenizer = GPT2BPETokenizer(
        vocab_file=str(folder / "data" / "code-vocab.json"),
        merge_file=str(folder / "data" / "code-merges.txt"),
    )
    twin = neox_twin(random_model(MINI), MINI).eval()
    token_ids = tokenizer.encode(prompt)
    for _ in range(num_tokens):
        with torch.inference_mode():
            logits = twin(torch.tensor([token_ids])).logits[0, -1, : tokenizer.vocab_size]
        first, second = logits.topk(2).values
        assert first - second > 1e-3, "too close to tell"
        token_ids.append(int(logits.argmax()))
    return tokenizer.decode(token_ids[-num_tokens:])


def test_the_readme_s_command_generates(checkout: Path) -> None:
    done = run(checkout, GENERATE, typed=f"{RETURN1}\n")
    assert done.returncode == 0, done.stderr
    assert "Generated Text: " in done.stdout
    assert "[256 tokens" in done.stdout
    notes = done.stderr
    assert "2-7B.yml:77: save-interval is an old name of checkpoint_factor" in notes
    assert "trained with rotary tables in fp16" in notes
    assert "rotary_table: fp16_legacy" in notes
    assert "loaded checkpoints/global_step150000" in notes
    assert "Traceback" not in notes


def test_a_typed_prompt_keeps_its_newlines_and_its_last_spaces(checkout: Path) -> None:
    """Under a local_setup.yml with the Docker image's paths, and with keys of the fork's code_ppl.yml besides."""
    folder = checkout / "checkpoints" / "configs"
    text = (folder / "local_setup.yml").read_text()
    text = text.replace('"data/', '"/gpt-neox/data/').replace('"checkpoints"', '"/gpt-neox/checkpoints"')
    launch = '"include": "localhost:9",\n  "master_port": 28000,\n  "output_layer_parallelism": "row",\n  "use_wandb"'
    (folder / "docker_setup.yml").write_text(text.replace('"use_wandb"', launch))
    command = GENERATE.replace("local_setup", "docker_setup")
    typed = f"{RETURN1}\n{RETURN1.rstrip()}\n"
    done = run(checkout, f"{command} --set temperature=0 --set maximum_tokens=8", typed=typed)
    assert done.returncode == 0, done.stderr
    whole = continued(checkout, 'def return1():\n  """Returns 1."""\n  ', 8)
    stripped = continued(checkout, 'def return1():\n  """Returns 1."""\n', 8)
    assert whole != stripped
    assert f"Generated Text: {whole}\n" in done.stdout
    assert f"Generated Text: {stripped}\n" in done.stdout
    assert "docker_setup.yml:9: load /gpt-neox/checkpoints is read as checkpoints" in done.stderr
