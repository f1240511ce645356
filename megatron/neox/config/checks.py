"""Checks across keys: combinations that no single section can refuse. Each problem names the keys it is about.

The loader gives each problem its place, and drops those about keys that are wrong already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from megatron.neox.config.config import Config
from megatron.neox.errors import Problem, did_you_mean


def missing(config: Config, require: Iterable[str]) -> Iterator[Problem]:
    """What the door at hand needs and no file gives."""
    require = set(require)
    if config.has_no_model:
        if "evaluation" not in require:
            yield Problem.about(
                ("evaluated_model",),
                "evaluated_model stands for a model in evaluate.py alone, and the config describes none: "
                "num_layers and the other sizes are missing",
            )
        return
    if "training" in require and config.training.train_iters is None:
        yield Problem.about(("train_iters",), "train_iters is missing: the number of optimizer steps")
    if "data" in require and not (config.data.data_path or config.data.train_data_paths):
        yield Problem.about(
            ("data_path",),
            "no data: data_path is missing (or train_data_paths); tools/preprocess_data.py makes it, "
            "and configs/local_setup.yml shows where it goes",
        )
    training = config.training
    if "training" in require and not (training.train_batch_size or training.train_micro_batch_size_per_gpu):
        yield Problem.about(
            ("train_micro_batch_size_per_gpu",),
            "train_micro_batch_size_per_gpu is missing: the sequences in one forward pass of one rank",
        )
    if "checkpoint" in require and config.checkpoint.load is None:
        # A mistake in evaluated_model may be all that made it one of ours.
        yield Problem.about(
            ("load", "evaluated_model"), "load is missing: the folder of checkpoints to read the weights from"
        )


def conflicts(config: Config) -> Iterator[Problem]:
    """Combinations that cannot work, of the keys that a file gives or leaves at their defaults."""
    if config.has_no_model:
        yield from _evaluated_model(config)
        return
    for check in (
        _heads,
        _gated_width,
        _lengths,
        _attention,
        _tensor_parallel,
        _pipeline,
        _zero,
        _batch,
        _evaluation_in_training,
        _checkpoints,
        _data,
        _precision,
        _schedule,
        _optimizer,
    ):
        yield from check(config)


def _evaluated_model(config: Config) -> Iterator[Problem]:
    evaluation, tensor = config.evaluation, config.parallelism.model_parallel_size
    if tensor > 1:
        yield Problem.about(
            ("model_parallel_size", "evaluated_model"),
            f"model_parallel_size {tensor} does not go with evaluated_model {evaluation.evaluated_model.type}: "
            "every rank holds the whole model, and the ranks share the documents; leave it out",
        )
    window, stride = evaluation.eval_window, evaluation.eval_stride
    if window is not None and stride is not None and stride > window:
        yield Problem.about(
            ("eval_stride", "eval_window"),
            f"eval_stride {stride} is more than eval_window {window}: tokens would be left out",
        )
    yield from _precision(config)


def _heads(config: Config) -> Iterator[Problem]:
    model = config.model
    hidden, heads = model.hidden_size, model.num_attention_heads
    if hidden % heads:
        below, above = hidden // heads * heads, -(-hidden // heads) * heads
        yield Problem.about(
            ("hidden_size", "num_attention_heads"),
            f"hidden_size {hidden} cannot be divided by num_attention_heads {heads}; "
            + (f"{below} or {above} can" if below else f"{above} can"),
        )
    if heads % model.num_query_groups:
        yield Problem.about(
            ("num_kv_heads", "num_attention_heads"),
            f"num_attention_heads {heads} cannot be divided by num_kv_heads {model.num_query_groups}",
        )
    if hidden % heads == 0 and model.pos_emb == "rotary" and model.rotary_size % 2:
        yield Problem.about(
            ("rotary_pct", "hidden_size", "num_attention_heads"),
            f"rotary_pct {model.rotary_pct} turns {model.rotary_size} of a head's {model.head_size} features, an odd "
            "number; choose one that turns pairs, or another head size",
        )
    if model.gpt_j_tied and not model.gpt_j_residual:
        yield Problem.about(("gpt_j_tied",), "gpt_j_tied has no meaning without gpt_j_residual: true")


def _gated_width(config: Config) -> Iterator[Problem]:
    """GPT-NeoX changed what intermediate_size means for a gated activation; Hugging Face still means the first."""
    model = config.model
    llama, regular = model.mlp_size_as("llama"), model.mlp_size_as("regular")
    if model.is_gated and model.mlp_type is None and llama != regular:
        size = model.intermediate_size
        what = (
            f"intermediate_size {size} with {model.activation.name}"
            if size
            else (f"activation {model.activation.name} without intermediate_size")
        )
        yield Problem.about(
            ("intermediate_size" if size else "activation",),
            f"{what} has two meanings; give mlp_type: llama (an MLP {llama} wide: Hugging Face, GPT-NeoX before "
            f"2024-09) or regular ({regular} wide: GPT-NeoX since)",
        )


def _lengths(config: Config) -> Iterator[Problem]:
    model = config.model
    if model.seq_length > model.max_position_embeddings:
        yield Problem.about(
            ("seq_length", "max_position_embeddings"),
            f"seq_length {model.seq_length} is more than max_position_embeddings {model.max_position_embeddings}",
        )
    window, stride = config.evaluation.eval_window, config.evaluation.eval_stride
    if window is not None and window > model.max_position_embeddings:
        yield Problem.about(
            ("eval_window", "max_position_embeddings"),
            f"eval_window {window} is more than max_position_embeddings {model.max_position_embeddings}",
        )
    if stride is not None and stride > (window or model.max_position_embeddings):
        yield Problem.about(
            ("eval_stride", "eval_window"),
            f"eval_stride {stride} is more than eval_window {window or model.max_position_embeddings}: "
            "tokens would be left out",
        )


def _attention(config: Config) -> Iterator[Problem]:
    model = config.model
    try:
        names = model.layer_attention
    except (TypeError, ValueError, ArithmeticError):
        yield Problem.about(
            ("attention_config",),
            'attention_config is a list of [pattern, repeats]: [[["global"], "all"]] or [[["global", "local"], 6]]',
        )
        return
    if len(names) != model.num_layers:
        yield Problem.about(
            ("attention_config", "num_layers"),
            f"attention_config names {len(names)} layers, and num_layers is {model.num_layers}; "
            'a pattern is repeated as often as its number says, "all" is for every layer',
        )
    if "local" in names and model.sliding_window_width is None:
        yield Problem.about(
            ("attention_config", "sliding_window_width"),
            "local attention needs sliding_window_width (GPT-NeoX's block-sparse local is not implemented)",
        )


def _tensor_parallel(config: Config) -> Iterator[Problem]:
    model, tensor = config.model, config.parallelism.model_parallel_size
    if config.parallelism.sequence_parallel and tensor == 1:
        yield Problem.about(
            ("sequence_parallel", "model_parallel_size"),
            "sequence_parallel needs model_parallel_size of 2 or more; remove it",
        )
    divided = [
        ("num_attention_heads", model.num_attention_heads),
        ("num_kv_heads", model.num_query_groups),
        ("intermediate_size" if model.intermediate_size else "hidden_size", model.mlp_size),
    ]
    if model.padded_vocab_size is not None:
        divided.append(("padded_vocab_size", model.padded_vocab_size))
    if config.parallelism.sequence_parallel:
        divided.append(("seq_length", model.seq_length))
    for key, size in divided:
        if size % tensor and not (key == "num_kv_heads" and model.num_kv_heads is None):
            what = f"{key} {size}" if key != "hidden_size" else f"the MLP's width {size} (from hidden_size)"
            yield Problem.about(
                ("model_parallel_size", key), f"model_parallel_size {tensor} does not divide {what}"
            )


def _pipeline(config: Config) -> Iterator[Problem]:
    stages, layers = config.parallelism.num_pipe_stages, config.model.num_layers
    if stages > layers:
        yield Problem.about(
            ("pipe_parallel_size", "num_layers"),
            f"pipe_parallel_size {stages} is more than num_layers {layers}: a stage would be empty",
        )
    grid = stages * config.parallelism.model_parallel_size
    total = config.parallelism.global_num_gpus
    if total is not None and total % grid and config.launch.num_gpus is None and not config.launch.include:
        yield Problem.about(
            ("global_num_gpus", "pipe_parallel_size", "model_parallel_size"),
            f"global_num_gpus {total} cannot be divided into pipe_parallel_size {stages} x "
            f"model_parallel_size {config.parallelism.model_parallel_size}",
        )


def _zero(config: Config) -> Iterator[Problem]:
    zero = config.optimizer.zero_optimization
    stages, tensor = config.parallelism.num_pipe_stages, config.parallelism.model_parallel_size
    if zero.stage >= 2 and stages > 1:
        yield Problem.about(
            ("zero_optimization.stage", "pipe_parallel_size"),
            f"ZeRO stage {zero.stage} does not go with a pipeline (pipe_parallel_size {stages}): "
            "a stage keeps the gradients of all its micro-batches; use stage 1, or pipe_parallel_size 1",
        )
    if zero.stage == 3 and tensor > 1:
        yield Problem.about(
            ("zero_optimization.stage", "model_parallel_size"),
            f"ZeRO stage 3 does not go with model_parallel_size {tensor}; use stage 1 or 2, or model_parallel_size 1",
        )
    for key in zero.model_extra or {}:
        if key not in ZERO_KEYS:
            yield Problem.about(
                (f"zero_optimization.{key}",),
                f"unknown key zero_optimization.{key}{did_you_mean(key, ZERO_KEYS)}",
            )


def _batch(config: Config) -> Iterator[Problem]:
    """What contradicts itself for any number of ranks; the launcher, which knows them, asks `batch.resolve`."""
    training = config.training
    micro, steps = training.train_micro_batch_size_per_gpu or 1, training.gradient_accumulation_steps or 1
    if training.train_batch_size is not None and training.train_batch_size % (micro * steps):
        yield Problem.about(
            ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
            f"train_batch_size {training.train_batch_size} cannot be divided by "
            f"train_micro_batch_size_per_gpu {micro} x gradient_accumulation_steps {steps}",
        )


def _evaluation_in_training(config: Config) -> Iterator[Problem]:
    """What eval_tasks_interval cannot do: tasks read the model's weights as they lie, whole on each tensor rank."""
    if not config.training.eval_tasks_interval:
        return
    if not config.evaluation.eval_tasks:
        yield Problem.about(
            ("eval_tasks_interval", "eval_tasks"),
            'eval_tasks_interval is given without eval_tasks: what to measure, such as ["code_python"]',
        )
    stages, zero = config.parallelism.num_pipe_stages, config.optimizer.zero_optimization.stage
    reasons = {
        "pipe_parallel_size": (stages > 1, f"pipe_parallel_size {stages}: no rank has all layers"),
        "zero_optimization.stage": (zero == 3, "ZeRO stage 3: no rank has whole weights; stages 1 and 2 do"),
        "sequence_parallel": (
            config.parallelism.sequence_parallel,
            "sequence_parallel: no rank has whole sequences",
        ),
    }
    for key, (is_so, why) in reasons.items():
        if is_so:
            yield Problem.about(
                ("eval_tasks_interval", key),
                f"eval_tasks_interval does not go with {why}; leave it out, and evaluate checkpoints by evaluate.py",
            )


def _checkpoints(config: Config) -> Iterator[Problem]:
    section = config.checkpoint
    if section.checkpoint_scale == "log" and section.checkpoint_factor == 1:
        yield Problem.about(
            ("checkpoint_factor", "checkpoint_scale"),
            "checkpoint_factor 1 never advances with checkpoint_scale log; give a factor of 2 or more",
        )


def _data(config: Config) -> Iterator[Problem]:
    data = config.data
    shares = data.split.split(",") if "," in data.split else data.split.split("/")
    try:
        numbers = [float(share) for share in shares]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or min(numbers) < 0 or sum(numbers) == 0:
        yield Problem.about(
            ("split",), f'split is three shares, train, validation and test ("969,30,1"), not {data.split!r}'
        )
    if data.data_path and data.train_data_paths:
        yield Problem.about(
            ("data_path", "train_data_paths"),
            "data_path and train_data_paths cannot both be given; remove one",
        )
    for part in ("train", "valid", "test"):
        paths, weights = getattr(data, f"{part}_data_paths"), getattr(data, f"{part}_data_weights")
        if weights and len(weights) != len(paths):
            yield Problem.about(
                (f"{part}_data_weights", f"{part}_data_paths"),
                f"{part}_data_weights has {len(weights)} numbers for {len(paths)} {part}_data_paths",
            )


def _precision(config: Config) -> Iterator[Problem]:
    precision = config.precision
    wants_fp16 = (precision.fp16.enabled or bool(precision.fp16.fp16)) and precision.fp16.type != "bfloat16"
    if precision.bf16.enabled and wants_fp16:
        yield Problem.about(("fp16", "bf16"), "fp16 and bf16 are both enabled; keep one of them")
    said = precision.precision
    enabled = {"fp16": wants_fp16, "bf16": precision.bf16.enabled}
    for block in ("fp16", "bf16"):
        if said is not None and enabled[block] and precision.dtype != block:
            yield Problem.about(
                ("precision", block), f"precision is {said}, but the block {block} is enabled; keep one"
            )


def _schedule(config: Config) -> Iterator[Problem]:
    schedule, rate = config.schedule, config.optimizer.optimizer.options.get("lr", 1e-3)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
        yield Problem.about(
            ("optimizer",), 'the optimizer\'s lr is a number: {"type": "adam", "params": {"lr": 6e-4}}'
        )
    elif schedule.min_lr > rate:
        yield Problem.about(
            ("min_lr", "optimizer"), f"min_lr {schedule.min_lr} is more than the optimizer's lr {rate}"
        )


def _optimizer(config: Config) -> Iterator[Problem]:
    """Numbers of the optimizers' options; `1.0e_8` and the like are text to YAML."""
    options = config.optimizer.optimizer.options
    for name, wanted in (("eps", 1), ("momentum", 1), ("betas", 2)):
        if name not in options:
            continue
        numbers = options[name] if wanted > 1 else [options[name]]
        is_right = isinstance(numbers, list | tuple) and len(numbers) == wanted
        if not is_right or any(isinstance(x, bool) or not isinstance(x, int | float) for x in numbers):
            what = "a number" if wanted == 1 else f"{wanted} numbers"
            yield Problem.about(
                (f"optimizer.params.{name}",), f"the optimizer's {name} is {what}, not {options[name]!r}"
            )


ZERO_KEYS = frozenset({
    "stage", "contiguous_gradients", "reduce_scatter", "reduce_bucket_size", "use_multi_rank_bucket_allreduce",
    "allgather_partitions", "allgather_bucket_size", "overlap_comm", "compute_grad_norm",
    "load_from_fp32_weights", "elastic_checkpoint", "offload_param", "offload_optimizer", "zenflow",
    "sub_group_size", "cpu_offload_param", "cpu_offload_use_pin_memory", "ignore_unused_parameters",
    "legacy_stage1", "round_robin_gradients", "parameter_alignment", "zero_hpz_partition_size",
    "zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients",
    "memory_efficient_linear", "pipeline_loading_checkpoint", "override_module_apply",
    "log_trace_cache_warnings", "enable_sanity_checks", "save_muon_momentum_buffer_in_memory", "leaf_module",
    "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "stage3_model_persistence_threshold",
    "stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_gather_16bit_weights_on_model_save",
    "stage3_gather_fp16_weights_on_model_save", "stage3_module_granularity_threshold",
    "stage3_use_all_reduce_for_fetch_params", "stage3_allgather_sequential",
})  # fmt: skip
"""Keys of DeepSpeed's ZeRO block (deepspeed/runtime/zero/config.py, 0.19.8)."""
