"""CTranslate2 folders: what is refused, and that nothing half-written keeps a name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.errors import (
    CheckpointError,
    ConfigError,
    DependencyError,
    OutputError,
    UserError,
    VocabularyError,
)
from megatron.neox.layouts.ctranslate2 import write_folder
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.tokenizers import CharLevelTokenizer
from tests.engine_models import code_tokenizer, random_model

pytest.importorskip("ctranslate2")

BYTES = CharLevelTokenizer()


def model(**keys: Any) -> StoredModel:
    return random_model(**{"padded_vocab_size": 512, **keys})


def test_a_folder_holds_the_engines_files_and_a_tokenizer(tmp_path: Path) -> None:
    write_folder(model(), tmp_path / "model", tokenizer=BYTES)
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["config.json", "model.bin", "tokenizer.json", "vocabulary.json"]
    pieces = json.loads((tmp_path / "model" / "vocabulary.json").read_text(encoding="utf-8"))
    assert (pieces[65], pieces[511], len(pieces)) == ("A", "<|unused_511|>", 512)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["layer_norm_epsilon"] == 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_every_obstacle_is_listed_at_once(tmp_path: Path) -> None:
    odd = model(pos_emb="alibi", activation="mish", norm="scalenorm", attention_config=[[["local"], "all"]])
    with pytest.raises(ConfigError) as caught:
        write_folder(odd, tmp_path / "model", tokenizer=BYTES)
    assert str(caught.value).split("\n") == [
        "the model cannot be written for CTranslate2",
        "attention local is not exported",
        "pos_emb is alibi; CTranslate2 computes rotary or learned",
        "norm is scalenorm; CTranslate2 computes layernorm or rmsnorm",
        "activation is mish; CTranslate2 computes gelu or gelu_tanh or relu or silu or geglu or reglu or swiglu or glu",
    ]


def test_an_unknown_type_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"int4; did you mean int8\?\n  known: float32, float16"):
        write_folder(model(), tmp_path / "model", tokenizer=BYTES, quantization="int4")


def test_a_folder_that_holds_something_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_folder(model(), tmp_path / "model", tokenizer=BYTES)
    with pytest.raises(OutputError, match="exists"):
        write_folder(model(), tmp_path / "model", tokenizer=BYTES)


def test_weights_that_are_not_whole_leave_no_folder(tmp_path: Path) -> None:
    stored = model()
    del stored.read_layer(3)["mlp.dense_4h_to_h.weight"]
    with pytest.raises(CheckpointError, match=r"layer 3 has no tensor 'mlp\.dense_4h_to_h\.weight'"):
        write_folder(stored, tmp_path / "model", tokenizer=BYTES)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="ids up to 999 and the model 512 rows"):
        write_folder(model(), tmp_path / "model", tokenizer=code_tokenizer())


def test_legacy_angles_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(model(rotary_table="fp16_legacy"), tmp_path / "model", tokenizer=BYTES)
    assert "rotary_table fp16_legacy; CTranslate2 computes the angles in fp32" in caplog.text


def test_a_missing_package_is_named_with_its_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2.specs", None)
    with pytest.raises(DependencyError, match=r"pip install -r requirements/requirements-export\.txt"):
        write_folder(model(), tmp_path / "model", tokenizer=BYTES)
