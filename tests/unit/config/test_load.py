"""Finding, merging and translating config files; every problem at once with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.neox.config import Config, PartChoice
from megatron.neox.config.load import LoadedConfig, find_config, load_config
from megatron.neox.errors import ConfigError, InputError

BASE = """\
num_layers: 2
hidden_size: 32
num_attention_heads: 4
seq_length: 32
max_position_embeddings: 64
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a complete base.yml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yml").write_text(BASE)
    return tmp_path


@pytest.fixture
def load(here: Path) -> Callable[..., LoadedConfig]:
    """Load base.yml and then texts as a.yml, b.yml, ..."""

    def merged(*texts: str, **options: object) -> LoadedConfig:
        names = ["base.yml"]
        for name, text in zip("abc", texts):
            (here / f"{name}.yml").write_text(text)
            names.append(f"{name}.yml")
        return load_config(names, **options)  # pyright: ignore

    return merged


def _problems(caught: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return str(caught.value).splitlines()


class TestMerging:
    def test_later_files_add_keys(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load("seed: 7", "save: out")
        assert (loaded.config.training.seed, loaded.config.checkpoint.save) == (7, "out")
        assert loaded.places["seed"] == "a.yml:1"
        assert loaded.notes == []

    def test_the_same_value_twice_is_fine(self, load: Callable[..., LoadedConfig]) -> None:
        assert load("seed: 7", "seed: 7").config.training.seed == 7

    def test_another_value_is_an_error_with_both_places(self, load: Callable[..., LoadedConfig]) -> None:
        with pytest.raises(ConfigError) as caught:
            load("seed: 7", "\nseed: 8")
        assert _problems(caught) == ["b.yml:2: seed is 8 here but 7 in a.yml:1; keep one of them"]

    def test_a_model_size_given_twice_is_not_called_absent(self, load: Callable[..., LoadedConfig]) -> None:
        with pytest.raises(ConfigError) as caught:
            load("num_layers: 3")
        assert str(caught.value) == "a.yml:1: num_layers is 3 here but 2 in base.yml:1; keep one of them"

    def test_within_one_file_too(self, load: Callable[..., LoadedConfig]) -> None:
        with pytest.raises(ConfigError) as caught:
            load("save: a\nsave: b")
        assert _problems(caught) == ["a.yml:2: save is 'b' here but 'a' in a.yml:1; keep one of them"]

    def test_a_hyphenated_key_replaces_with_a_note(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load("train_iters: 7", "train-iters: 8")
        assert loaded.config.training.train_iters == 8
        assert loaded.notes == [
            "b.yml:1: train-iters 8 replaces 7 in a.yml:1, because it is written with '-'"
        ]

    def test_an_earlier_hyphen_does_not(self, load: Callable[..., LoadedConfig]) -> None:
        with pytest.raises(ConfigError, match=r"b.yml:1: train_iters is 8 here but 7 in a.yml:1"):
            load("train-iters: 7", "train_iters: 8")

    def test_set_wins_over_the_files(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load("seed: 7", overrides=["seed=9", "train-iters=1e3"])
        assert (loaded.config.training.seed, loaded.config.training.train_iters) == (9, 1000)
        assert loaded.places["seed"] == "--set"

    def test_set_reaches_into_blocks(self, load: Callable[..., LoadedConfig]) -> None:
        given = 'optimizer: {"type": "adam", "params": {"lr": 1, "eps": 2}}'
        loaded = load(
            given, overrides=["optimizer.lr=1e-4", "optimizer.params.eps=3", "zero_optimization.stage=2"]
        )
        assert loaded.config.optimizer.optimizer == PartChoice(name="adam", options={"lr": 0.0001, "eps": 3})
        assert loaded.config.optimizer.zero_optimization.stage == 2

    def test_set_of_an_old_key_wins_over_the_block_it_moved_to(
        self, load: Callable[..., LoadedConfig]
    ) -> None:
        loaded = load(
            "optimizer: {type: adam, params: {lr: 1e-3, betas: [0.9, 0.95]}}",
            overrides=["lr=1e-4", "zero_stage=2"],
        )
        assert loaded.config.optimizer.optimizer.options == {"lr": 1e-4, "betas": [0.9, 0.95]}
        assert loaded.config.optimizer.zero_optimization.stage == 2

    def test_defaults_yield_to_everything(self, load: Callable[..., LoadedConfig], here: Path) -> None:
        (here / "defaults.yml").write_text("seed: 1\ntrain_iters: 5")
        loaded = load("seed: 7", defaults=["defaults.yml"])
        assert (loaded.config.training.seed, loaded.config.training.train_iters) == (7, 5)

    def test_a_flat_config_loads_again(self, load: Callable[..., LoadedConfig]) -> None:
        config = load(
            'optimizer: {"type": "lion", "params": {"lr": 1e-4}}\nnorm: rmsnorm\nfp16: {enabled: true}'
        ).config
        assert config.from_flat(config.flat()).flat() == config.flat()
        assert config.from_flat(config.given()) == config

    def test_a_precision_set_wins_over_the_blocks(self, load: Callable[..., LoadedConfig]) -> None:
        old = "fp16: {fp16: true, enabled: true, loss_scale: 0}"
        assert load(old, overrides=["precision=fp32"]).config.precision.dtype == "fp32"
        assert load(old, overrides=["precision=bf16"]).config.precision.dtype == "bf16"
        with pytest.raises(ConfigError, match="precision is fp32, but the block fp16 is enabled"):
            load(f"{old}\nprecision: fp32")


class TestFinding:
    @pytest.mark.parametrize("name", ["base", "base.yml", "./base.yml"])
    def test_the_ending_is_implied(self, here: Path, name: str) -> None:
        assert find_config(name).name == "base.yml"

    def test_json_is_accepted(self, here: Path) -> None:
        (here / "x.json").write_text('{"num_layers": 2}')
        assert find_config("x.json") == Path("x.json")

    def test_the_folder_comes_first_and_configs_last(self, here: Path) -> None:
        for folder in ("d", "configs"):
            (here / folder).mkdir()
            (here / folder / "base.yml").write_text(BASE)
        (here / "configs" / "only.yml").write_text(BASE)
        assert find_config("base.yml", "d") == Path("d/base.yml")
        assert find_config("base.yml") == Path("base.yml")
        assert find_config("only", "d") == Path("configs/only.yml")

    def test_all_absent_files_are_told_at_once(self, here: Path) -> None:
        with pytest.raises(InputError) as caught:
            load_config(["basse.yml", "other.yml"])
        lines = str(caught.value).splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("no config file basse.yml (looked in: .,")
        assert lines[0].endswith("; did you mean base.yml?")


class TestProblems:
    def test_every_problem_at_once_in_the_order_of_the_files(self, load: Callable[..., LoadedConfig]) -> None:
        with pytest.raises(ConfigError) as caught:
            load(
                "hidden_sise: 64\nmodel_parallel_size: 0\nfp16: {los_scale: 1}\ntrain_iters: many",
                "seed: true\nuse_mup: true",
            )
        assert _problems(caught) == [
            "a.yml:1: unknown key hidden_sise; did you mean hidden_size?",
            "a.yml:2: model_parallel_size: input should be greater than 0, not 0",
            "a.yml:3: fp16.los_scale: unknown key; did you mean loss_scale?",
            "a.yml:4: train_iters: input should be a valid integer, unable to parse string as an integer, not 'many'",
            "b.yml:1: seed: input should be a number, not true",
            "b.yml:2: use_mup: muP is not implemented: remove it, or set it to false",
        ]

    def test_a_config_must_have_a_model(self, here: Path) -> None:
        (here / "a.yml").write_text("num_layers: 2\nsplit: x")
        with pytest.raises(ConfigError) as caught:
            load_config(["a.yml"])
        problems = _problems(caught)
        assert problems[0].startswith("a.yml:2: split is three shares")
        assert problems[1] == (
            "a.yml must give hidden_size, num_attention_heads, seq_length, max_position_embeddings; "
            "see configs/160M.yml"
        )

    def test_a_bad_key_is_not_blamed_twice(self, load: Callable[..., LoadedConfig]) -> None:
        with pytest.raises(ConfigError) as caught:
            load("num_kv_heads: x\nseq-length: 100")
        assert _problems(caught) == [
            "a.yml:1: num_kv_heads: input should be a valid integer, unable to parse string as an integer, not 'x'",
            "a.yml:2: seq_length 100 is more than max_position_embeddings 64 (max_position_embeddings: base.yml:5)",
        ]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("hooks: memory", "hooks: input should be a valid list, not 'memory'; write [memory]"),
            (
                "activation: 3",
                'activation: a part is written "name", or {"type": "name", "option": value}, not 3',
            ),
            ("norm: {eps: 1}", 'norm: a part is written "name", or {"type": "name", "option": value}'),
        ],
    )
    def test_wrong_shapes_say_the_right_one(
        self, load: Callable[..., LoadedConfig], given: str, message: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            load(given)
        assert str(caught.value) == f"a.yml:1: {message}"

    def test_set_without_a_value(self, load: Callable[..., LoadedConfig]) -> None:
        with pytest.raises(ConfigError) as caught:
            load(overrides=["seed", "a.b=[", "seedd=1"])
        assert _problems(caught) == [
            "--set seed: write --set KEY=VALUE",
            "--set a.b: [ is not a YAML value",
            "--set: unknown key seedd; did you mean seed?",
        ]

    def test_what_a_door_needs(self, load: Callable[..., LoadedConfig]) -> None:
        with pytest.raises(ConfigError) as caught:
            load(require=("training", "data", "checkpoint"))
        problems = _problems(caught)
        assert [problem.split()[0] for problem in problems] == [
            "train_iters", "no", "train_micro_batch_size_per_gpu", "load",
        ]  # fmt: skip


class TestOldConfigs:
    def test_renamed_keys(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load("save-interval: 10\ngas: 2\nbatch_size: 3\nclip_grad: 0.5")
        assert loaded.config.checkpoint.checkpoint_factor == 10
        assert loaded.config.training.gradient_accumulation_steps == 2
        assert loaded.config.training.train_micro_batch_size_per_gpu == 3
        assert loaded.config.optimizer.gradient_clipping == 0.5
        assert loaded.notes[0] == "a.yml:1: save-interval is an old name of checkpoint_factor"

    def test_bfloat16_in_the_fp16_block(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load('fp16: {"type": "bfloat16", "enabled": true}')
        assert loaded.config.precision.dtype == "bf16"
        assert loaded.notes == ['a.yml:1: fp16.type "bfloat16" is an old spelling of bf16: {"enabled": true}']

    def test_keys_without_effect_earn_a_note(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load("output_layer_parallelism: row\ndistributed_backend: nccl\npartition-activations: true")
        assert [note.partition(" has")[0] for note in loaded.notes] == [
            "a.yml:1: output_layer_parallelism", "a.yml:2: distributed_backend", "a.yml:3: partition_activations",
        ]  # fmt: skip

    @pytest.mark.parametrize("key", sorted(
        key for section in Config.model_fields.values()
        for key, described in section.annotation.model_fields.items()  # pyright: ignore
        if (described.description or "").startswith("Accepted for old configs")
    ))  # fmt: skip
    def test_keys_that_are_only_accepted_say_so(self, load: Callable[..., LoadedConfig], key: str) -> None:
        value = {"data_impl": "lazy", "num_workers": "4", "zero_allow_untested_optimizer": "false"}.get(
            key, "true"
        )
        (note,) = load(f"{key}: {value}").notes
        assert note.startswith(f"a.yml:1: {key} has no effect here: ")

    def test_values_that_ask_for_nothing_pass(self, load: Callable[..., LoadedConfig]) -> None:
        assert load("moe_num_experts: 1\nuse_mup: false\ncurriculum_learning: {enabled: false}").notes == []

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "moe_num_experts: 8",
                "a.yml:1: moe_num_experts: mixture of experts is not implemented: leave it at 1",
            ),
            ("pos_emb: rpe", "a.yml:1: pos_emb: T5's relative positions are not implemented"),
            (
                'attention_config: [[["mamba"], 2]]',
                "a.yml:1: attention_config: attention mamba is not implemented",
            ),
            (
                "train_impl: dpo",
                "a.yml:1: train_impl: preference training (dpo, kto, rm, reinforce) is not implemented",
            ),
            (
                "use_qk_layernorm: true",
                "a.yml:1: use_qk_layernorm: normalised queries and keys are not implemented",
            ),
        ],
    )
    def test_what_is_not_implemented_is_refused(
        self, load: Callable[..., LoadedConfig], text: str, message: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            load(text)
        assert str(caught.value).startswith(message)

    def test_moved_keys(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load(
            "lr: 0.1\nzero_stage: 2\nloss_scale: 128\npeak_theoretical_tflops: 312\nflops_profiler: {a: 1}"
        )
        assert loaded.config.optimizer.learning_rate == 0.1
        assert loaded.config.optimizer.zero_optimization.stage == 2
        assert loaded.config.precision.fp16.loss_scale == 128
        assert loaded.config.logging.peak_flops_per_second == 312e12
        assert loaded.config.optimizer.deepspeed_extra_args == {"flops_profiler": {"a": 1}}

    def test_flash_attention_is_global(self, load: Callable[..., LoadedConfig]) -> None:
        assert load('attention_config: [[["flash"], 2]]').config.model.layer_attention == ["global", "global"]

    def test_optimizer_names(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load(
            'optimizer: {"type": "Adam", "params": {"lr": 0.00016, "betas": [0.9, 0.999], "eps": 1.0e-8,}}'
        )
        assert loaded.config.optimizer.optimizer == PartChoice(
            name="adam", options={"lr": 0.00016, "betas": [0.9, 0.999], "eps": 1e-08}
        )

    def test_zero_blocks_pass_through(self, load: Callable[..., LoadedConfig]) -> None:
        loaded = load('zero_optimization: {"stage": 0, "overlap_comm": True, "cpu_offload": False}')
        assert loaded.config.optimizer.zero_optimization.model_dump() == {"stage": 0, "overlap_comm": True}
        assert loaded.notes[0].startswith("a.yml:1: zero_optimization.stage 0 is read as 1")

    def test_null_is_not_given(self, load: Callable[..., LoadedConfig]) -> None:
        assert load("seed: null\nsave: None").config.training.seed == 1234
