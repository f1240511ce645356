"""Folders that transformers wrote are read, and folders that we write are read by transformers, with equal logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from megatron.neox.conversion.check import TOLERANCE, compare, logits_of, transformers_logits
from megatron.neox.errors import CheckpointError
from megatron.neox.layouts.huggingface import DTYPES, open_folder, write_folder
from megatron.neox.layouts.stored import StoredModel

VOCABULARY, LENGTH = 96, 40
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
         "max_position_embeddings": LENGTH, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip


def gpt_neox(**keys: Any) -> Any:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(**{**SIZES, "intermediate_size": 160, "tie_word_embeddings": False, **keys})
    )


def gpt2(**keys: Any) -> Any:
    sizes = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": LENGTH}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **keys}))


def llama(**keys: Any) -> Any:
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, "intermediate_size": 112, **keys}))


def mistral(**keys: Any) -> Any:
    return MistralForCausalLM(MistralConfig(**{**SIZES, "intermediate_size": 112, **keys}))


def rope(theta: float, fraction: float | None = None) -> dict[str, Any]:
    block = {"rope_type": "default", "rope_theta": theta}
    return {"rope_parameters": block if fraction is None else {**block, "partial_rotary_factor": fraction}}


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "neox-parallel": (gpt_neox, {}),
    "neox-sequential": (gpt_neox, {"use_parallel_residual": False, **rope(10000.0, 1.0)}),
    "neox-base": (gpt_neox, rope(500.0, 0.5)),
    "neox-tied": (gpt_neox, {"tie_word_embeddings": True}),
    "neox-no-attention-bias": (gpt_neox, {"attention_bias": False}),
    **{f"neox-{name}": (gpt_neox, {"hidden_act": name}) for name in
       ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "mish")},
    "gpt2": (gpt2, {}),
    "gpt2-untied": (gpt2, {"tie_word_embeddings": False, "n_inner": 96, "activation_function": "gelu"}),
    "codeparrot": (gpt2, {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "llama": (llama, {}),
    "llama-grouped": (llama, {"num_key_value_heads": 2, **rope(5e5)}),
    "llama-one-key-head": (llama, {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama-biases": (llama, {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama-grouped-biases": (llama, {"attention_bias": True, "num_key_value_heads": 2}),
    "mistral": (mistral, {"num_key_value_heads": 2, "sliding_window": None}),
    "mistral-window": (mistral, {"num_key_value_heads": 2, "sliding_window": 7}),
}  # fmt: skip


def tiny(case: str) -> Any:
    """transformers' model of a case, with weights that make every part count."""
    make, keys = CASES[case]
    torch.manual_seed(0)
    model = make(**keys).eval()
    for name, parameter in model.named_parameters():
        is_scale = ("norm" in name or "ln_" in name) and name.endswith("weight")
        parameter.data.normal_(1.0 if is_scale else 0.0, 0.1)
    return model


def prompts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, VOCABULARY, (1, length), generator=generator) for length in (LENGTH, 9)]


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of our layers by number and name."""
    stored = open_folder(folder)
    return {f"{n}.{k}": v for n in stored.layer_numbers for k, v in stored.read_layer(n).items()}


def read_back(stored: StoredModel, folder: Path, **options: Any) -> StoredModel:
    folder.mkdir()
    write_folder(stored, folder, tokenizer=None, **options)
    return open_folder(folder)


@pytest.mark.parametrize("case", CASES)
def test_a_familys_logits_in_and_out(tmp_path: Path, case: str) -> None:
    """transformers wrote the first folder, we wrote the second; both compute the same there and here."""
    theirs = tiny(case)
    theirs.save_pretrained(tmp_path / "theirs")
    stored = open_folder(tmp_path / "theirs")
    ours = logits_of(stored, prompts())
    assert min(logits.abs().max() for logits in ours) > 1
    with torch.no_grad():
        assert compare(ours, [theirs(ids).logits for ids in prompts()]).difference < TOLERANCE
    again = read_back(stored, tmp_path / "ours")
    assert again.model == stored.model
    assert compare(ours, transformers_logits(tmp_path / "ours", prompts())).difference < TOLERANCE


@pytest.mark.parametrize(
    "case", ["neox-sequential", "codeparrot", "gpt2-untied", "llama", "llama-grouped-biases"]
)
def test_round_trips_change_no_bit(tmp_path: Path, case: str) -> None:
    theirs = tiny(case)
    theirs.save_pretrained(tmp_path / "theirs")
    stored = open_folder(tmp_path / "theirs")
    read_back(stored, tmp_path / "ours")
    again = type(theirs).from_pretrained(tmp_path / "ours")
    before, after = theirs.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    first, second = weights_of(tmp_path / "theirs"), weights_of(tmp_path / "ours")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("case", ["neox-parallel", "codeparrot", "llama-grouped"])
def test_shards_and_bin_files_hold_the_same(tmp_path: Path, case: str) -> None:
    theirs = tiny(case)
    theirs.save_pretrained(tmp_path / "one")
    theirs.save_pretrained(tmp_path / "many", max_shard_size="50KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 2
    single = weights_of(tmp_path / "one")
    # .bin files as transformers 4 wrote them: zipped, in shards with an index, and unzipped.
    names = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())["weight_map"]
    state = {name: tensor for name, tensor in theirs.state_dict().items() if name in names}
    if "lm_head.weight" in theirs.state_dict() and case == "neox-parallel":
        state["embed_out.weight"] = theirs.state_dict()["lm_head.weight"]
    # Buffers of older releases, which are functions of the config.
    place = {"neox-parallel": "gpt_neox.layers.0.attention.", "codeparrot": "transformer.h.0.attn."}.get(case)
    if place is not None:
        state |= {f"{place}bias": torch.ones(1, 1, 4, 4), f"{place}masked_bias": torch.tensor(-1e9)}
    for kind in ("bin", "sharded-bin", "old-bin"):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "config.json").write_bytes((tmp_path / "one" / "config.json").read_bytes())
        if kind == "sharded-bin":
            halves = [dict(list(state.items())[start::2]) for start in (0, 1)]
            files = {f"pytorch_model-{i + 1:05d}-of-00002.bin": half for i, half in enumerate(halves)}
            index = {name: file for file, half in files.items() for name in half}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
        else:
            files = {"pytorch_model.bin": state}
        for name, half in files.items():
            torch.save(half, folder / name, _use_new_zipfile_serialization=kind != "old-bin")
    for kind in ("many", "bin", "sharded-bin", "old-bin"):
        other = weights_of(tmp_path / kind)
        assert other.keys() == single.keys()
        assert all(torch.equal(other[name], single[name]) for name in single)
    stored = open_folder(tmp_path / "one")
    shards = read_back(stored, tmp_path / "ours", shard_bytes=50_000)
    assert "safetensors files" in shards.kind
    assert (
        compare(logits_of(stored, prompts()), transformers_logits(tmp_path / "ours", prompts())).difference
        < 1e-5
    )


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_is_kept(tmp_path: Path, dtype: str) -> None:
    theirs = tiny("neox-sequential").to(DTYPES[dtype])
    theirs.save_pretrained(tmp_path / "theirs")
    stored = open_folder(tmp_path / "theirs")
    assert stored.read_layer(0)["word_embeddings.weight"].dtype == DTYPES[dtype]
    read_back(stored, tmp_path / "ours")
    first, second = weights_of(tmp_path / "theirs"), weights_of(tmp_path / "ours")
    assert all(torch.equal(first[name], second[name]) for name in first)
    name = str(DTYPES[dtype]).removeprefix("torch.")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (config["dtype"], config["torch_dtype"]) == (name, name)
    read_back(stored, tmp_path / "wide", dtype=torch.float32)
    assert (
        compare(logits_of(stored, prompts()), transformers_logits(tmp_path / "wide", prompts())).difference
        < 1e-5
    )


def test_codeparrots_scaling_is_not_to_be_dropped(tmp_path: Path) -> None:
    """Without the key the same weights are another function: honouring it is not optional."""
    tiny("codeparrot").save_pretrained(tmp_path / "theirs")
    config = tmp_path / "theirs" / "config.json"
    honoured = logits_of(open_folder(tmp_path / "theirs"), prompts())
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "scale_attn_by_inverse_layer_idx": False}))
    assert compare(honoured, logits_of(open_folder(tmp_path / "theirs"), prompts())).difference > 0.01


def test_the_tanh_gelu_is_named_as_what_it_is(tmp_path: Path) -> None:
    tiny("neox-gelu_fast").save_pretrained(tmp_path / "theirs")
    read_back(open_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["hidden_act"] == "gelu_pytorch_tanh"


def test_a_model_without_its_head_is_read_where_tied(tmp_path: Path) -> None:
    """The first GPT-2 repositories hold GPT2Model's names, without `transformer.`."""
    theirs = tiny("codeparrot")
    theirs.transformer.save_pretrained(tmp_path / "base")
    stored = open_folder(tmp_path / "base")
    with torch.no_grad():
        expected = [theirs(ids).logits for ids in prompts()]
    assert compare(logits_of(stored, prompts()), expected).difference < TOLERANCE


@pytest.mark.parametrize("case", ["codeparrot", "llama-one-key-head"])
def test_a_tied_head_that_is_not_the_embedding_is_not_dropped(tmp_path: Path, case: str) -> None:
    tiny(case).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    embedding = weights.get("transformer.wte.weight", weights.get("model.embed_tokens.weight"))
    assert embedding is not None
    save_file(
        {**weights, "lm_head.weight": embedding.clone()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    assert open_folder(tmp_path).model.tie_weights
    head = embedding.clone()
    head[0, 0] += 1
    save_file({**weights, "lm_head.weight": head}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r'lm_head\.weight is not the embedding.* "tie_word_embeddings": false'
    ):
        open_folder(tmp_path)
    stored = open_folder(changed(tmp_path, tie_word_embeddings=False))
    assert torch.equal(stored.read_layer(stored.layer_numbers[-1])["final_linear.weight"], head)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_integers_are_never_taken_for_weights(tmp_path: Path, file: str) -> None:
    tiny("llama").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    name = "model.layers.1.self_attn.o_proj.weight"
    weights[name] = (weights[name] * 100).to(torch.int8)
    (save_file if file == "model.safetensors" else torch.save)(weights, tmp_path / file)
    stored = open_folder(tmp_path)
    with pytest.raises(
        CheckpointError, match=f"{name} is of type int8, and weights are floating-point numbers"
    ):
        stored.read_layer(3)


def changed(folder: Path, **keys: Any) -> Path:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **keys}))
    return folder


@pytest.mark.parametrize(
    ("case", "keys", "message"),
    [
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is false"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is true"),
        ("gpt2", {"activation_function": "gelu_10"}, 'activation_function is "gelu_10"'),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling is .*not implemented"),
        ("llama", {"head_dim": 8}, "head_dim is 8"),
        ("llama", {"hidden_act": "mish"}, 'hidden_act is "mish"'),
        ("llama", {"num_attention_heads": 3, "head_dim": None}, "hidden_size 64 cannot be divided"),
        ("llama", {"model_type": ["llama"]}, "model_type .* is not supported"),
        ("llama", {"num_hidden_layers": 10**30}, "less than or equal to 10000"),
        ("llama", {"max_position_embeddings": 10**10}, "asks for 10000000000 positions, and no model has more"),
        ("llama", {"model_type": "qwen2"}, "model_type 'qwen2' is not supported; these are: gpt_neox, gpt2, llama"),
        ("llama", {"auto_map": {"AutoModel": "x.y"}}, "code of its own"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised weights"),
        ("llama", {"intermediate_size": 113}, r"gate_proj.weight is \(112, 64\), and \(113, 64\)"),
        ("llama", {"attention_bias": True}, "q_proj.bias is missing"),
        ("llama", {"num_hidden_layers": 2}, "layers.2.input_layernorm.weight is of no use"),
        ("llama", {"hidden_size": "x"}, "wrong kind"),
        ("neox-parallel", {"rotary_pct": 1.0}, "contradict"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, case: str, keys: dict[str, Any], message: str
) -> None:
    tiny(case).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        open_folder(changed(tmp_path, **keys))


def test_every_obstacle_is_told_at_once(tmp_path: Path) -> None:
    from dataclasses import replace

    tiny("neox-parallel").save_pretrained(tmp_path)
    stored = open_folder(tmp_path)
    odd = stored.model.model_copy(update={"pos_emb": "alibi", "gpt_j_tied": True, "use_bias_in_mlp": False})
    with pytest.raises(CheckpointError) as caught:
        write_folder(replace(stored, model=odd), tmp_path / "out", tokenizer=None)
    text = str(caught.value)
    assert "as gpt_neox: gpt_j_tied is true" in text
    assert "pos_emb is alibi, not rotary; use_bias_in_mlp is false" in text
    assert "as gpt2:" in text
    assert "as llama or mistral:" in text


def test_damage_is_named(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path, max_shard_size="50KB")
    shard = tmp_path / "model-00001-of-00005.safetensors"
    shard = shard if shard.exists() else sorted(tmp_path.glob("model-*.safetensors"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{shard.name} cannot be read"):
        open_folder(tmp_path)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name} is missing"):
        open_folder(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=f"{index.name} is damaged"):
        open_folder(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"secret\.safetensors is outside"):
        open_folder(tmp_path)
    index.unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        open_folder(tmp_path)
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        open_folder(tmp_path / "elsewhere")
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"config.json cannot be read"):
        open_folder(tmp_path)


def test_a_bin_file_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    import os
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    tiny("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"wants to call .*system"):
        open_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil()}))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        open_folder(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_files_are_readable_by_others(tmp_path: Path) -> None:
    tiny("neox-tied").save_pretrained(tmp_path / "theirs")
    read_back(open_folder(tmp_path / "theirs"), tmp_path / "ours")
    plain = tmp_path / "plain"
    plain.write_text("")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "ours").iterdir()}
    assert set(modes.values()) == {plain.stat().st_mode}, modes
