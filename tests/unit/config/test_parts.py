"""Names of parts: told with file and line, all at once, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.config.load import load_config
from megatron.neox.errors import ConfigError

_MODEL = (
    "num_layers: 2\nhidden_size: 32\nnum_attention_heads: 4\nseq_length: 32\nmax_position_embeddings: 32\n"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a complete base.yml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yml").write_text(_MODEL)
    return tmp_path


def test_every_slip_is_told_with_its_place_and_what_was_meant(here: Path) -> None:
    slips = {
        "activation": "gellu", "norm": "rmsnrom", "pos_emb": "rotry", "init_method": "norml", "model": "gpt_neo",
        "optimizer": '{"type": "adamm", "params": {"lr": 1e-3}}', "lr_decay_style": "cosin", "hooks": "[memry]",
        "monitors": "[tensorbord]", "attention_config": '[[["globl"], "all"]]', "tokenizer_type": "HFTokeniser",
    }  # fmt: skip
    (here / "a.yml").write_text("".join(f"{key}: {value}\n" for key, value in slips.items()))
    with pytest.raises(ConfigError) as caught:
        load_config(["base.yml", "a.yml"])
    assert [problem.where for problem in caught.value.problems] == [f"a.yml:{line}" for line in range(1, 12)]
    meant = [str(problem).splitlines()[1].strip() for problem in caught.value.problems]
    names = "gelu rmsnorm rotary normal gpt_neox adam cosine memory tensorboard global HFTokenizer"
    assert meant == [f"did you mean {name}?" for name in names.split()]


def test_a_plugin_file_may_bring_the_name(here: Path) -> None:
    (here / "part.py").write_text(
        "from megatron.neox.plugins import activations\n\n\n"
        '@activations.register("only_in_this_file")\ndef part(x):\n    "Give it back."\n    return x\n'
    )
    (here / "a.yml").write_text("activation: only_in_this_file\nplugins: [part.py]\n")
    assert load_config(["base.yml", "a.yml"]).config.model.activation.name == "only_in_this_file"


def test_an_absent_plugin_file_is_a_problem_of_the_config(here: Path) -> None:
    (here / "a.yml").write_text("activation: unheard_of\nplugins: [part.py]\n")
    with pytest.raises(
        ConfigError, match=r"^a\.yml:2: plugin .*part\.py \(YAML key 'plugins'\) is not a file"
    ):
        load_config(["base.yml", "a.yml"])


def test_an_option_that_a_part_has_not_is_told_with_its_place(here: Path) -> None:
    (here / "a.yml").write_text(
        '{"optimizer": {\n  "type": "Adam",\n  "params": {\n    "lr": 1e-3,\n    "btas": [0.9, 0.95]}},\n'
        ' "norm": {"type": "layernorm", "layernorm_epsilon": 1e-5, "epsilon": 1e-5}}\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_config(["base.yml", "a.yml"])
    assert [str(problem) for problem in caught.value.problems] == [
        "a.yml:5: optimizer 'adam' has no option btas; did you mean betas? (it has: lr, betas, eps)",
        "a.yml:6: norm 'layernorm' has no option epsilon (it has: layernorm_epsilon, use_bias_in_norms)",
    ]
