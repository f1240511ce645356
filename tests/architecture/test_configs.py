"""Every shipped YAML loads, and the generated documents are fresh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron.neox.config.load import load_config
from megatron.neox.config.parameters import num_parameters
from megatron.neox.config.reference import files
from megatron.neox.config.source import read_entries
from megatron.neox.config.vocabulary import padded_vocab_size

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_loads(path: Path) -> None:
    has_model = any(entry.key == "num_layers" for entry in read_entries(path))
    model = [] if has_model else [ROOT / "configs" / "160M.yml"]
    loaded = load_config([*model, path])
    assert not [note for note in loaded.notes if "replaces" in note]


@pytest.mark.parametrize(
    ("name", "shape", "rate", "stage"),
    [
        ("160M", (12, 768, 12), 6e-4, 0),
        ("small", (12, 768, 12), 6e-4, 0),
        ("0-4B", (24, 1024, 16), 3e-4, 1),
        ("medium", (24, 1024, 16), 3e-4, 1),
        ("2-7B", (32, 2560, 32), 1.6e-4, 1),
    ],
)
def test_polycoder_sizes(name: str, shape: tuple[int, int, int], rate: float, stage: int) -> None:
    config = load_config([ROOT / "configs" / name, ROOT / "configs" / "local_setup"]).config
    model = config.model
    assert (model.num_layers, model.hidden_size, model.num_attention_heads) == shape
    assert (model.seq_length, model.max_position_embeddings) == (2048, 2048)
    assert (model.pos_emb, model.rotary_pct, model.norm.name, model.activation.name) == (
        "rotary", 1.0, "layernorm", "gelu",
    )  # fmt: skip
    assert model.bias_gelu_fusion
    assert not model.gpt_j_residual
    assert not model.tie_weights
    assert config.optimizer.optimizer.options == {"lr": rate, "betas": [0.9, 0.999], "eps": 1e-8}
    assert config.optimizer.zero_optimization.stage == stage
    assert (config.optimizer.weight_decay, config.optimizer.gradient_clipping) == (0, 1)
    assert (config.precision.dtype, config.precision.fp16.initial_scale_power) == ("fp16", 16)
    schedule, training = config.schedule, config.training
    assert (schedule.lr_decay_style, schedule.warmup, schedule.lr_decay_iters) == ("cosine", 0.01, 160000)
    assert (training.train_iters, training.train_micro_batch_size_per_gpu) == (160000, 8)
    assert training.gradient_accumulation_steps == 4
    assert (config.data.split, config.checkpoint.checkpoint_factor) == ("989,10,1", 1000)
    # What released weights need otherwise is said where the key stands.
    assert (model.rotary_table, model.rotary_emb_base, schedule.lr_schedule_version) == ("fp32", 10000, 1)
    assert (config.tokenizer.tokenizer_type, config.tokenizer.merges_header) == (
        "GPT2BPETokenizer", "drop_first_line",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("160M", 162_322_944), ("small", 162_322_944), ("0-4B", 405_334_016), ("medium", 405_334_016),
        ("2-7B", 2_775_208_960),
    ],
)  # fmt: skip
def test_polycoder_parameters_are_those_in_the_files_header(name: str, parameters: int) -> None:
    """By arithmetic: no weights are built, and no vocabulary is read but its size, 50257."""
    path = ROOT / "configs" / f"{name}.yml"
    model = load_config([path]).config.model
    rows = padded_vocab_size(50257, divisible_by=model.make_vocab_size_divisible_by, tensor_size=1)
    assert num_parameters(model, rows) == parameters
    header = path.read_text(encoding="utf-8").partition("{")[0]
    assert f"({parameters:,} with its vocabulary)" in header


def test_polycoder_tasks() -> None:
    """Samplers, windows and files as PolyCoder's configs have them."""
    by_task = {
        task: load_config([ROOT / "configs" / "2-7B", ROOT / "configs" / task]).config
        for task in ("text_generation", "humaneval_generation", "code_ppl")
    }
    assert by_task["text_generation"].generation.model_dump(exclude_defaults=True) == {
        "text_gen_type": "interactive", "maximum_tokens": 256, "temperature": 0.5, "num_samples": 10,
        "sample_input_file": "sample_input.txt", "sample_output_file": "sample_output.txt",
    }  # fmt: skip
    assert by_task["humaneval_generation"].generation.model_dump(exclude_defaults=True) == {
        "text_gen_type": "humaneval", "maximum_tokens": 256, "temperature": 0.4, "top_p": 0.95,
        "num_samples": 100, "sample_output_file": "2.7b-humaneval-outputs.jsonl",
    }  # fmt: skip
    measured = by_task["code_ppl"].evaluation
    assert (len(measured.eval_tasks), measured.eval_window) == (12, 1024)
    for name, (include, port) in {
        "humaneval_generation": ("localhost:8", 29100),
        "code_ppl": ("localhost:9", 28000),
    }.items():
        config = by_task[name]
        assert (config.launch.include, config.launch.master_port) == (include, port)
        assert (config.tokenizer.vocab_file, config.tokenizer.merge_file) == (
            "data/code-vocab.json", "data/code-merges.txt",
        )  # fmt: skip
        assert config.checkpoint.load == "checkpoints-2-7B"


@pytest.mark.parametrize(("name", "text"), files().items(), ids=list(files()))
def test_generated_documents_are_fresh(name: str, text: str) -> None:
    assert (ROOT / "configs" / name).read_text(encoding="utf-8") == text, "run `make docs`"


def test_the_schema_knows_every_key_of_the_shipped_configs() -> None:
    properties = json.loads((ROOT / "configs" / "neox_arguments.schema.json").read_text())["properties"]
    for path in CONFIGS:
        for entry in read_entries(path):
            assert entry.written in properties, f"{entry.where}: {entry.written}"
