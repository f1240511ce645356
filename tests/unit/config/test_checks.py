"""Combinations of keys that cannot work, one by one, with both places."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.neox.config.load import load_config
from megatron.neox.errors import ConfigError

_MODEL = {
    "num_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 32, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("hidden_size: 30", "1: hidden_size 30 cannot be divided by num_attention_heads 4; 28 or 32 can"),
        ("num_kv_heads: 3", "1: num_attention_heads 4 cannot be divided by num_kv_heads 3"),
        ("gpt_j_tied: true", "1: gpt_j_tied has no meaning without gpt_j_residual: true"),
        ("pos_emb: rotary\nrotary_pct: 0.4", "2: rotary_pct 0.4 turns 3 of a head's 8 features, an odd number"),
        ("eval_window: 65", "1: eval_window 65 is more than max_position_embeddings 64"),
        ("eval_window: 8\neval_stride: 9", "2: eval_stride 9 is more than eval_window 8: tokens would be left out"),
        ('attention_config: [[["global"], 3]]', "1: attention_config names 3 layers, and num_layers is 4"),
        ("attention_config: [3]", "1: attention_config is a list of [pattern, repeats]"),
        ('attention_config: [[[], "all"]]', "1: attention_config is a list of [pattern, repeats]"),
        ('attention_config: [[["global"], 10000000000000]]', "1: attention_config is a list of [pattern, repeats]"),
        ("num_layers: 1000000000000", "1: num_layers: input should be less than or equal to 10000"),
        ('attention_config: [[["local"], "all"]]', "1: local attention needs sliding_window_width"),
        ("sequence_parallel: true", "1: sequence_parallel needs model_parallel_size of 2 or more; remove it"),
        ("model_parallel_size: 3", "1: model_parallel_size 3 does not divide num_attention_heads 4"),
        ("num_kv_heads: 2\nmodel_parallel_size: 4", "2: model_parallel_size 4 does not divide num_kv_heads 2"),
        ("intermediate_size: 7\nmodel_parallel_size: 2",
         "2: model_parallel_size 2 does not divide intermediate_size 7"),
        ("padded_vocab_size: 7\nmodel_parallel_size: 2",
         "2: model_parallel_size 2 does not divide padded_vocab_size 7"),
        ("pipe_parallel_size: 5", "1: pipe_parallel_size 5 is more than num_layers 4: a stage would be empty"),
        ("pipe_parallel_size: 2\nglobal_num_gpus: 3",
         "2: global_num_gpus 3 cannot be divided into pipe_parallel_size 2 x model_parallel_size 1"),
        ("zero_optimization: {stage: 2}\npipe_parallel_size: 2", "1: ZeRO stage 2 does not go with a pipeline"),
        ("zero_optimization: {stage: 3}\nmodel_parallel_size: 2",
         "1: ZeRO stage 3 does not go with model_parallel_size 2; use stage 1 or 2, or model_parallel_size 1"),
        ("zero_optimization: {stag: 1}", "1: unknown key zero_optimization.stag; did you mean stage?"),
        ("eval_tasks_interval: 5", "1: eval_tasks_interval is given without eval_tasks: what to measure"),
        ("eval_tasks: [human_eval]\neval_tasks_interval: 5\npipe_parallel_size: 2",
         "2: eval_tasks_interval does not go with pipe_parallel_size 2: no rank has all layers"),
        ("eval_tasks: [human_eval]\neval_tasks_interval: 5\nzero_optimization: {stage: 3}",
         "2: eval_tasks_interval does not go with ZeRO stage 3: no rank has whole weights"),
        ("eval_tasks: [human_eval]\neval_tasks_interval: 5\nmodel_parallel_size: 2\nsequence_parallel: true",
         "2: eval_tasks_interval does not go with sequence_parallel: no rank has whole sequences"),
        ("train_batch_size: 7\ntrain_micro_batch_size_per_gpu: 2",
         "1: train_batch_size 7 cannot be divided by train_micro_batch_size_per_gpu 2"),
        ("split: 1,2,3,4", "1: split is three shares"),
        ("checkpoint_factor: 1\ncheckpoint_scale: log", "1: checkpoint_factor 1 never advances"),
        ("split: '0,0,0'", "1: split is three shares"),
        ("data_path: a\ntrain_data_paths: [b]", "1: data_path and train_data_paths cannot both be given"),
        ("valid_data_paths: [a]\nvalid_data_weights: [1, 2]",
         "2: valid_data_weights has 2 numbers for 1 valid_data_paths"),
        ("fp16: {enabled: true}\nbf16: {enabled: true}", "1: fp16 and bf16 are both enabled; keep one of them"),
        ("precision: bfloat16\nfp16: {enabled: true}",
         "1: precision is bfloat16, but the block fp16 is enabled; keep one"),
        ("precision: fp32\nbf16: {enabled: true}", "1: precision is fp32, but the block bf16 is enabled; keep one"),
        ("min_lr: 1", "1: min_lr 1.0 is more than the optimizer's lr 0.0006"),
        ('optimizer: {"type": "adam", "params": {"lr": fast}}', "1: the optimizer's lr is a number"),
    ],
)  # fmt: skip
def test_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    named = {line.partition(":")[0] for line in given.splitlines()}
    rest = "".join(f"{key}: {value}\n" for key, value in _MODEL.items() if key not in named)
    Path("a.yml").write_text(given)
    Path("base.yml").write_text(rest)
    with pytest.raises(ConfigError) as caught:
        load_config(["a.yml", "base.yml"])
    assert str(caught.value).splitlines()[0].startswith(f"a.yml:{problem}")
    assert len(caught.value.problems) == (2 if "model_parallel_size 3 does" in problem else 1)


def test_the_other_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yml").write_text("zero_optimization:\n  stage: 2")
    Path("b.yml").write_text("\npipe_parallel_size: 2")
    Path("base.yml").write_text("".join(f"{key}: {value}\n" for key, value in _MODEL.items()))
    with pytest.raises(ConfigError) as caught:
        load_config(["base.yml", "a.yml", "b.yml"])
    (problem,) = caught.value.problems
    assert problem.where == "a.yml:2"
    assert problem.message.endswith("(pipe_parallel_size: b.yml:2)")
