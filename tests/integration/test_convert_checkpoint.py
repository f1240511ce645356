"""tools/convert_checkpoint.py as users start it, and what they do with its output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.neox.layouts.huggingface import open_folder, write_folder
from megatron.neox.layouts.neox import read_tensors
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.integration.hub import Hub, serve
from tests.integration.miniature import stored_miniature, write_miniature
from tests.integration.training_case import TINY, environment, train, write_config, write_dataset

ROOT = Path(__file__).resolve().parents[2]

# The two snippets of PolyCoder's README, with the import that the first one forgets.
LOAD = """
import transformers
from transformers import AutoTokenizer, AutoModelForCausalLM

from packaging import version
assert version.parse(transformers.__version__) >= version.parse("4.23.0")

tokenizer = AutoTokenizer.from_pretrained("NinedayWang/PolyCoder-2.7B")
model = AutoModelForCausalLM.from_pretrained("NinedayWang/PolyCoder-2.7B")
"""
COMPLETE = """
prompt = '''def binarySearch(arr, left, right, x):
    mid = (left +'''
input_ids = tokenizer.encode(prompt, return_tensors='pt')
result = model.generate(input_ids, max_length=50, num_beams=4, num_return_sequences=4)
for res in result:
    print(tokenizer.decode(res))
"""


def run(*words: Any, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools/convert_checkpoint.py"), *map(str, words)],
        capture_output=True, text=True, cwd=folder, env={**environment(), **variables}, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(polycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with `checkpoints` and what the command made of them, `polycoder`."""
    folder = tmp_path_factory.mktemp("exported")
    write_miniature(polycoder, folder / "checkpoints")
    ran = run("--input", "checkpoints", "--output", "polycoder", "--to", "hf", folder=folder)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert lines[0] == "checkpoints: checkpoint of this toolkit, 1 tensor rank, step 3"
    assert lines[1].startswith("check against transformers: largest difference ")
    assert lines[2] == "wrote polycoder"
    return folder


def test_the_readmes_two_snippets_run(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(LOAD.replace("NinedayWang/PolyCoder-2.7B", str(exported / "polycoder")), names)
    capsys.readouterr()
    exec(COMPLETE, names)
    assert names["result"].shape == (4, 50)
    assert names["result"].max() < 50257
    assert capsys.readouterr().out.count("def binarySearch(arr, left, right, x):\n    mid = (left +") == 4


def test_a_checkpoint_made_of_a_folder_trains_and_generates(tmp_path: Path) -> None:
    """CodeParrot's architecture with bytes as tokens: imported, generated with, trained on."""
    stored = stored_miniature(
        tmp_path, **{key: TINY[key] for key in ("num_layers", "hidden_size", "num_attention_heads")},
        seq_length=32, max_position_embeddings=32, pos_emb="learned", no_weight_tying=False, rows=512,
        scale_attn_by_inverse_layer_idx=True,
    )  # fmt: skip
    (tmp_path / "hf").mkdir()
    write_folder(stored, tmp_path / "hf", tokenizer=CharLevelTokenizer())
    ran = run("--input", "hf", "--output", "ours", "--to", "neox", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(
        "hf: Hugging Face folder of a gpt2, 1 safetensors file, float32\nwrote ours/global_step0"
    )
    (tmp_path / "prompt.txt").write_text("def add(one, two):\n")
    ran = subprocess.run(
        [sys.executable, str(ROOT / "deepy.py"), "generate.py", "ours/global_step0/configs/config.yml", "--set",
         "load=ours", "--set", "sample_input_file=prompt.txt", "--set", "maximum_tokens=8"],
        capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    record = json.loads((tmp_path / "prompt.txt.output.jsonl").read_text().splitlines()[0])
    assert record["context"] == "def add(one, two):"
    config = write_config(
        tmp_path / "config.yml",
        **{"pos_emb": "learned", "no_weight_tying": False, "scale_attn_by_inverse_layer_idx": True},
        **{"bias_gelu_fusion": True, "hidden_dropout": 0.0, "train_iters": 1, "eval_interval": 1},
        **{
            "data_path": write_dataset(tmp_path / "code"),
            "save": str(tmp_path / "run"),
            "checkpoint_factor": 1,
        },
        **{"load": str(tmp_path / "ours"), "finetune": True, "padded_vocab_size": 512},
        optimizer={"type": "adam", "params": {"lr": 1e-12}},
    )
    ran_training = train(config)
    assert ran_training.returncode == 0, ran_training.stderr
    # A step of a learning rate that changes nothing: what was trained is what was imported.
    for path in sorted((tmp_path / "ours/global_step0").glob("layer_*.pt")):
        before, after = read_tensors(path), read_tensors(tmp_path / "run/global_step1" / path.name)
        assert before.keys() == after.keys()
        for name in before:
            torch.testing.assert_close(after[name].float(), before[name].float(), rtol=0, atol=1e-6)


def test_a_name_on_the_hub_is_fetched_without_its_code(exported: Path, tmp_path: Path) -> None:
    """As `NinedayWang/PolyCoder-160M` stands there: .bin weights, GPT-2's two files, no tokenizer.json."""
    model = tmp_path / "model"
    shutil.copytree(exported / "polycoder", model)
    stored = open_folder(model)
    state = {name: tensor.clone() for name, tensor in _tensors(model).items()}
    (model / "model.safetensors").unlink()
    torch.save(state, model / "pytorch_model.bin")
    for name in ("tokenizer.json", "README.md"):
        (model / name).unlink()
    for name in ("modeling_evil.py", "training_args.bin", "flax_model.msgpack"):
        (model / name).write_text("print('never')")
    variables = {
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    with serve(Hub({"NinedayWang/PolyCoder-160M": model})) as hub:
        name = "NinedayWang/PolyCoder-160M"
        ran = run(
            "--input",
            name,
            "--output",
            "ours",
            "--to",
            "neox",
            folder=tmp_path,
            HF_ENDPOINT=hub.address,
            **variables,
        )
        assert ran.returncode == 0, ran.stderr
        absent = run(
            "--input",
            "no/such",
            "--output",
            "x",
            "--to",
            "neox",
            folder=tmp_path,
            HF_ENDPOINT=hub.address,
            **variables,
        )
    assert ran.stdout.startswith(f"{name}: Hugging Face folder of a gpt_neox, 1 .bin file, float32\n")
    assert set(hub.fetched) == {
        "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
        "merges.txt", "pytorch_model.bin",
    }  # fmt: skip
    first = read_tensors(tmp_path / "ours/global_step0/layer_02-model_00-model_states.pt")
    assert all(torch.equal(tensor, first[key]) for key, tensor in stored.read_layer(2).items())
    assert absent.returncode == 2
    assert absent.stderr.startswith(
        "InputError\nno/such is neither a folder here nor a model on the Hugging Face hub"
    )
    gone = run(
        "--input",
        "no/such",
        "--output",
        "x",
        "--to",
        "neox",
        folder=tmp_path,
        HF_ENDPOINT=hub.address,
        **variables,
    )
    assert gone.returncode == 1
    assert gone.stderr.startswith(
        "ResourceError\nno/such is no folder here, and the Hugging Face hub cannot be reached"
    )
    assert "Traceback" not in absent.stderr + gone.stderr


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_pushing_uploads_the_folder_and_never_shows_the_token(exported: Path, tmp_path: Path) -> None:
    variables = {
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    words = ("--input", exported / "checkpoints", "--to", "hf", "--no-check", "--push", "me/polycoder")
    with serve(Hub()) as hub:
        ran = run(
            *words, "--output", "a", folder=tmp_path, HF_ENDPOINT=hub.address, HF_TOKEN=hub.token, **variables
        )
        wrong = run(
            *words,
            "--output",
            "b",
            folder=tmp_path,
            HF_ENDPOINT=hub.address,
            HF_TOKEN="hf_other",
            **variables,
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == f"pushed to {hub.address}/me/polycoder"
    assert hub.created == ["me/polycoder"]
    assert hub.pushed == {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(
        "UserError\nb is written, and was not pushed to me/polycoder: the hub refuses"
    )
    assert not any(
        "hf_secret" in text or "hf_other" in text
        for text in (ran.stdout, ran.stderr, wrong.stdout, wrong.stderr)
    )


def test_a_mistake_is_one_message(tmp_path: Path) -> None:
    ran = run("--input", "nothing", "--output", "x", "--to", "hf", folder=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[0] == "InputError"
    assert "Traceback" not in ran.stderr
    assert os.listdir(tmp_path) == []
