"""What inspect_model finds in each format, and that damage is told of, whatever it is."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.neox.config import TokenizerConfig
from megatron.neox.errors import CheckpointError, InputError
from megatron.neox.layouts.checkpoint import write_checkpoint
from megatron.neox.layouts.ctranslate2 import write_folder as write_ctranslate2
from megatron.neox.layouts.gguf import write_file
from megatron.neox.layouts.huggingface.folder import write_folder
from megatron.neox.layouts.inspection import Inspection, inspect_model
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.models.plan import plain_model
from megatron.neox.nn.parallel import TensorParallel
from megatron.neox.plugins import models
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.neox_2022 import Miniature, unpack_tar, write_checkpoint_of_neox
from tests.tiny_models import tiny_config

ROOT = Path(__file__).resolve().parents[3]
ROWS = CharLevelTokenizer().vocab_size
TOKENIZER = TokenizerConfig(tokenizer_type="CharLevelTokenizer")
# Two layers of 32 features: 12 h^2 + 13 h each; embedding, head and the last norm besides.
NUM_VALUES = 2 * (12 * 32 * 32 + 13 * 32) + 2 * ROWS * 32 + 2 * 32


def stored_model(step: int = 0, **keys: Any) -> StoredModel:
    """A tiny model with random weights."""
    torch.manual_seed(0)
    model = tiny_config(**keys, padded_vocab_size=ROWS)
    plans = models.get("gpt_neox")(model, padded_vocab_size=ROWS, parallel=TensorParallel.single())
    layers = plain_model(plans).numbered_layers()

    def read_layer(number: int) -> dict[str, Tensor]:
        return {name: weights.detach() for name, weights in layers[number].named_parameters()}

    return StoredModel("random", Path("nowhere"), model, TOKENIZER, read_layer, step)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A folder of two checkpoints of this toolkit."""
    for step in (5, 7):
        write_checkpoint(stored_model(step), tmp_path / "run", plugins=["part.py"])
    return tmp_path / "run"


def num_values(found: Inspection) -> int:
    """Elements of all tensors."""
    return sum(tensor.num_values for tensor in found.tensors)


class TestOurs:
    def test_what_is_told(self, ours: Path) -> None:
        found = inspect_model(ours)
        assert (found.layout, found.step, found.path.name) == (
            "checkpoint of this toolkit, layer files",
            7,
            "global_step7",
        )
        assert num_values(found) == NUM_VALUES
        assert found.config["hidden_size"] == 32
        assert found.tokenizer["vocab_size"] == 512
        assert found.plugins == ["part.py"]
        assert (found.facts["steps"], found.facts["latest"]) == ([5, 7], "global_step7")
        assert found.damage == []
        embedding = found.tensors[0]
        assert (embedding.name, embedding.dtype, embedding.shape) == (
            "word_embeddings.weight",
            "float32",
            (ROWS, 32),
        )

    def test_an_older_step(self, ours: Path) -> None:
        assert inspect_model(ours, iteration=5).step == 5
        assert inspect_model(ours / "global_step5").step == 5
        with pytest.raises(CheckpointError, match="holds no step 6; it holds 5, 7"):
            inspect_model(ours, iteration=6)

    def test_verifying(self, ours: Path) -> None:
        found = inspect_model(ours, verify=True)
        assert found.damage == []
        assert found.integrity == "checksums of 6 files compared, values looked at"

    def test_a_flipped_bit(self, ours: Path) -> None:
        file = ours / "global_step7" / "layer_02-model_00-model_states.pt"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        assert inspect_model(ours).damage == []  # sizes alone do not show it
        assert f"{file.name} has other content than was written" in inspect_model(ours, verify=True).damage

    def test_a_short_file_and_an_absent_one(self, ours: Path) -> None:
        folder = ours / "global_step7"
        short, absent = (folder / f"layer_{number}-model_00-model_states.pt" for number in ("02", "03"))
        short.write_bytes(short.read_bytes()[:-100])
        absent.unlink()
        found = inspect_model(ours)
        assert f"{absent.name} is missing" in found.damage
        assert any(line.startswith(f"{short.name} has ") for line in found.damage)
        assert any(line.startswith(f"{short} cannot be read") for line in found.damage)
        assert num_values(found) == NUM_VALUES - 2 * (12 * 32 * 32 + 13 * 32)  # the others are still listed

    def test_latest_that_lies(self, ours: Path) -> None:
        (ours / "latest").write_text("global_step9\n")
        found = inspect_model(ours)
        assert found.step == 7
        assert found.damage == [f"{ours / 'latest'} names global_step9, which is missing"]

    def test_values_that_are_not_finite(self, ours: Path) -> None:
        file = ours / "global_step7" / "layer_05-model_00-model_states.pt"
        norm = torch.load(file)
        norm["norm.bias"][3] = float("nan")
        torch.save(norm, file)
        damage = inspect_model(ours, verify=True).damage
        assert f"{file.name}: norm.bias holds values that are not finite" in damage


class TestGPTNeoX:
    def test_layer_files(self, tmp_path: Path) -> None:
        unpack_tar(tmp_path, mini=Miniature(rows=128, tensor_size=2))
        found = inspect_model(tmp_path / "checkpoints", verify=True)
        assert (found.layout, found.step) == ("GPT-NeoX checkpoint, layer files", 150000)
        assert found.facts["tensor ranks"] == 2
        assert found.damage == []
        assert found.integrity.startswith("checksums of ")
        assert {tensor.dtype for tensor in found.tensors} == {"float16"}
        assert "attention.rotary_emb.inv_freq" in {tensor.name for tensor in found.tensors}
        assert "configs/2-7B.yml" in found.facts["configs"]

    def test_one_file_a_rank(self, tmp_path: Path) -> None:
        write_checkpoint_of_neox(tmp_path, Miniature(rows=128, is_sequential=True))
        found = inspect_model(tmp_path)
        assert found.layout == "GPT-NeoX checkpoint, one file a rank"
        assert found.facts["layers"] == "0 to 6"
        assert found.config["hidden_size"] == 64
        assert found.damage == []

    def test_a_missing_layer(self, tmp_path: Path) -> None:
        write_checkpoint_of_neox(tmp_path, Miniature(rows=128, num_layers=4))
        lost = "layer_03-model_00-model_states.pt"
        (tmp_path / "global_step150000" / lost).unlink()
        assert inspect_model(tmp_path).damage == [f"{lost} is missing"]

    def test_a_damaged_archive(self, tmp_path: Path) -> None:
        write_checkpoint_of_neox(tmp_path, Miniature(rows=128))
        file = tmp_path / "global_step150000" / "layer_02-model_00-model_states.pt"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        (line,) = inspect_model(tmp_path, verify=True).damage
        assert line.startswith(f"{file.name} is damaged (")


class TestOtherFormats:
    def test_hugging_face(self, tmp_path: Path) -> None:
        write_folder(stored_model(), tmp_path, tokenizer=CharLevelTokenizer(), shard_bytes=40_000)
        found = inspect_model(tmp_path, verify=True)
        assert found.layout == "Hugging Face folder of a gpt_neox"
        assert num_values(found) == NUM_VALUES
        assert "tokenizer.json" in found.tokenizer
        assert found.damage == []
        shards = sorted(tmp_path.glob("*.safetensors"))
        shards[0].write_bytes(shards[0].read_bytes()[:-8])
        shards[1].unlink()
        (tmp_path / "config.json").write_text("{")
        damage = "\n".join(inspect_model(tmp_path).damage)
        assert f"{shards[0]} cannot be read" in damage
        assert f"{shards[1].name} is missing" in damage
        assert "config.json cannot be read" in damage

    def test_gguf(self, tmp_path: Path) -> None:
        pytest.importorskip("gguf")
        path = tmp_path / "model.gguf"
        write_file(stored_model(), path, tokenizer=CharLevelTokenizer())
        found = inspect_model(path, verify=True)
        assert found.config["general.architecture"] == "gptneox"
        assert num_values(found) == NUM_VALUES
        assert found.tokenizer["tokenizer.ggml.tokens"] == "512 entries"
        assert found.damage == []
        path.write_bytes(path.read_bytes()[:-64])
        (line,) = inspect_model(path).damage
        assert line.startswith(f"{path} is not a whole GGUF file")

    def test_ctranslate2(self, tmp_path: Path) -> None:
        pytest.importorskip("ctranslate2")
        write_ctranslate2(stored_model(), tmp_path / "model", tokenizer=CharLevelTokenizer())
        found = inspect_model(tmp_path / "model")
        assert found.layout == "CTranslate2 folder"
        assert found.damage == []
        assert "vocabulary.json" in found.tokenizer

    def test_single_files(self, tmp_path: Path) -> None:
        torch.save({"module": {"a": torch.ones(2, 3)}, "step": 1}, tmp_path / "weights.bin")
        found = inspect_model(tmp_path / "weights.bin", verify=True)
        assert [(t.name, t.shape) for t in found.tensors] == [("module.a", (2, 3))]
        (tmp_path / "weights.pt").write_bytes(b"nothing that torch wrote")
        assert inspect_model(tmp_path / "weights.pt").damage

    def test_a_pickle_that_makes_no_sense(self, tmp_path: Path) -> None:
        """Not every such failure of torch's reader is an UnpicklingError: this one is an IndexError."""
        torch.save({"a": torch.ones(2)}, tmp_path / "sound.pt")
        with (
            zipfile.ZipFile(tmp_path / "sound.pt") as sound,
            zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad,
        ):
            for name in sound.namelist():
                content = sound.read(name)
                bad.writestr(name, b"\x80\x02a." if name.endswith("data.pkl") else content)
        (line,) = inspect_model(tmp_path / "bad.pt").damage
        assert line.startswith(f"{tmp_path / 'bad.pt'} cannot be read (")

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no file or folder"):
            inspect_model(tmp_path / "absent")
        (tmp_path / "global_step3.tmp").mkdir()
        with pytest.raises(InputError, match=r"a killed run left behind: global_step3\.tmp"):
            inspect_model(tmp_path)
        with pytest.raises(InputError, match="is no folder of checkpoints"):
            inspect_model(tmp_path, iteration=3)


def damaged(file: Path, draw: random.Random) -> bytes:
    """The file's content, cut anywhere or with bytes of chance, in its head as often as in all of it."""
    content = bytearray(file.read_bytes())
    end = draw.choice([len(content), min(len(content), 2000)])
    for _ in range(draw.randint(1, 30)):
        content[draw.randrange(end)] = draw.randrange(256)
    return bytes(content[: draw.choice([len(content), len(content), draw.randrange(len(content))])])


def write_format(name: str, folder: Path) -> Path:
    """A small model in a format."""
    if name == "ours":
        return write_checkpoint(stored_model(), folder)
    if name == "hugging face":
        write_folder(stored_model(), folder, tokenizer=CharLevelTokenizer(), shard_bytes=40_000)
        return folder
    if name == "gguf":
        pytest.importorskip("gguf")
        write_file(stored_model(), folder / "model.gguf", tokenizer=CharLevelTokenizer())
        return folder / "model.gguf"
    write_checkpoint_of_neox(folder, Miniature(rows=64, is_sequential=name == "one file a rank"))
    return folder


@pytest.mark.parametrize("name", ["ours", "layer files", "one file a rank", "hugging face", "gguf"])
def test_no_damage_ends_the_inspection(tmp_path: Path, name: str) -> None:
    """Nothing but findings may come of it; and where there are checksums of all bytes, none goes unseen."""
    path, draw = write_format(name, tmp_path), random.Random(0)
    files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file() and file.name != "latest"]
    for _ in range(30):
        file = draw.choice(files)
        intact = file.read_bytes()
        file.write_bytes(damaged(file, draw))
        found = inspect_model(path, verify=True)
        assert list(found.lines(tensors=True))
        if name == "ours" and file.read_bytes() != intact:
            assert found.damage, file
        file.write_bytes(intact)
    assert inspect_model(path, verify=True).damage == []


def test_the_command(ours: Path) -> None:
    (ours / "global_step7" / "configs" / "config.yml").unlink()
    command = [sys.executable, "tools/inspect_checkpoint.py", str(ours), "--json", "--tensors", "--verify"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    found = json.loads(done.stdout)
    assert (found["step"], found["num_values"]) == (7, NUM_VALUES)
    assert found["damage"] == ["configs/config.yml is missing"]
    assert len(found["tensors"]) == found["num_tensors"] == 28


def test_lines_for_people(ours: Path) -> None:
    (ours / "latest").unlink()
    lines = list(inspect_model(ours, iteration=5).lines(tensors=True))
    assert lines[0] == str(ours / "global_step5")
    assert "  step         5" in lines
    assert f"  tensors      28, {NUM_VALUES:,} values, {4 * NUM_VALUES:,} bytes" in lines
    assert lines[-1].split() == [
        "layer_06-model_00-model_states.pt", "final_linear.weight", "float32", f"[{ROWS},", "32]", f"{128 * ROWS:,}",
    ]  # fmt: skip


def test_checkpoints_one_folder_deeper_are_pointed_at(ours: Path) -> None:
    with pytest.raises(InputError, match=f"give the folder below it that does, such as {ours}"):
        inspect_model(ours.parent)


def test_a_latest_that_cannot_be_read_is_damage_and_not_absent(ours: Path) -> None:
    (ours / "latest").unlink()
    (ours / "latest").mkdir()
    found = inspect_model(ours)
    assert found.step == 7
    assert found.damage == [
        f"{ours / 'latest'} cannot be read ([Errno 21] Is a directory: '{ours / 'latest'}')"
    ]


def test_tensors_without_values_are_damage(tmp_path: Path) -> None:
    tensors = {"a": torch.eye(2).to_sparse(), "b": torch.ones(2, device="meta"), "c": torch.ones(2)}
    torch.save(tensors, tmp_path / "a.pt")
    found = inspect_model(tmp_path / "a.pt", verify=True)
    assert [record.name for record in found.tensors] == ["c"]
    assert found.damage == [f"a.pt: {name} holds no values of its own" for name in "ab"]
