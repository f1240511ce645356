"""The convert command's way to the inference engines' formats and back from GGUF."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.conversion.convert import Conversion, convert
from megatron.neox.errors import UserError
from megatron.neox.layouts import gguf, huggingface
from tests.engine_models import code_tokenizer, random_model

package = pytest.importorskip("gguf")
pytest.importorskip("ctranslate2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder."""
    path = tmp_path_factory.mktemp("model")
    stored = random_model(bias_gelu_fusion=True, max_position_embeddings=64)
    huggingface.write_folder(stored, path, tokenizer=code_tokenizer(), dtype=None)
    return path


def lines_of(source: Path, output: Path, **wanted: Any) -> list[str]:
    lines: list[str] = []
    convert(Conversion(str(source), output, **wanted), lines.append)
    return lines


@pytest.mark.parametrize(("target", "quantization"), [("gguf", "q4_0"), ("ctranslate2", "int8")])
def test_a_quantised_models_perplexity_is_printed(
    target: Any, quantization: str, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "model.out"
    lines = lines_of(folder, output, target=target, quantization=quantization)
    assert lines[1] == f"wrote {output}"
    number = r"\d+\.\d{4}"
    assert re.fullmatch(
        rf"perplexity of 1008 tokens of argparse\.py: {number} before, {number} after \([+-]\d+\.\d\d%\)",
        lines[2],
    )
    unchecked = lines_of(folder, tmp_path / "b", target=target, quantization=quantization, check=False)
    assert unchecked[1:] == [f"wrote {tmp_path / 'b'}"]


def test_a_gguf_becomes_a_checkpoint_and_a_folder_again(folder: Path, tmp_path: Path) -> None:
    lines_of(folder, tmp_path / "model.gguf", target="gguf")
    neox = lines_of(tmp_path / "model.gguf", tmp_path / "neox", target="neox")
    assert neox[0].endswith("model.gguf: GGUF file of a gptneox, F32")
    lines_of(tmp_path / "neox", tmp_path / "again.gguf", target="gguf")
    first, second = (package.GGUFReader(tmp_path / name).tensors for name in ("model.gguf", "again.gguf"))
    assert [tensor.name for tensor in first] == [tensor.name for tensor in second]
    assert all((a.data == b.data).all() for a, b in zip(first, second))
    vocabularies = [gguf.tokenizer_settings(tmp_path / name) for name in ("model.gguf", "again.gguf")]
    assert vocabularies[0] == vocabularies[1]


def test_a_gguf_whose_tokenizer_is_not_read_gives_its_weights(folder: Path, tmp_path: Path) -> None:
    lines_of(folder, tmp_path / "model.gguf", target="gguf")
    data = (tmp_path / "model.gguf").read_bytes()
    name = b"tokenizer.ggml.model"
    start = data.index(name) + len(name) + 4 + 8  # type of the value and its length
    (tmp_path / "other.gguf").write_bytes(data[:start] + b"rwkv" + data[start + 4 :])
    lines = lines_of(tmp_path / "other.gguf", tmp_path / "neox", target="neox")
    assert "its tokenizer (rwkv, splitting pattern gpt-2) is not read" in lines[1]
    with pytest.raises(UserError, match="needs a tokenizer"):
        lines_of(tmp_path / "other.gguf", tmp_path / "b.gguf", target="gguf")
