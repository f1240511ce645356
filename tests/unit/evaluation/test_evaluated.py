"""What is said of evaluated models that cannot be measured, and of keys that belong to a checkpoint of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron.neox.config import Config
from megatron.neox.config.load import load_config
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.errors import CheckpointError, ConfigError, InputError, UserError, VocabularyError
from megatron.neox.evaluation.evaluated import load_evaluated
from megatron.neox.launch.verbs import load_for, parse_start
from tests.huggingface_folders import save_model, save_tokenizer


def load(kind: str, path: Path | str, **keys: Any) -> Any:
    block = {"type": kind, "path": str(path), **keys}
    config = Config.from_flat({"evaluated_model": block, "precision": "fp32"})
    with ProcessGrid.build(config.parallelism) as grid:
        return load_evaluated(config, grid)


def settings_of(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def without_marks(folder: Path) -> None:
    save_tokenizer(folder, eos=None)


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), CheckpointError, "cannot be loaded"),
        (lambda folder: settings_of(folder, model_type="unheard_of"), CheckpointError, "unheard_of"),
        (
            lambda folder: settings_of(folder, n_embd=64),
            CheckpointError,
            "cannot be loaded as a causal model",
        ),
        (
            without_a_tensor,
            CheckpointError,
            "its weights are not all there\n  transformer.h.1.mlp.c_proj.weight is missing",
        ),
        (without_marks, VocabularyError, "names neither bos_token nor eos_token"),
        (without_tokenizer, VocabularyError, "holds no tokenizer; evaluated_model.tokenizer names another"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"no"),
            CheckpointError,
            "cannot be loaded",
        ),
    ],
)
def test_a_damaged_folder(
    tmp_path: Path, damage: Callable[[Path], object], error: type[UserError], message: str
) -> None:
    folder = save_model(tmp_path / "model", "gpt2")
    damage(folder)
    with pytest.raises(error) as raised:
        load("hf", folder)
    assert message in str(raised.value)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.gguf").write_bytes(b"GGU")
    for kind, path, message in [
        ("hf", tmp_path / "absent", "no folder here and no name on the hub"),
        ("hf", tmp_path / "empty", "is no folder of transformers"),
        ("hf", tmp_path / "file.gguf", "a file; type gguf reads GGUF files"),
        ("gguf", tmp_path / "absent.gguf", "there is no GGUF file"),
        ("gguf", tmp_path / "file.gguf", "is no GGUF file"),
    ]:
        with pytest.raises(InputError, match=message):
            load(kind, path)


def test_a_gguf_of_an_architecture_that_is_not_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "falcon")
    writer.add_tensor("token_embd.weight", torch.zeros(4, 4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="of the architecture falcon; gptneox, gpt2, llama are read"):
        load("gguf", tmp_path / "model.gguf")


def test_a_tokenizer_with_more_ids_than_the_model_has_rows(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "gpt2", more_rows=-20)
    evaluated = load("hf", folder)
    assert evaluated.tokenizer.vocab_size < len(evaluated.tokenizer._tokenizer)
    with pytest.raises(VocabularyError, match=r"evaluated_model\.tokenizer"):
        evaluated.tokenizer.encode("class Pair:\n    first = 1\n    second = 'two'\n def add(one, two)")


def test_special_tokens_written_out_are_text_and_a_leading_space_stays(tmp_path: Path) -> None:
    tokenizer = load("hf", save_model(tmp_path / "model", "llama", bos="<s>")).tokenizer
    ids = tokenizer.encode(" <|endoftext|><s> é")
    assert tokenizer.eod not in ids
    assert tokenizer.start not in ids
    assert tokenizer.decode(ids) == " <|endoftext|><s> é"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"evaluated_model": {"type": "hff", "path": "x"}}, "evaluated_model.type: input should be"),
        ({"evaluated_model": {"type": "hf"}}, "it needs a path"),
        ({"evaluated_model": {"type": "neox", "path": "x"}, "load": "x"}, "takes no other keys"),
        ({"evaluated_model": {"type": "hf", "pth": "x"}}, "did you mean path?"),
        (
            {"evaluated_model": {"type": "hf", "path": "x"}, "model_parallel_size": 2},
            "model_parallel_size 2 does not go with evaluated_model hf",
        ),
        (
            {"evaluated_model": {"type": "hf", "path": "x"}, "eval_window": 8, "eval_stride": 9},
            "eval_stride 9 is more than eval_window 8",
        ),
    ],
)
def test_wrong_keys_are_one_problem_each(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    (tmp_path / "a.yml").write_text(json.dumps(keys))
    with pytest.raises(ConfigError) as raised:
        load_config([tmp_path / "a.yml"], require=["evaluation", "checkpoint"])
    problems = [str(p) for p in raised.value.problems if "must give num_layers" not in str(p)]
    assert len(problems) == 1
    assert message in problems[0]


def test_only_evaluate_takes_it_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text('{"evaluated_model": {"type": "hf", "path": "x"}}')
    with pytest.raises(ConfigError, match=r"stands for a model in evaluate\.py alone"):
        load_config([tmp_path / "a.yml"], require=["training"])


def test_keys_of_our_own_model_are_left_and_said(tmp_path: Path) -> None:
    asked = ["evaluate.py", "configs/quickstart.yml", "--set", 'evaluated_model={"type": "hf", "path": "x"}']
    loaded = load_for("evaluate.py", parse_start(asked))
    assert loaded.config.has_no_model
    assert loaded.config.checkpoint.load is None
    note = next(note for note in loaded.notes if note.startswith("evaluated_model brings its own"))
    assert "num_layers" in note
    assert "vocab_file" in note
    assert "load" in note


def test_a_model_that_does_not_tell_its_positions_needs_a_window(tmp_path: Path) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    folder = tmp_path / "model"
    size = save_tokenizer(folder)
    BloomForCausalLM(BloomConfig(vocab_size=size, hidden_size=16, n_layer=1, n_head=2)).save_pretrained(
        folder
    )
    with pytest.raises(ConfigError, match="eval_window is missing"):
        load("hf", folder)
    config = Config.from_flat({"evaluated_model": {"type": "hf", "path": str(folder)}, "eval_window": 24})
    with ProcessGrid.build(config.parallelism) as grid:
        assert load_evaluated(config, grid).model.max_positions == 24
