"""The job from end to end, in one process, on a miniature with PolyCoder's vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from transformers import AutoTokenizer

from megatron.neox.config import Config, TokenizerConfig
from megatron.neox.conversion import convert as job
from megatron.neox.conversion.convert import Conversion, convert
from megatron.neox.conversion.inputs import Opened, open_input
from megatron.neox.errors import CheckpointError, InputError, OutputError, UserError, VocabularyError
from megatron.neox.layouts.checkpoint import write_checkpoint
from megatron.neox.layouts.huggingface.tokenizer import find_tokenizer
from megatron.neox.layouts.stored import StoredModel
from megatron.neox.plugins import load_plugins
from megatron.neox.tokenizers import build_tokenizer
from tests.integration.miniature import NUM_BYTES, stored_miniature, write_miniature
from tests.neox_2022 import Miniature, unpack_tar, write_checkpoint_of_neox
from tests.unit.tokenizers.test_export import ODD_TEXTS

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {},
    "gpt2": {
        "pos_emb": "learned",
        "no_weight_tying": False,
        "scale_attn_by_inverse_layer_idx": True,
        "attention_softmax_in_fp32": True,
    },
    "llama": {
        "norm": "rmsnorm",
        "activation": "swiglu",
        "mlp_type": "llama",
        "num_kv_heads": 1,
        "use_bias_in_mlp": False,
        "use_bias_in_attn_linear": False,
    },
}


def run(source: Path | str, output: Path, target: Any, **options: Any) -> list[str]:
    """What the command says."""
    lines: list[str] = []
    convert(Conversion(str(source), output, target, **options), lines.append)
    return lines


def weights(path: Path, workspace: Path) -> dict[str, Tensor]:
    workspace.mkdir(exist_ok=True)
    stored = open_input(str(path), workspace=workspace).stored
    return {f"{n}.{k}": v for n in stored.layer_numbers for k, v in stored.read_layer(n).items()}


def assert_same_weights(one: Path, other: Path, workspace: Path) -> None:
    first, second = weights(one, workspace), weights(other, workspace)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_checkpoint_goes_out_and_comes_back_bit_for_bit(polycoder: Path, tmp_path: Path) -> None:
    ours = write_miniature(polycoder, tmp_path / "ours")
    said = run(ours, tmp_path / "hf", "hf")
    assert said[0] == f"{ours}: checkpoint of this toolkit, 1 tensor rank, step 3"
    assert said[1].startswith("check against transformers: largest difference ")
    assert said[2:] == [f"wrote {tmp_path / 'hf'}"]
    said = run(tmp_path / "hf", tmp_path / "back", "neox")
    assert said[0].endswith(": Hugging Face folder of a gpt_neox, 1 safetensors file, float32")
    assert_same_weights(ours, tmp_path / "back", tmp_path / "work")
    config = yaml.safe_load((tmp_path / "back/global_step0/configs/config.yml").read_text())
    assert config["tokenizer_type"] == "GPT2BPETokenizer"
    assert config["vocab_file"] == str(tmp_path / "back/tokenizer/vocab.json")
    assert (config["bias_gelu_fusion"], config["padded_vocab_size"]) == (True, 50304)
    tokenizers = [open_input(str(tmp_path / n), workspace=tmp_path).tokenizer for n in ("ours", "hf", "back")]
    for text in ODD_TEXTS:
        ids = [tokenizer.encode(text) for tokenizer in tokenizers if tokenizer is not None]
        assert ids[0] == ids[1] == ids[2]
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "hf", "back", "work"}


def test_what_is_written_says_what_readers_need(polycoder: Path, tmp_path: Path) -> None:
    run(write_miniature(polycoder, tmp_path / "ours"), tmp_path / "hf", "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert (config["rotary_pct"], config["rotary_emb_base"]) == (1.0, 10000)
    assert config["rope_parameters"]["rope_theta"] == 10000
    assert (config["hidden_act"], config["use_parallel_residual"]) == ("gelu_pytorch_tanh", False)
    assert (config["vocab_size"], config["eos_token_id"]) == (50304, 0)
    generation = json.loads((tmp_path / "hf/generation_config.json").read_text())
    assert generation["suppress_tokens"] == list(range(50257, 50304))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert 0 not in tokenizer.encode("<|endoftext|>")
    card = (tmp_path / "hf/README.md").read_text()
    for text in ("2202.13169", "twelve languages", "Rows 50257 to 50303", "White space", "Licences", "SHA-256",
                 "largest difference", "--to hf`", "| 1,616,320 |"):  # fmt: skip
        assert text in card, text
    assert str(tmp_path) not in card


def test_a_model_without_padding_or_tokenizer_is_said(polycoder: Path, tmp_path: Path) -> None:
    run(write_miniature(polycoder, tmp_path / "ours"), tmp_path / "hf", "hf", check=False)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (tmp_path / "hf" / name).unlink()
    assert "note: there is no tokenizer, so none is written" in run(tmp_path / "hf", tmp_path / "again", "hf")
    assert any("no tokenizer" in line for line in run(tmp_path / "hf", tmp_path / "back", "neox"))
    with pytest.raises(UserError, match="--to gguf needs a tokenizer"):
        run(tmp_path / "hf", tmp_path / "x.gguf", "gguf")


def test_the_published_form_of_gelu_is_an_option(tmp_path: Path) -> None:
    ours = write_miniature(tmp_path, tmp_path / "ours", rows=NUM_BYTES)
    run(ours, tmp_path / "hf", "hf", gelu="erf")
    assert json.loads((tmp_path / "hf/config.json").read_text())["hidden_act"] == "gelu"
    run(tmp_path / "hf", tmp_path / "back", "neox", gelu="tanh")
    assert "bias_gelu_fusion: true" in (tmp_path / "back/global_step0/configs/config.yml").read_text()
    silu = write_miniature(tmp_path, tmp_path / "silu", rows=NUM_BYTES, activation="silu")
    with pytest.raises(UserError, match="the activation is silu, which has no two forms"):
        run(silu, tmp_path / "x", "hf", gelu="erf")


def test_legacy_rotary_tables_are_explained_and_not_refused(tmp_path: Path) -> None:
    ours = write_miniature(tmp_path, tmp_path / "ours", rows=NUM_BYTES, rotary_table="fp16_legacy")
    said = run(ours, tmp_path / "hf", "hf")
    assert said[1].startswith("check against transformers: largest difference ")
    assert "rotary_table is fp16_legacy, and transformers knows fp32 angles alone" in said[2]
    assert said[3].startswith("note: against the original, in this toolkit: largest difference ")
    assert said[3] in {"note: " + line.removeprefix("Note: ").removesuffix(".")
                       for line in (tmp_path / "hf/README.md").read_text().splitlines()}  # fmt: skip
    assert "fp16_legacy" in (tmp_path / "hf/README.md").read_text()


def test_rounded_weights_are_explained_and_not_refused(tmp_path: Path) -> None:
    ours = write_miniature(tmp_path, tmp_path / "ours", rows=NUM_BYTES)
    said = run(ours, tmp_path / "hf", "hf", dtype="bf16")
    assert said[2] == "note: the weights were rounded from float32 to bfloat16"
    assert said[3].startswith("note: against the original, in this toolkit: largest difference ")
    assert weights(tmp_path / "hf", tmp_path / "w")["0.word_embeddings.weight"].dtype == torch.bfloat16
    # Once they are rounded, the same numbers must come out everywhere.
    assert len(run(tmp_path / "hf", tmp_path / "wide", "hf", dtype="fp32")) == 3


@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_a_difference_in_the_logits_leaves_nothing(tmp_path: Path, dtype: str | None) -> None:
    """A disk that gives other bits each time it is read: what is written is not what is compared."""
    whole, reads = stored_miniature(tmp_path, rows=NUM_BYTES), iter(range(1000))

    def read_layer(number: int) -> dict[str, Tensor]:
        return {name: tensor + 1e-2 * next(reads) for name, tensor in whole.read_layer(number).items()}

    assert whole.tokenizer is not None
    stored = StoredModel("failing disk", tmp_path, whole.model, whole.tokenizer, read_layer)
    opened = Opened("disk", stored, build_tokenizer(whole.tokenizer), [])
    with pytest.raises(CheckpointError, match="was not written: transformers computes other logits"):
        job._to_huggingface(opened, Conversion("disk", tmp_path / "hf", "hf", dtype=dtype), print)
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_that_transformers_lacks_is_refused(tmp_path: Path) -> None:
    ours = write_miniature(tmp_path, tmp_path / "ours", rows=NUM_BYTES, pos_emb="alibi", norm="scalenorm")
    with pytest.raises(
        CheckpointError, match=r"(?s)as gpt_neox: pos_emb is alibi, not rotary; .*norm is scalenorm"
    ):
        run(ours, tmp_path / "hf", "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("form", ["layers", "sequential", "two-ranks"])
def test_gpt_neoxs_own_checkpoints_need_no_more_than_their_folder(
    polycoder: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a tar unpacks, configs beside it; the vocabulary where the configs look for it."""
    mini = Miniature(is_sequential=form == "sequential", tensor_size=2 if form == "two-ranks" else 1)
    unpack_tar(tmp_path, mini=mini)
    (tmp_path / "data").mkdir()
    for name in ("code-vocab.json", "code-merges.txt"):
        (tmp_path / "data" / name).symlink_to(polycoder / name)
    monkeypatch.chdir(tmp_path)
    said = run("checkpoints", Path("ours"), "neox")
    assert said[0].startswith("checkpoints: GPT-NeoX checkpoint, ")
    assert_same_weights(Path("checkpoints"), Path("ours"), tmp_path / "work")
    assert (tmp_path / "ours" / "latest").read_text() == "global_step150000\n"
    if form == "two-ranks":
        assert run("checkpoints", Path("hf"), "hf")[-1] == "wrote hf"
        assert_same_weights(Path("hf"), Path("ours"), tmp_path / "work")


def test_configs_beside_a_gpt_neox_checkpoint_or_named(
    polycoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack_tar(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("code-vocab.json", "code-merges.txt"):
        (tmp_path / "data" / name).symlink_to(polycoder / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints/configs").rename(tmp_path / "away")
    for folder in (tmp_path / "checkpoints").glob("global_step*/configs"):
        folder.rename(tmp_path / "also-away")
    with pytest.raises(
        InputError, match=r"(?s)has no configs beside it .*name the ones that it was trained with"
    ):
        run("checkpoints", Path("hf"), "hf")
    said = run(
        "checkpoints", Path("hf"), "hf", configs=sorted((tmp_path / "away").glob("*.yml")), iteration=150000
    )
    assert said[-1] == "wrote hf"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"no-weight-tying": true', '"no-weight-tying": true, "activation": "geglu", "mlp_type": "llama"',
         "layer 2: mlp.dense_h_to_4h.weight is (256, 64), and the model's is (512, 64)"),
        ('"no-weight-tying": true', '"no-weight-tying": true, "intermediate_size": 128',
         "layer 2: mlp.dense_4h_to_h.weight is (64, 256), and the model's is (64, 128)"),
    ],
    ids=["gated", "narrower"],
)  # fmt: skip
def test_configs_of_another_model_write_nothing(
    polycoder: Path, tmp_path: Path, old: str, new: str, told: str
) -> None:
    unpack_tar(tmp_path)
    config = tmp_path / "checkpoints/configs/2-7B.yml"
    config.write_text(config.read_text().replace(old, new))
    setup = tmp_path / "setup.yml"
    setup.write_text(f"vocab_file: {polycoder}/code-vocab.json\nmerge_file: {polycoder}/code-merges.txt\n")
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path / "checkpoints", tmp_path / "out", "neox", configs=[config, setup])
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_config_that_differs_from_the_manifest_writes_nothing(polycoder: Path, tmp_path: Path) -> None:
    ours = write_miniature(polycoder, tmp_path / "ours")
    written = next(ours.glob("global_step*/configs/config.yml"))
    other = tmp_path / "other.yml"
    keys = yaml.safe_load(written.read_text())
    other.write_text(yaml.safe_dump({**keys, "gpt_j_residual": not keys.get("gpt_j_residual", False)}))
    with pytest.raises(CheckpointError, match=r"(?s)another architecture than the config.*gpt_j_residual: "):
        run(ours, tmp_path / "out", "neox", configs=[other])
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_comes_in_with_its_vocabulary(polycoder: Path, tmp_path: Path) -> None:
    ours = write_miniature(polycoder, tmp_path / "ours", hidden_size=64)
    assert run(ours, tmp_path / "mini.gguf", "gguf")[-1] == f"wrote {tmp_path / 'mini.gguf'}"
    said = run(tmp_path / "mini.gguf", tmp_path / "back", "neox")
    assert "GGUF file of a gptneox" in said[0]
    assert_same_weights(ours, tmp_path / "back", tmp_path / "work")
    again = open_input(str(tmp_path / "back"), workspace=tmp_path / "work").tokenizer
    first = open_input(str(ours), workspace=tmp_path / "work").tokenizer
    assert again is not None
    assert first is not None
    assert all(again.encode(text) == first.encode(text) for text in ODD_TEXTS)


def test_ctranslate2_folders_are_written(polycoder: Path, tmp_path: Path) -> None:
    ours = write_miniature(polycoder, tmp_path / "ours")
    run(ours, tmp_path / "ct2", "ctranslate2", quantization="int8")
    assert (tmp_path / "ct2/model.bin").is_file()
    with pytest.raises(InputError, match="is a CTranslate2 folder"):
        run(tmp_path / "ct2", tmp_path / "back", "neox")


def test_a_checkpoint_that_moved_with_its_tokenizer_is_found(polycoder: Path, tmp_path: Path) -> None:
    ours = write_miniature(polycoder, tmp_path / "ours")
    run(ours, tmp_path / "first", "neox")
    (tmp_path / "first").rename(tmp_path / "moved")
    assert run(tmp_path / "moved", tmp_path / "hf", "hf", check=False)[-1].startswith("wrote ")


def test_another_tokenizer_than_the_trained_one_is_refused(polycoder: Path, tmp_path: Path) -> None:
    write_checkpoint(
        stored_miniature(polycoder), tmp_path / "ours", fingerprint={"type": "CharLevelTokenizer"}
    )
    with pytest.raises(VocabularyError, match="was trained with another tokenizer"):
        run(tmp_path / "ours", tmp_path / "hf", "hf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "gguf", "push": "a/b"}, "--push goes with --to hf"),
        ({"target": "hf", "quantization": "q8_0"}, "--quantization goes with --to gguf"),
        ({"target": "gguf", "dtype": "fp16"}, "--dtype goes with --to hf and --to neox"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run("x", tmp_path / "y", **options)


def test_a_folder_of_two_kinds_is_said(tmp_path: Path) -> None:
    run(write_miniature(tmp_path, tmp_path / "ours", rows=NUM_BYTES), tmp_path / "hf", "hf", check=False)
    (tmp_path / "ours" / "global_step3").rename(tmp_path / "hf" / "global_step3")
    said = run(tmp_path / "hf", tmp_path / "back", "neox")
    assert "Hugging Face folder of a gpt_neox" in said[0]
    assert said[1].startswith(
        f"note: {tmp_path / 'hf'} holds checkpoints (global_step*) beside its config.json"
    )
    said = run(tmp_path / "hf" / "global_step3", tmp_path / "step", "neox")
    assert "checkpoint of this toolkit, 1 tensor rank, step 3" in said[0]


def test_a_push_without_a_token_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="--push needs a token: set HF_TOKEN, or log in"):
        run("x", tmp_path / "y", "hf", push="a/b")


def test_inputs_that_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("x")
    output = tmp_path / "out"
    with pytest.raises(InputError, match="is neither a file nor a folder, nor a name"):
        run(tmp_path / "a" / "b" / "c", output, "hf")
    with pytest.raises(InputError, match=r"did you mean NinedayWang/PolyCoder-0\.4B\?"):
        run("PolyCoder-0.4B", output, "hf")
    with pytest.raises(InputError, match="neither a folder of checkpoints"):
        run(tmp_path / "empty", output, "hf")
    with pytest.raises(InputError, match="is no GGUF file"):
        run(tmp_path / "text", output, "hf")
    with pytest.raises(InputError, match="--iteration belongs to a folder of checkpoints"):
        run(tmp_path / "empty", output, "hf", iteration=3)
    with pytest.raises(OutputError, match="text exists"):
        run(tmp_path / "empty", tmp_path / "text", "hf")


def test_checkpoints_one_folder_deeper_are_pointed_at(tmp_path: Path) -> None:
    write_checkpoint_of_neox(tmp_path / "tar" / "checkpoints", Miniature())
    with pytest.raises(InputError, match=f"such as {tmp_path / 'tar' / 'checkpoints'}"):
        run(tmp_path / "tar", tmp_path / "hf", "hf")


def test_a_models_plugins_go_with_it(polycoder: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "triple_relu.py"
    plugin.write_text(
        "from megatron.neox.plugins import activations\n\n\n"
        '@activations.register("triple_relu")\ndef triple_relu(x):\n    """relu(x) ** 3."""\n    return x.relu() ** 3\n'
    )
    load_plugins([str(plugin)])
    stored = stored_miniature(polycoder, activation="triple_relu", bias_gelu_fusion=False)
    keys = Config(model=stored.model, tokenizer=stored.tokenizer or TokenizerConfig()).given()
    config_keys = {**keys, "plugins": [str(plugin)]}
    write_checkpoint(stored, tmp_path / "ours", config_keys=config_keys, plugins=[str(plugin)])
    run(tmp_path / "ours", tmp_path / "again", "neox")
    config = yaml.safe_load((tmp_path / "again/global_step3/configs/config.yml").read_text())
    assert config["plugins"] == [str(plugin)]
    with pytest.raises(CheckpointError, match="activation is triple_relu"):
        run(tmp_path / "ours", tmp_path / "hf", "hf")


@pytest.mark.parametrize("family", FAMILIES)
def test_where_fp32_cannot_tell_fp64_does(tmp_path: Path, family: str) -> None:
    """Large weights make a little rounding much: equal functions differ by more than the tolerance in fp32."""
    ours = write_miniature(tmp_path, tmp_path / "ours", rows=NUM_BYTES, scale=3.0, **FAMILIES[family])
    said = run(ours, tmp_path / "hf", "hf")
    assert "; in fp64 it is " in said[1]
    assert said[1].endswith(", so it is rounding")
    assert said[2].startswith("wrote ")


@pytest.mark.parametrize("damage", ["", "{}", '{"model": 3}', '{"model": {"vocab": {}}}', "[1]"])
def test_a_damaged_tokenizer_is_told_of_and_not_replaced(
    polycoder: Path, tmp_path: Path, damage: str
) -> None:
    """vocab.json and merges.txt beside it do not stand in for it: their ids may be others."""
    (tmp_path / "tokenizer.json").write_text(damage)
    (tmp_path / "vocab.json").write_bytes((polycoder / "code-vocab.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((polycoder / "code-merges.txt").read_bytes())
    section = find_tokenizer(tmp_path)
    assert section is not None
    assert section.tokenizer_type == "HFTokenizer"
    with pytest.raises(VocabularyError, match=r"tokenizer\.json"):
        build_tokenizer(section)


@pytest.mark.parametrize("target", ["hf", "neox", "gguf", "ctranslate2"])
def test_an_output_that_cannot_be_is_one_message(tmp_path: Path, target: str) -> None:
    ours = write_miniature(tmp_path, tmp_path / "ours", rows=NUM_BYTES)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("file/new", "x" * 300, "link"):
        with pytest.raises(OutputError, match="give another --output"):
            run(ours, tmp_path / name, target, check=False)
    if target == "gguf":
        with pytest.raises(OutputError, match="empty exists; give another --output"):
            run(ours, tmp_path / "empty", target)
    assert sorted(tmp_path.iterdir()) == before


def test_the_card_tells_no_more_than_is_known(tmp_path: Path) -> None:
    ours = write_miniature(tmp_path, tmp_path / "our s", rows=NUM_BYTES, step=0)
    config = ours / "global_step0/configs/config.yml"
    run(ours, tmp_path / "hf", "hf", configs=[config], iteration=0)
    card = (tmp_path / "hf/README.md").read_text()
    assert "Training steps" not in card
    command = "tools/convert_checkpoint.py config.yml --input 'our s' --output hf --to hf --iteration 0"
    assert f"Written by `{command}`" in card
    assert "on code in five languages" in card
    (tmp_path / "hf/tokenizer.json").unlink()
    run(tmp_path / "hf", tmp_path / "again", "hf")
    card = (tmp_path / "again/README.md").read_text()
    assert "on random ids: " in card
    assert "five languages" not in card
