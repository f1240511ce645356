"""Tokens: the vocabulary, and the datasets made with it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from megatron.neox.config.section import Choice, Section


class TokenizerConfig(Section):
    """Text to ids and back."""

    tokenizer_type: str = "GPT2BPETokenizer"
    """Tokenizer, a plugin of kind `tokenizer`: GPT2BPETokenizer, HFTokenizer, CharLevelTokenizer."""
    vocab_file: str | None = None
    """Vocabulary: vocab.json, or tokenizer.json for HFTokenizer."""
    merge_file: str | None = None
    """Merge rules of a BPE, merges.txt."""
    merges_header: Literal["drop_first_line", "auto"] = "drop_first_line"
    """How merges.txt begins: GPT-NeoX drops the first line whatever it is; auto drops only a `#version` line."""
    missing_bytes: Literal["eod", "extend"] = "eod"
    """Bytes that the vocabulary lacks: GPT-NeoX's id 0, or `extend` with ids of their own behind the vocabulary."""


class DataConfig(Section):
    """Datasets and the order they are read in."""

    data_path: str | None = None
    """Prefix of one dataset (`PATH.bin`, `PATH.idx`), or a folder of fixed-length samples, divided by `split`."""
    split: str = "969, 30, 1"
    """Shares of train, validation and test documents of data_path."""
    train_data_paths: list[str] = Field(default_factory=list)
    """Prefixes of the training datasets, instead of data_path; or one stream, `stream:FOLDER`."""
    valid_data_paths: list[str] = Field(default_factory=list)
    """Prefixes of the validation datasets."""
    test_data_paths: list[str] = Field(default_factory=list)
    """Prefixes of the test datasets."""
    train_data_weights: list[NonNegativeFloat] = Field(default_factory=list)
    """Weights of the training datasets; none means by their tokens."""
    valid_data_weights: list[NonNegativeFloat] = Field(default_factory=list)
    """Weights of the validation datasets."""
    test_data_weights: list[NonNegativeFloat] = Field(default_factory=list)
    """Weights of the test datasets."""
    weight_by_num_documents: bool = False
    """Weigh datasets by their documents, tempered by weighted_sampler_alpha."""
    weighted_sampler_alpha: NonNegativeFloat = 0.3
    """Exponent of weight_by_num_documents: 1 is proportional, 0 uniform."""
    data_impl: Literal["infer", "mmap", "cached", "lazy"] = "infer"
    """Accepted for old configs: datasets are memory-mapped."""
    mmap_warmup: bool = False
    """Accepted for old configs, without effect."""
    index_cache_path: str | None = None
    """Folder of the sample indices; none means `index_cache` beside each dataset."""
    num_workers: NonNegativeInt = 2
    """Accepted for old configs: samples are slices of a memory map, read in the training process."""
    eod_mask_loss: bool = False
    """Leave the prediction after an end-of-document token out of the loss."""
    stream_column: str = "content"
    """Column or key of a stream's texts; `input_ids` holds ids instead."""
    stream_shuffle_buffer: PositiveInt = 1024
    """Samples of a stream that are shuffled together; 1 keeps the order of the documents."""
    pad_token: int | None = Field(default=None, ge=-1)
    """Id that fills fixed-length samples, for folders that do not record it; -1 where all samples are full."""
    transforms: list[Choice] = Field(default_factory=list)
    """Changes to samples as they are read, plugins of kind `transform`."""


class GenerationConfig(Section):
    """Sampling."""

    text_gen_type: Literal["unconditional", "input-file", "interactive", "humaneval"] | None = None
    """Where prompts come from; none means input-file if sample_input_file is given, else unconditional."""
    sample_input_file: str | None = None
    """A file whose whole text is the prompt, or a folder of such files."""
    sample_output_file: str | None = None
    """Where the records go, one JSON object a line; none means INPUT.output.jsonl, or samples.txt without an input."""
    num_samples: PositiveInt = 1
    """Samples of each prompt."""
    maximum_tokens: PositiveInt = 64
    """Tokens to generate at most."""
    temperature: NonNegativeFloat = 0.0
    """Softmax temperature; 0 with top_k and top_p 0 is greedy."""
    top_k: NonNegativeInt = 0
    """Sample among this many likeliest tokens; 0 is all."""
    top_p: float = Field(default=0.0, ge=0, le=1)
    """Sample among the likeliest tokens that together reach this probability; 0 is all."""
    sampler: Choice | None = None
    """Sampler, a plugin of kind `sampler`; none means by temperature, top_k and top_p."""
    stop: list[str] = Field(default_factory=list)
    """Texts that end a sample; they are not part of it."""
    strip_prompt: bool = True
    """Strip white space around a file's prompt, as GPT-NeoX does; false keeps it."""
    recompute: bool = False
    """Compute every token from scratch instead of keeping keys and values; slower, for comparison."""
    generation_batch_size: PositiveInt = 8
    """Samples decoded together."""
    generation_seed: NonNegativeInt = 1234
    """Seed of the samples; sample i of a prompt depends on it and on i alone."""
    prompt_end: str = "\n"
    """Text that ends a prompt in interactive mode."""
    return_logits: bool = False
    """Add each token's log-probability to the records."""


class EvaluatedModelConfig(Section):
    """Which model evaluate.py measures."""

    type: Literal["neox", "hf", "gguf"] = "neox"
    """`neox` is a checkpoint of ours (`load`); `hf` a causal model of transformers, `gguf` a GGUF file."""
    path: str | None = None
    """Of `hf`: a folder, or a name on the Hugging Face hub; of `gguf`: the file."""
    revision: str | None = None
    """Branch, tag or commit of a name on the hub; none means main."""
    tokenizer: str | None = None
    """Folder or hub name of another tokenizer; none means the model's own."""

    @model_validator(mode="after")
    def _has_path(self) -> EvaluatedModelConfig:
        if self.type == "neox" and self.model_fields_set - {"type"}:
            raise ValueError("type neox is the checkpoint that `load` names, and takes no other keys")
        if self.type != "neox" and not self.path:
            raise ValueError(f'it needs a path: {{"type": "{self.type}", "path": ...}}')
        return self

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint of ours, described by the config's own model section."""
        return self.type == "neox"


class EvaluationConfig(Section):
    """Measuring."""

    evaluated_model: EvaluatedModelConfig = EvaluatedModelConfig()
    """Somebody else's model in place of a checkpoint of ours; docs/other_models.md."""

    eval_tasks: list[str] = Field(default_factory=list)
    """Names or patterns (`code_*`) of plugins of kind `task` (perplexity, code_python ...) and of lm-eval's tasks."""
    eval_results_prefix: str = ""
    """Prefix of the results file's name, eval_results_DATE.json."""
    eval_results_path: str | None = None
    """The results file itself, instead of a name made of prefix and date."""
    eval_data_path: str | None = None
    """Files of the perplexity tasks: a folder; code_* also take .tar.gz, .parquet. None: evaldata/Code-sampled100."""
    eval_compat: Literal["polycoder"] | None = None
    """Measure code_* exactly as PolyCoder's table was: half the positions, windows of single tokens lost, text mode."""
    eval_contamination_index: str | None = None
    """PolyCoder's SHA-256 index of the training files, plain or zip: code_* count the files seen in training."""
    eval_limit: float | None = Field(default=None, gt=0)
    """Documents of each code_* or lm-eval task to use: a number, or below 1 a share; none means all."""
    eval_num_fewshot: NonNegativeInt | None = None
    """Examples before each question of lm-eval's tasks; none leaves it to the task."""
    eval_include_path: list[str] = Field(default_factory=list)
    """Folders of further task YAMLs for lm-eval."""
    eval_allow_unsafe_code: bool = False
    """Let lm-eval's tasks run generated programs on this machine, outside any sandbox."""
    eval_window: PositiveInt | None = None
    """Tokens in a window; none means the model's positions, max_position_embeddings."""
    eval_stride: PositiveInt | None = None
    """Tokens by which windows advance; none means eval_window (disjoint windows)."""
    eval_batch_size: PositiveInt = 8
    """Windows scored together."""
    eval_task_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of single tasks: {"perplexity": {"limit": 100}}."""
