"""GPT-NeoX's keys that this toolkit does not implement: what each value of them leads to.

Some cannot change a result here and only earn a note. The others are accepted at the value that asks for nothing,
and are an error with a remedy at any other, because training on as if nothing were asked would be a lie.
Source: neox_arguments of EleutherAI/gpt-neox, every version from the first to ea7aefd8 (2026).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megatron.neox.errors import ConfigError, Problem

_BY_LAUNCHER = "it is set by the launcher"
_KERNEL = "PyTorch's own kernels are used; the result is the same up to rounding"
_NOT_BUILT = "nothing is built at run time"
_NEVER_READ = "GPT-NeoX never read it"
_MAMBA = "it belongs to mamba layers, and attention_config has none"
_REWARD = "it belongs to preference training, and train_impl is normal"
_PROFILE = "profilers are not built in; run the door under nsys or py-spy"
_AT_RUN_TIME = "GPT-NeoX keeps an object of the running program in it"
_GRADIENT_NORM = "the gradient norm is always logged; other norms are not"

NO_EFFECT: dict[str, str] = {
    **dict.fromkeys(
        ("world_size", "is_pipe_parallel", "local_rank", "rank", "user_script", "do_train", "do_valid", "do_test",
         "lazy_mpu_init", "git_hash", "config_files", "curriculum_seqlen", "dynamic_loss_scale"), _BY_LAUNCHER),
    **dict.fromkeys(
        ("layernorm_fusion", "rmsnorm_fusion", "rope_fusion", "bias_dropout_fusion", "use_flashattn_swiglu",
         "scaled_masked_softmax_fusion", "fp16_lm_cross_entropy", "onnx_safe"), _KERNEL),
    **dict.fromkeys(("fused_kernels_build_path",), _NOT_BUILT),
    **dict.fromkeys(("tokenizer", "tensorboard_writer", "comet_experiment", "adlr_autoresume_object"), _AT_RUN_TIME),
    **dict.fromkeys(
        ("param_sharing_style", "weight_server_port", "te_fp8_margin", "short_seq_prob", "adlr_autoresume",
         "adlr_autoresume_interval", "deepscale", "deepscale_config", "mup_attn_temp", "mup_output_temp",
         "moe_lbl_in_fp32"), _NEVER_READ),
    **dict.fromkeys(
        ("mamba_selective_scan_fusion", "mamba_causal_conv_fusion", "mamba_inner_func_fusion",
         "mamba_selective_fp32_params", "mamba_use_bias_in_conv", "mamba_use_bias_in_linears",
         "gmlp_attn_dim", "dim_att", "head_size", "ffn_dim"), _MAMBA.replace("mamba", "mamba, gmlp or rwkv")),
    **dict.fromkeys(
        ("dpo_fp32", "dpo_reference_free", "dpo_beta", "kto_fp32", "kto_desirable_weight", "kto_undesirable_weight",
         "kto_beta", "fp32_reinforce", "kl_impl", "kl_div_beta", "reinforce_leave_one_out",
         "online_dataserver_ips", "online_dataserver_ports"), _REWARD),
    **dict.fromkeys(
        ("profile", "profile_backward", "profile_step_start", "profile_step_stop", "memory_profiling",
         "memory_profiling_path"), _PROFILE),
    **dict.fromkeys(("log_grad_pct_zeros", "log_param_norm", "log_grad_norm", "log_optimizer_states",
                     "log_gradient_noise_scale", "gradient_noise_scale_n_batches",
                     "gradient_noise_scale_cpu_offload"), _GRADIENT_NORM),
    **dict.fromkeys(("te_fp8_format", "te_fp8_wgrad", "te_fp8_amax_history_len", "te_fp8_amax_compute_algo"),
                    "no layer runs in fp8"),
    **dict.fromkeys(("moe_expert_interval", "moe_top_k", "moe_router_type", "moe_jitter_eps", "expert_interval",
                     "use_tutel", "moe_loss_coeff", "moe_train_capacity_factor", "moe_eval_capacity_factor",
                     "moe_min_capacity", "moe_token_dropping", "create_moe_param_group", "moe_use_residual",
                     "moe_expert_parallel_size", "moe_type", "moe_glu", "enable_expert_tensor_parallelism"),
                    "moe_num_experts is 1"),
    **dict.fromkeys(("base_shapes_file", "mup_init_scale", "mup_embedding_mult", "mup_rp_embedding_mult",
                     "mup_width_scale"), "use_mup is false"),
    **dict.fromkeys(("rpe_num_buckets", "rpe_max_distance"), "pos_emb is not rpe"),
    **dict.fromkeys(("comet_workspace", "comet_project", "comet_experiment_name", "comet_tags", "comet_others"),
                    "use_comet is false"),
    "apply_query_key_layer_scaling": "it scales before and after the softmax, which cancels out",
    "use_cpu_initialization": "weights are always drawn so that they do not depend on the device or the split",
    "rotary_save_freqs_buffer": "rotary tables are computed, never stored",
    "output_layer_parallelism": "the output layer is split over the vocabulary (column); row gives the same numbers",
    "distributed_backend": "the backend follows the device: nccl on CUDA, gloo on a CPU",
    "pipe_partition_method": "transformer layers are divided evenly over the pipeline stages",
    "use_shared_fs": "sample indices are built once on each file system",
    "allow_chopped": "samples are packed",
    "no_save_rng": "random numbers are a function of seed and step",
    "deepspeed": "DeepSpeed is always on",
    "deepspeed_activation_checkpointing": "checkpoint_activations decides",
    "contiguous_checkpointing": "it is a matter of memory layout, and PyTorch's recomputation is used",
    "checkpoint_in_cpu": "activations are recomputed, not moved",
    "activation_checkpointing": "checkpoint_activations and checkpoint_num_layers decide",
    "char_level_ppl": "evaluate.py reports bits per byte",
    "s3_chunk_size": "s3_path is not set",
    "precompute_model_name": "it names a file of the mode precompute, which is not implemented",
    "sparse_attention": "no layer is sparse",
    "csv_monitor": "metrics.jsonl holds the numbers",
    "tensorboard": "tensorboard_dir decides",
    "wandb": "use_wandb decides",
}  # fmt: skip
"""Key: why it changes nothing here."""


@dataclass(frozen=True)
class Unsupported:
    """A key that is refused unless its value asks for nothing."""

    remedy: str
    neutral: tuple[Any, ...] = (None, False)


_MOE = Unsupported("mixture of experts is not implemented: leave it at 1", (None, 1, 0))
_LABELS = Unsupported("label datasets (a loss on answers alone) are not implemented: remove it", (None, []))
_PREFERENCES = Unsupported(
    "preference training (dpo, kto, rm, reinforce) is not implemented: remove it", (None, [])
)
_TE = Unsupported("Transformer Engine is not used: remove it, or set it to false")
_DOCUMENT_MASKS = Unsupported("documents in one sample are not set apart: remove it, or set it to false")
_MUP = Unsupported("muP is not implemented: remove it, or set it to false")
_COMET = Unsupported(
    "Comet is not built in: use tensorboard_dir or use_wandb, or write a plugin of kind monitor"
)

UNSUPPORTED: dict[str, Unsupported] = {
    "moe_num_experts": _MOE, "num_experts": _MOE,
    "use_mup": _MUP, "coord_check": _MUP, "save_base_shapes": _MUP,
    "use_comet": _COMET,
    **dict.fromkeys(("te_columnparallel", "te_rowparallel", "te_layernorm_mlp", "te_mha", "te_fp8_mha"), _TE),
    **{
        key: _PREFERENCES
        for split in ("train", "valid", "test")
        for key in (f"{split}_reward_data_paths", f"pos_{split}_data_paths", f"neg_{split}_data_paths",
                    f"pos_{split}_label_data_paths", f"neg_{split}_label_data_paths")
    },
    **dict.fromkeys(("label_data_paths", "train_label_data_paths", "valid_label_data_paths",
                     "test_label_data_paths"), _LABELS),
    "train_impl": Unsupported("preference training (dpo, kto, rm, reinforce) is not implemented: "
                              'leave it at "normal"', (None, "normal")),
    "dataset_impl": Unsupported("pairwise and online datasets, for preference training, are not implemented: "
                                'leave it at "gpt2"', (None, "gpt2")),
    "pack_impl": Unsupported('samples are cut from one stream of documents: leave it at "packed"',
                             (None, "packed")),
    "z_loss": Unsupported("the z-loss is not implemented: leave it at 0", (None, 0)),
    "expansion_factor": Unsupported("give intermediate_size or this, not both", (None,)),
    "opt_pos_emb_offset": Unsupported("OPT's shifted positions are not implemented", (None, 0)),
    "use_qk_layernorm": Unsupported("normalised queries and keys are not implemented: remove it"),
    "sparsity_config": Unsupported("block-sparse attention (sparse_*, bigbird, bslongformer, GPT-NeoX's local) is not "
                                   "implemented: remove it; `local` here takes sliding_window_width", (None, {})),
    "sparsity": Unsupported("block-sparse attention is not implemented: remove it", (None, "none")),
    "apply_residual_connection_post_layernorm": Unsupported("a residual taken after the norm is not implemented: "
                                                            "remove it, or set it to false"),
    "reset_position_ids": _DOCUMENT_MASKS, "reset_attention_mask": _DOCUMENT_MASKS,
    "geglu": Unsupported('write activation: "geglu"'),
    "openai_gelu": Unsupported('write activation: "gelu_tanh"'),
    "greedy": Unsupported("sampling is greedy where temperature, top_k and top_p are 0: remove it"),
    "out_seq_length": Unsupported("give maximum_tokens, the number of new tokens", (None,)),
    "num_unique_layers": Unsupported("layers do not share weights: remove it"),
    "soft_prompt_tuning": Unsupported("soft prompts are not implemented: remove it"),
    "serve_model_weights": Unsupported("weights are not served over a socket: remove it"),
    "use_bnb_optimizer": Unsupported("8-bit optimizers are not built in: remove it, or write a plugin"),
    "s3_path": Unsupported("checkpoints are not uploaded: copy the save folder, or write a plugin of kind hook"),
    "train_epochs": Unsupported("give the number of steps, train_iters"),
    "scheduler": Unsupported("the schedule is chosen by lr_decay_style"),
    "sparse_gradients": Unsupported("sparse gradients are not supported by ZeRO: remove it"),
    "amp": Unsupported("use bf16 or fp16"),
    "autotuning": Unsupported("DeepSpeed's autotuning is not supported: remove it"),
    "autotuning_config": Unsupported("DeepSpeed's autotuning is not supported: remove it"),
    "autotuning_run": Unsupported("DeepSpeed's autotuning is not supported: remove it"),
    "curriculum_learning": Unsupported("curriculum learning is not implemented: remove it"),
    "data_efficiency": Unsupported("DeepSpeed's data efficiency is not supported: remove it"),
    "attention_type": Unsupported("remove it: num_kv_heads and attention_config say it (no version of GPT-NeoX's main "
                                  "branch has it)", (None,)),
    "decay_lr_to": Unsupported("give min_lr, which is the learning rate times this (no version of GPT-NeoX's main "
                               "branch has it)", (None,)),
    "warmup_iters": Unsupported("give warmup, which is this divided by lr_decay_iters (no version of GPT-NeoX's main "
                                "branch has it)", (None,)),
    "elasticity": Unsupported("elastic training is not supported: remove it"),
    "compression_training": Unsupported("DeepSpeed's compression is not supported: remove it"),
    "checkpoint": Unsupported("checkpoints have a layout of their own; see checkpoint_factor and its neighbours"),
}  # fmt: skip
"""Key: what to do instead."""

# Keys of ours that old configs bring along and that do nothing: the value that asks for nothing, and why.
_IDLE: dict[str, tuple[Any, str]] = {
    "detect_nvlink_pairs": (False, "the order of devices is the driver's"),
    "override_lr_scheduler": (False, "the learning rate is a function of this config and the step"),
    "use_checkpoint_lr_scheduler": (False, "the learning rate is a function of this config and the step"),
    "partition_activations": (False, "activations are recomputed whole"),
    "synchronize_each_layer": (False, "it only costs time"),
    "no_load_rng": (False, "random numbers are a function of seed and step"),
    "checkpoint_validation_with_forward_pass": (
        False,
        "checkpoints are checked by the digests of their files",
    ),
    "wandb_init_all_ranks": (False, "rank 0 logs"),
    "data_impl": ("mmap", "datasets are memory-mapped"),
    "num_workers": (2, "samples are slices of a memory map, read in the training process"),
    "scaled_upper_triang_masked_softmax_fusion": (False, _KERNEL),
    "zero_allow_untested_optimizer": (True, "it is always on"),
    "mmap_warmup": (False, "the system reads ahead"),
}

_NO_ATTENTION = (
    "sparse_fixed",
    "sparse_variable",
    "bigbird",
    "bslongformer",
    "gmlp",
    "amlp",
    "rwkv",
    "mamba",
)
_NO_VALUE: dict[str, dict[str, str]] = {
    "pos_emb": {
        "rpe": "T5's relative positions are not implemented; use rotary, alibi, learned or sinusoidal"
    },
    "norm": dict.fromkeys(("te_layernorm", "te_rmsnorm"), "use layernorm or rmsnorm"),
    "text_gen_type": {"precompute": "the mode precompute is not implemented"},
}


def is_foreign(key: str) -> bool:
    """Whether GPT-NeoX has the key and this toolkit does not."""
    return key in NO_EFFECT or key in UNSUPPORTED


def judge(key: str, value: Any) -> str | None:
    """A note about a foreign key that changes nothing, or None where there is nothing to say.

    Raises:
        ConfigError: the value asks for what is not implemented.
    """
    if key in NO_EFFECT:
        return f"{key} has no effect here: {NO_EFFECT[key]}"
    refused = UNSUPPORTED[key]
    asks_nothing = value in refused.neutral or (isinstance(value, dict) and value.get("enabled") is False)
    if not asks_nothing:
        raise ConfigError([Problem("", f"{key}: {refused.remedy}")])
    return None


def idle(key: str, value: Any) -> str | None:
    """A note about a key of ours that has no effect, None where its value asks for none."""
    neutral, reason = _IDLE.get(key, (value, ""))
    return f"{key} has no effect here: {reason}" if value != neutral else None


def refused_value(key: str, value: Any) -> str | None:
    """Why a value that GPT-NeoX takes for a key of ours is refused, or None where it is not."""
    if key == "attention_config":
        for name in _NO_ATTENTION:
            if f"'{name}'" in repr(value):
                return f"attention {name} is not implemented; use global, or local with sliding_window_width"
    if isinstance(value, str):
        return _NO_VALUE.get(key, {}).get(value)
    return None
