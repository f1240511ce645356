"""GGUF written and read back: bit for bit, with every obstacle and every kind of damage named."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Engine
from tokenizers import pre_tokenizers
from tokenizers.models import BPE, Unigram

from megatron.neox.errors import CheckpointError, ConfigError, DependencyError, UserError, VocabularyError
from megatron.neox.layouts import gguf
from megatron.neox.layouts.inference_engines import fuse_rows, split_rows
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.tokenizers import CharLevelTokenizer, GPT2BPETokenizer, HFTokenizer
from tests.engine_models import code_tokenizer, in_memory, random_model
from tests.tiny_models import tiny_config

package = pytest.importorskip("gguf")

CODE = "def f(x1):\n    return 'naïve'\t# 2026 ☕\r\n\n"
LLAMA = {"norm": "rmsnorm", "rms_norm_epsilon": 1e-6, "activation": "swiglu", "mlp_type": "llama"}
ARCHITECTURES = {
    "sequential": {"bias_gelu_fusion": True},
    "parallel, partly rotary": {"bias_gelu_fusion": True, "gpt_j_residual": True, "rotary_pct": 0.25},
    "erf, legacy angles": {"rotary_table": "fp16_legacy", "rotary_emb_base": 500.5},
    "tied": {"bias_gelu_fusion": True, "no_weight_tying": False, "layernorm_epsilon": 1e-6},
    "grouped": {"bias_gelu_fusion": True, "num_kv_heads": 2},
    "gpt2": {"bias_gelu_fusion": True, "pos_emb": "learned", "no_weight_tying": False},
    "gpt2 untied": {"bias_gelu_fusion": True, "pos_emb": "learned"},
    "llama": {**LLAMA, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False, "num_kv_heads": 1},
    "llama with biases, tied": {**LLAMA, "no_weight_tying": False},
}  # fmt: skip
BYTES = CharLevelTokenizer()


def model(**keys: Any) -> StoredModel:
    return random_model(**{"intermediate_size": 96, "padded_vocab_size": 512, **keys})


def assert_equal(ours: StoredModel, theirs: StoredModel, *, scale: float = 0.0) -> None:
    for number in ours.layer_numbers:
        wanted, found = ours.read_layer(number), theirs.read_layer(number)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            assert (found[name].double() - tensor.double()).abs().max() <= scale, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_written_is_read_back_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    ours = model(dtype=dtype, **ARCHITECTURES[name])
    gguf.write_file(ours, tmp_path / "model.gguf", tokenizer=BYTES)
    theirs = gguf.open_file(tmp_path / "model.gguf")
    assert_equal(ours, theirs)
    assert theirs.read_layer(2)["mlp.dense_4h_to_h.weight"].dtype is dtype
    assert theirs.model == ours.model.model_copy(
        update={"seq_length": ours.model.max_position_embeddings, "num_kv_heads": ours.model.num_kv_heads}
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("sizes", [{}, {"num_kv_heads": 2}])
def test_rows_are_split_by_head_and_fused_again(sizes: dict[str, int]) -> None:
    config = tiny_config(hidden_size=8, num_attention_heads=4, **sizes)
    fused = torch.arange((4 + 2 * config.num_query_groups) * 2)
    queries, keys, values = split_rows(fused, config)
    assert keys.tolist() == ([2, 3, 8, 9, 14, 15, 20, 21] if not sizes else [8, 9, 10, 11])
    assert torch.equal(fuse_rows(queries, keys, values, config), fused)


def test_features_that_turn_together_are_neighbours_in_llama(tmp_path: Path) -> None:
    ours = model(**ARCHITECTURES["llama"], hidden_size=32, num_attention_heads=4)
    gguf.write_file(ours, tmp_path / "model.gguf", tokenizer=BYTES)
    stored = {tensor.name: tensor.data for tensor in package.GGUFReader(tmp_path / "model.gguf").tensors}
    queries = ours.read_layer(2)["attention.query_key_value.weight"][:32]  # heads of 8: 0 turns with 4
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    assert torch.equal(torch.from_numpy(stored["blk.0.attn_q.weight"].copy())[8:16], queries[8:16][order])


def test_biases_that_llama_cpp_insists_on_are_zeros(tmp_path: Path) -> None:
    keys = {"use_bias_in_norms": False, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False}
    ours = model(bias_gelu_fusion=True, gpt_j_residual=True, gpt_j_tied=True, **keys)
    gguf.write_file(ours, tmp_path / "model.gguf", tokenizer=BYTES)
    theirs = gguf.open_file(tmp_path / "model.gguf")
    assert not theirs.model.gpt_j_tied
    assert_same_logits(ours, theirs)


def test_scores_divided_by_the_layer_are_folded_into_the_queries(tmp_path: Path) -> None:
    ours = model(bias_gelu_fusion=True, pos_emb="learned", scale_attn_by_inverse_layer_idx=True)
    gguf.write_file(ours, tmp_path / "model.gguf", tokenizer=BYTES)
    theirs = gguf.open_file(tmp_path / "model.gguf")
    assert not theirs.model.scale_attn_by_inverse_layer_idx
    assert_same_logits(ours, theirs)


def assert_same_logits(ours: StoredModel, theirs: StoredModel) -> None:
    ids = torch.arange(40).unsqueeze(0)
    with torch.inference_mode():
        wanted, found = in_memory(ours, BYTES).net(ids), in_memory(theirs, BYTES).net(ids)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("quantization", "kinds", "error"),
    [
        ("f16", "F16", 0.001), ("BF16", "BF16", 0.005), ("q8_0", "Q8_0", 0.01), ("q5_1", "Q5_1 and Q8_0", 0.05),
        ("q5_0", "Q5_0 and Q8_0", 0.05), ("q4_1", "Q4_1 and Q8_0", 0.1), ("q4_0", "Q4_0 and Q8_0", 0.1),
    ],
)  # fmt: skip
def test_quantised_weights_are_near_what_they_were(
    quantization: str, kinds: str, error: float, tmp_path: Path
) -> None:
    ours = model(bias_gelu_fusion=True)
    gguf.write_file(ours, tmp_path / "model.gguf", tokenizer=BYTES, quantization=quantization)
    theirs = gguf.open_file(tmp_path / "model.gguf")
    note = ", dequantised to fp32" if quantization.startswith("q") else ""
    assert theirs.kind == f"GGUF file of a gptneox, {kinds}{note}"
    assert_equal(ours, theirs, scale=error)
    norms = theirs.read_layer(2)["input_layernorm.weight"]
    assert torch.equal(norms, ours.read_layer(2)["input_layernorm.weight"])


def test_rows_that_do_not_fill_blocks_stay_f16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = model(bias_gelu_fusion=True, intermediate_size=80)
    gguf.write_file(ours, tmp_path / "model.gguf", tokenizer=BYTES, quantization="q8_0")
    assert "2 matrices stay f16 (blk.0.ffn_down.weight the first)" in caplog.text
    assert gguf.open_file(tmp_path / "model.gguf").kind.startswith("GGUF file of a gptneox, F16 and Q8_0")


def test_an_unknown_type_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"q8_1; did you mean q8_0\?\n  known: f32, f16"):
        gguf.write_file(
            model(bias_gelu_fusion=True), tmp_path / "m.gguf", tokenizer=BYTES, quantization="q8_1"
        )


def test_values_beyond_fp16_are_not_made_infinite(tmp_path: Path) -> None:
    ours = model(bias_gelu_fusion=True)
    ours.read_layer(3)["attention.dense.weight"][0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"blk\.1\.attn_output\.weight has values that F16 cannot hold"):
        gguf.write_file(ours, tmp_path / "model.gguf", tokenizer=BYTES, quantization="f16")
    assert not list(tmp_path.iterdir())


def test_every_obstacle_is_listed_at_once(tmp_path: Path) -> None:
    ours = model(
        pos_emb="alibi", activation="relu", attention_config=[[["local"], "all"]], sliding_window_width=8
    )
    with pytest.raises(ConfigError) as caught:
        gguf.write_file(ours, tmp_path / "model.gguf", tokenizer=BYTES)
    assert str(caught.value).split("\n") == [
        "the model cannot be written as GGUF; llama.cpp's gptneox comes nearest, but",
        "attention local is not exported",
        "pos_emb is alibi; llama.cpp's gptneox computes rotary",
        "activation is relu; llama.cpp's gptneox computes gelu or gelu_tanh",
    ]


def test_llama_takes_neither_partial_rotation_nor_parallel_residual(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no parallel residual\n.*turns whole heads, not 0\.5"):
        gguf.write_file(
            model(**LLAMA, gpt_j_residual=True, rotary_pct=0.5), tmp_path / "model.gguf", tokenizer=BYTES
        )


def test_differences_of_arithmetic_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gguf.write_file(model(rotary_table="fp16_legacy"), tmp_path / "model.gguf", tokenizer=BYTES)
    assert "the exact gelu (erf); llama.cpp computes its tanh approximation" in caplog.text
    assert "rotary_table fp16_legacy; llama.cpp computes the angles in fp32" in caplog.text


def test_a_missing_package_is_named_with_its_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(DependencyError, match=r"pip install -r requirements/requirements-export\.txt"):
        gguf.write_file(model(), tmp_path / "model.gguf", tokenizer=BYTES)
    with pytest.raises(DependencyError, match="package gguf"):
        gguf.open_file(tmp_path / "model.gguf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    gguf.write_file(model(bias_gelu_fusion=True), path, tokenizer=BYTES)
    return path


def test_a_truncated_file_is_named(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    path = tmp_path / "short.gguf"
    for length in [*range(0, 4000, 97), *range(4000, len(data) - 64, 9973), len(data) - 65]:
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"short\.gguf is not a whole GGUF file"):
            gguf.open_file(path)


def test_flipped_bits_in_the_header_are_named_or_harmless(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    path = tmp_path / "flipped.gguf"
    draw = random.Random(0)
    num_refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(2):
            damaged[draw.randrange(13000)] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        for use in (lambda: gguf.open_file(path).read_layer(2), lambda: gguf.tokenizer_settings(path)):
            try:
                use()
            except (CheckpointError, VocabularyError):
                num_refused += 1
    assert num_refused > 50


def test_a_number_of_layers_that_no_file_holds_is_refused_at_once(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    key = b"gptneox.block_count"
    start = data.index(key) + len(key) + 4  # type of the value
    (tmp_path / "model.gguf").write_bytes(data[:start] + b"\xff\xff\xff\x7f" + data[start + 4 :])
    with pytest.raises(CheckpointError, match="is to have 2147483647 layers and holds 28 tensors"):
        gguf.open_file(tmp_path / "model.gguf")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.gguf"):
        gguf.open_file(tmp_path / "none.gguf")


def test_another_architecture_is_named(tmp_path: Path) -> None:
    writer = package.GGUFWriter(tmp_path / "model.gguf", "bloom")
    finish(writer)
    with pytest.raises(CheckpointError, match="architecture bloom; gptneox, gpt2, llama are read"):
        gguf.open_file(tmp_path / "model.gguf")


def finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def copy(whole: Path, path: Path, *, without: str = "", keys: dict[str, str] | None = None) -> None:
    """The file with a tensor left out, another in its place, and more keys."""
    reader = package.GGUFReader(whole)
    writer = package.GGUFWriter(path, "gptneox")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            types = [*field.types, None]
            writer.add_key_value(name, field.contents(), types[0], types[1])
    for name, value in (keys or {}).items():
        writer.add_string(name, value)
    for tensor in reader.tensors:
        if tensor.name != without:
            writer.add_tensor(tensor.name, tensor.data)
    if without:
        writer.add_tensor("blk.9.attn_norm.weight", reader.tensors[0].data)
    finish(writer)


def test_missing_and_surplus_tensors_are_listed(whole: Path, tmp_path: Path) -> None:
    copy(whole, tmp_path / "model.gguf", without="blk.1.ffn_up.bias")
    with pytest.raises(CheckpointError) as caught:
        gguf.open_file(tmp_path / "model.gguf")
    assert str(caught.value).split("\n")[1:] == [
        "  blk.1.ffn_up.bias (96,) is missing",
        "  blk.9.attn_norm.weight (512, 32) is not understood",
    ]


def test_keys_that_change_the_model_are_not_passed_over(whole: Path, tmp_path: Path) -> None:
    copy(whole, tmp_path / "model.gguf", keys={"gptneox.rope.scaling.type": "yarn"})
    with pytest.raises(CheckpointError, match=r"not understood here\n  gptneox\.rope\.scaling\.type: yarn"):
        gguf.open_file(tmp_path / "model.gguf")
    copy(whole, tmp_path / "model.gguf", keys={"gptneox.rope.scaling.type": "none"})
    gguf.open_file(tmp_path / "model.gguf")


def test_a_written_vocabulary_is_read_as_a_tokenizer_of_the_same_ids(tmp_path: Path) -> None:
    tokenizer = code_tokenizer()
    gguf.write_file(model(padded_vocab_size=1024), tmp_path / "model.gguf", tokenizer=tokenizer)
    assert read_tokenizer(tmp_path).encode(CODE) == tokenizer.encode(CODE)


def read_tokenizer(folder: Path) -> HFTokenizer:
    settings = gguf.tokenizer_settings(folder / "model.gguf")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return HFTokenizer(vocab_file=str(path))


def test_polycoders_vocabulary_keeps_its_lost_rule_and_its_missing_bytes(
    polycoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = GPT2BPETokenizer(
        vocab_file=str(polycoder / "code-vocab.json"), merge_file=str(polycoder / "code-merges.txt")
    )
    gguf.write_file(model(padded_vocab_size=50304), tmp_path / "model.gguf", tokenizer=tokenizer)
    assert "no token for the bytes 0x0D: llama.cpp drops them" in caplog.text
    text = "def f(x):\n    if x:\n        return x + 1\n\t\treturn 2\r\n"
    assert read_tokenizer(tmp_path).encode(text) == tokenizer.encode(text)
    file = package.GGUFReader(tmp_path / "model.gguf")
    tokens, types = (file.get_field(f"tokenizer.ggml.{key}").contents() for key in ("tokens", "token_type"))
    assert (tokens[0], types[0]) == ("<|endoftext|>", 3)
    assert (tokens[50257], types[50257], len(tokens)) == ("<|unused_50257|>", 5, 50304)


def engine_tokenizer(path: Path, **parts: Any) -> HFTokenizer:
    engine = Engine(parts.pop("kind", BPE({"<|endoftext|>": 0, "a": 1, "1": 2}, [])))
    for name, part in parts.items():
        setattr(engine, name, part)
    engine.save(str(path))
    return HFTokenizer(vocab_file=str(path))


def test_single_digits_before_the_byte_level_are_starcoders_pattern(tmp_path: Path) -> None:
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer = engine_tokenizer(tmp_path / "t.json", pre_tokenizer=pre_tokenizers.Sequence(splits))
    gguf.write_file(model(), tmp_path / "model.gguf", tokenizer=tokenizer)
    assert read_tokenizer(tmp_path).encode("a1") == [1, 2]
    field = package.GGUFReader(tmp_path / "model.gguf").get_field("tokenizer.ggml.pre")
    assert field.contents() == "starcoder"


def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    metaspace = engine_tokenizer(tmp_path / "a.json", pre_tokenizer=pre_tokenizers.Metaspace())
    with pytest.raises(VocabularyError, match=r"no splitting pattern of llama\.cpp is known"):
        gguf.write_file(model(), tmp_path / "model.gguf", tokenizer=metaspace)
    unigram = engine_tokenizer(tmp_path / "b.json", kind=Unigram([("<|endoftext|>", 0.0), ("a", -1.0)]))
    with pytest.raises(VocabularyError, match="this tokenizer is a Unigram of another kind"):
        gguf.write_file(model(), tmp_path / "model.gguf", tokenizer=unigram)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="ids up to 999 and the model 512 rows"):
        gguf.write_file(model(), tmp_path / "model.gguf", tokenizer=code_tokenizer())


def test_sentencepiece_is_refused_by_name_and_its_weights_are_read(whole: Path, tmp_path: Path) -> None:
    writer_keys = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"}
    copy(whole, tmp_path / "model.gguf", keys=writer_keys)
    assert gguf.open_file(tmp_path / "model.gguf").read_layer(2)
    with pytest.raises(
        VocabularyError, match=r"its tokenizer \(llama, splitting pattern default\) is not read"
    ):
        gguf.tokenizer_settings(tmp_path / "model.gguf")


def test_a_model_of_one_gguf_can_be_written_as_another(whole: Path, tmp_path: Path) -> None:
    first = gguf.open_file(whole)
    gguf.write_file(first, tmp_path / "again.gguf", tokenizer=BYTES)
    assert_equal(first, gguf.open_file(tmp_path / "again.gguf"))
    assert first.tokenizer is None
