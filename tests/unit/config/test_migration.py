"""GPT-NeoX's configs: every key it ever had is known, and its values are never half understood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron.neox.config import Config
from megatron.neox.config.load import LoadedConfig, load_config
from megatron.neox.config.reference import schema
from megatron.neox.errors import ConfigError

BASE = {
    "num_layers": 2, "hidden_size": 96, "num_attention_heads": 4, "seq_length": 32, "max_position_embeddings": 64,
}  # fmt: skip
KEYS = [
    line
    for line in Path(__file__).with_name("neox_keys.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
Load = Callable[[str], LoadedConfig]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a config of the five sizes and then a text, a.yml."""
    monkeypatch.chdir(tmp_path)

    def loaded(text: str) -> LoadedConfig:
        given = [key for key in BASE if f"{key}:" in text]
        Path("base.yml").write_text("".join(f"{key}: {BASE[key]}\n" for key in BASE if key not in given))
        Path("a.yml").write_text(text)
        return load_config(["base.yml", "a.yml"])

    return loaded


def test_the_list_is_whole() -> None:
    assert len(KEYS) == len(set(KEYS)) == 357


def test_every_key_of_gpt_neox_is_known(load: Load) -> None:
    """Known means: implemented, translated, noted or refused by name; 'unknown key' would be none of them."""
    unknown: list[str] = []
    for key in KEYS:
        try:
            load(f"{key}: 7")
        except ConfigError as error:
            unknown += [str(error)] if "unknown key" in str(error) else []
    assert unknown == []


def test_editors_know_every_key_too() -> None:
    assert set(KEYS) - schema()["properties"].keys() == set()


# What GPT-NeoX's dataclasses hold for the keys that decide what is computed, where neither side computes it later.
DEFAULTS = {
    "pipe_parallel_size": 0, "model_parallel_size": 1, "sequence_parallel": False, "precision": None,
    "intermediate_size": None, "mlp_multiple_of": 1, "num_kv_heads": None, "sliding_window_width": None,
    "norm": "layernorm", "layernorm_epsilon": 1e-5, "rms_norm_epsilon": 1e-8, "scalenorm_epsilon": 1e-8,
    "pos_emb": "learned", "no_weight_tying": False, "make_vocab_size_divisible_by": 128, "activation": "gelu",
    "bias_gelu_fusion": False, "init_method": "normal", "output_layer_init_method": "scaled_normal",
    "init_method_std": 0.02, "rotary_pct": 1.0, "rotary_emb_base": 10000, "gpt_j_residual": False,
    "gpt_j_tied": False, "use_bias_in_norms": True, "use_bias_in_attn_linear": True, "use_bias_in_mlp": True,
    "lr_decay_style": "linear", "lr_decay_iters": None, "min_lr": 0.0, "warmup": 0.01, "eod_mask_loss": False,
    "seed": 1234, "split": "969, 30, 1", "tokenizer_type": "GPT2BPETokenizer", "attention_dropout": 0.0,
    "hidden_dropout": 0.0, "weight_decay": 0.1, "gradient_clipping": 1.0, "eval_iters": 100, "eval_interval": 1000,
    "checkpoint_scale": "linear", "checkpoint_factor": None, "finetune": False, "checkpoint_activations": False,
    "checkpoint_num_layers": 1, "fp32_allreduce": False, "temperature": 0.0, "top_p": 0.0, "top_k": 0,
    "maximum_tokens": 64, "num_samples": 1, "prompt_end": "\n", "recompute": False, "return_logits": False,
}  # fmt: skip


def test_defaults_that_decide_results_are_gpt_neoxs() -> None:
    flat = Config.from_flat(BASE).flat()
    assert {key: flat[key] for key in DEFAULTS} == DEFAULTS


class TestGatedMlps:
    """hidden_size is 96: 4h is 384, a third of it 128; 8h/3 is 256."""

    @pytest.mark.parametrize(
        ("text", "width"),
        [
            ("activation: swiglu\nmlp_type: llama", 256),
            ("activation: swiglu\nmlp_type: regular", 128),
            ("activation: swiglu\nmlp_type: llama\nintermediate_size: 90", 90),
            ("activation: swiglu\nmlp_type: regular\nintermediate_size: 90", 30),
            # int(100 * 2 / 3) = 66 values and gates; 33 rounded up to 48
            ("activation: geglu\nmlp_type: regular\nintermediate_size: 100\nmlp_multiple_of: 16", 48),
            ("activation: geglu\nmlp_multiple_of: 16", 128),
            ("activation: swiglu\nintermediate_size: 90\nmlp_multiple_of: 8", 32),
            # the same width by both meanings needs no word
            ("activation: swiglu\nintermediate_size: 64\nmlp_multiple_of: 64", 64),
            ("activation: gelu\nmlp_type: regular\nintermediate_size: 90", 90),
            ("expansion_factor: 2", 192),
            ("expansion_factor: 2\nactivation: swiglu\nmlp_type: regular", 64),
        ],
    )
    def test_width(self, load: Load, text: str, width: int) -> None:
        assert load(text).config.model.mlp_size == width

    def test_two_meanings_are_refused(self, load: Load) -> None:
        with pytest.raises(ConfigError) as caught:
            load("activation: swiglu\nintermediate_size: 90")
        assert str(caught.value) == (
            "a.yml:2: intermediate_size 90 with swiglu has two meanings; give mlp_type: llama (an MLP 90 wide: "
            "Hugging Face, GPT-NeoX before 2024-09) or regular (30 wide: GPT-NeoX since)"
        )
        with pytest.raises(ConfigError, match=r"a.yml:1: activation geglu without intermediate_size has two"):
            load("activation: geglu")

    def test_the_spelling_before_2024_09(self, load: Load) -> None:
        loaded = load("mlp_type: llama\nactivation: silu\nintermediate_size: 90")
        model = loaded.config.model
        assert (model.activation.name, model.mlp_size, model.use_bias_in_mlp) == ("swiglu", 90, False)
        assert loaded.notes == [
            'a.yml:1: mlp_type "llama" with activation silu is read as swiglu, without biases'
        ]

    def test_both_sizes_are_refused(self, load: Load) -> None:
        with pytest.raises(ConfigError, match="give intermediate_size or this, not both"):
            load("expansion_factor: 4\nintermediate_size: 9")


class TestAttention:
    def test_flash_with_a_window_is_local(self, load: Load) -> None:
        """flash_attn's window_size=(W, -1): W tokens before the query, and the query."""
        loaded = load('attention_config: [[["flash"], 2]]\nsliding_window_width: 8')
        assert loaded.config.model.layer_attention == ["local", "local"]
        assert loaded.config.model.sliding_window_width == 9
        assert loaded.notes[0].startswith(
            "a.yml:2: sliding_window_width 8 with 'flash' attention is read as 9"
        )

    def test_a_window_does_not_narrow_global_attention(self, load: Load) -> None:
        loaded = load('attention_config: [[["global"], 2]]\nsliding_window_width: 8')
        assert loaded.config.model.layer_attention == ["global", "global"]

    @pytest.mark.parametrize("name", ["sparse_fixed", "bigbird", "gmlp", "rwkv", "mamba"])
    def test_what_is_not_implemented_is_refused_by_name(self, load: Load, name: str) -> None:
        with pytest.raises(ConfigError, match=f"attention {name} is not implemented"):
            load(f'attention_config: [[["{name}"], 2]]')

    def test_block_sparse_local_attention_is_not_taken_for_ours(self, load: Load) -> None:
        with pytest.raises(ConfigError, match="block-sparse"):
            load('attention_config: [[["local"], 2]]\nsparsity_config: {"block": 16}')
        with pytest.raises(ConfigError, match="block-sparse"):
            load('attention_config: [[["local"], 2]]')


class TestTranslations:
    @pytest.mark.parametrize(
        ("text", "section", "key", "value"),
        [
            ("gptj_residual: true", "model", "gpt_j_residual", True),
            ("train_data_path: a", "data", "train_data_paths", ["a"]),
            ("slurm_comment: x", "launch", "comment", "x"),
            ("max_tokens: 9", "generation", "maximum_tokens", 9),
            ("deepspeed_slurm: true", "launch", "launcher", "slurm"),
            ("num_nodes: -1", "launch", "num_nodes", None),
        ],
    )
    def test_old_keys(self, load: Load, text: str, section: str, key: str, value: Any) -> None:
        assert getattr(getattr(load(text).config, section), key) == value

    def test_unweighted_datasets_earn_a_note(self, load: Load) -> None:
        (note,) = load("train_data_paths: [a, b]").notes
        assert note.startswith(
            "a.yml:1: train_data_paths without train_data_weights: each dataset weighs as much"
        )
        assert load("train_data_paths: [a]").notes == []
        assert load("train_data_paths: [a, b]\ntrain_data_weights: [1, 1]").notes == []

    @pytest.mark.parametrize("text", ["eps: 1.0e_8", "betas: [0.9]", "betas: 0.9", "eps: true"])
    def test_optimizer_numbers(self, load: Load, text: str) -> None:
        with pytest.raises(ConfigError, match=r"a.yml:1: the optimizer's (eps|betas) is "):
            load(f'optimizer: {{"type": "adam", "params": {{{text}}}}}')
