"""What a run reads: its tokenizer, and its datasets checked against it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron.neox.config import Config, DataConfig, TokenizerConfig
from megatron.neox.config.vocabulary import padded_vocab_size
from megatron.neox.data.batches import Batches
from megatron.neox.data.provenance import check_tokenizer, read_eod, read_fingerprint
from megatron.neox.data.samples import SampleDataset, build_datasets, data_prefixes, stream_of
from megatron.neox.data.stream import StreamBatches, Streaming
from megatron.neox.data.stream_source import IDS_COLUMN, open_source
from megatron.neox.engine.grid import ProcessGrid
from megatron.neox.engine.vocabulary import check_fingerprint, refuse_larger, stored_rows
from megatron.neox.errors import ConfigError, VocabularyError
from megatron.neox.tokenizers import Tokenizer, build_tokenizer
from megatron.neox.training.resume import Position

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer of a run, as far as training needs it."""

    padded_size: int
    eod: int | None
    fingerprint: dict[str, Any]


def find_vocabulary(config: Config, checkpoint: Path | None = None) -> Vocabulary:
    """Read the tokenizer; without vocabulary files, a padded_vocab_size or a checkpoint is enough to train.

    Args:
        checkpoint: what the run begins with. The model has as many rows as it, whatever tensor ranks share them.

    Raises:
        ConfigError: the size of the vocabulary is not known.
        VocabularyError: the files are wrong, the vocabulary is larger than the model's, or not the checkpoint's.
        CheckpointError: the checkpoint's rows cannot be divided by the tensor ranks.
    """
    rows = None if checkpoint is None else stored_rows(checkpoint, config)
    given = config.model.padded_vocab_size or rows
    tokenizer = _find_tokenizer(config.tokenizer, needed=given is None)
    if tokenizer is None:
        assert given is not None
        # The dataset's is as good as a tokenizer's own: what is saved must not forget it.
        vocabulary = Vocabulary(given, _recorded_eod(config), _recorded_fingerprint(config))
    else:
        computed = padded_vocab_size(
            tokenizer.vocab_size,
            divisible_by=config.model.make_vocab_size_divisible_by,
            tensor_size=config.parallelism.model_parallel_size,
        )
        if rows not in (None, computed):
            log.info(
                "the embedding has %d rows, as %s has, and not the %d that %d ids are padded to",
                *(rows, checkpoint, computed, tokenizer.vocab_size),
            )
        vocabulary = Vocabulary(given or computed, tokenizer.eod, tokenizer.fingerprint())
        if checkpoint is not None:
            refuse_larger(tokenizer, vocabulary.padded_size, checkpoint)
        elif tokenizer.vocab_size > vocabulary.padded_size:
            raise VocabularyError(
                f"the tokenizer has {tokenizer.vocab_size} ids, but padded_vocab_size is {given}; "
                "leave that key out"
            )
    if checkpoint is not None:
        allowed = config.checkpoint.allow_tokenizer_mismatch
        check_fingerprint(checkpoint, vocabulary.fingerprint, allow_mismatch=allowed)
    return vocabulary


def _find_tokenizer(section: TokenizerConfig, *, needed: bool) -> Tokenizer | None:
    without_files = section.tokenizer_type == "GPT2BPETokenizer" and section.vocab_file is None
    if not without_files:
        return build_tokenizer(section)
    if needed:
        raise ConfigError(
            [
                "vocab_file is missing: the size of the vocabulary is not known; give vocab_file and "
                "merge_file of the tokenizer that the dataset was made with, or padded_vocab_size"
            ]
        )
    return None


def _recorded_fingerprint(config: Config) -> dict[str, Any]:
    """The tokenizer of the first dataset that tells."""
    prefixes = [prefix for paths in data_prefixes(config.data).values() for prefix in paths]
    return next((found for prefix in prefixes if (found := read_fingerprint(prefix))), {})


def _recorded_eod(config: Config) -> int | None:
    """The end of document of the first dataset that tells."""
    prefixes = [prefix for paths in data_prefixes(config.data).values() for prefix in paths]
    return next((eod for prefix in prefixes if (eod := read_eod(prefix)) is not None), None)


class TrainingData:
    """Training and validation samples of a run, and the batches cut from them.

    Raises (when built):
        DatasetError: a dataset is damaged or too short.
        VocabularyError: a dataset was made with another tokenizer.
        ConfigError: keys of the data section are missing or contradict each other.
    """

    def __init__(self, config: Config, grid: ProcessGrid, vocabulary: Vocabulary) -> None:
        self.config = config
        self.grid = grid
        self.vocabulary = vocabulary
        if config.data.eod_mask_loss and vocabulary.eod is None:
            raise ConfigError(
                ["eod_mask_loss needs the tokenizer's end of document; give vocab_file and merge_file"]
            )
        splits = data_prefixes(config.data)
        self._streams = {
            name: self._stream(path) for name in splits if (path := stream_of(config.data, name))
        }
        prefixes = [prefix for name, paths in splits.items() if name not in self._streams for prefix in paths]
        check_tokenizer(
            prefixes, fingerprint=vocabulary.fingerprint or None, padded_vocab_size=vocabulary.padded_size
        )
        training = config.training
        assert training.train_iters is not None
        assert training.train_batch_size is not None, "the config is not resolved"
        assert training.train_micro_batch_size_per_gpu is not None
        assert training.gradient_accumulation_steps is not None
        self.micro_batch_size = training.train_micro_batch_size_per_gpu
        self.accumulation = training.gradient_accumulation_steps
        self.batch_size = training.train_batch_size
        self.num_steps = training.train_iters
        num_valid = training.eval_iters * self.batch_size if training.eval_interval else 0
        self.sample_order = ""  # these two are set by `training_batches`
        self._streamed: StreamBatches | None = None
        self._single = self._build_singles() if num_valid else {}
        self._datasets = self._build({"train": self.num_steps * self.batch_size, "valid": num_valid})

    @property
    def has_validation(self) -> bool:
        """Whether there is anything to validate on."""
        return self._datasets["valid"] is not None or "valid" in self._streams

    @property
    def validation_names(self) -> list[str]:
        """Names of the validation datasets where there are several, each of which has a loss of its own."""
        return [*self._single]

    @property
    def batches_each(self) -> int:
        """Batches of each of them, so that together they are as many as a validation's."""
        return -(-self.config.training.eval_iters // len(self._single))

    def training_batches(self, position: Position) -> Batches | StreamBatches:
        """This rank's micro-batches from `position` on."""
        if "train" in self._streams:
            self.sample_order = self._streams["train"].identity
            self._streamed = self._stream_batches("train", position.num_samples, position.stream)
            return self._streamed
        remaining = (self.num_steps - position.step) * self.batch_size
        dataset = self._datasets["train"]
        assert dataset is not None
        if position.num_samples + remaining > len(dataset):  # the batch size was another one before
            dataset = self._build({"train": position.num_samples + remaining})["train"]
            assert dataset is not None
        if position.sample_order not in (None, dataset.identity):
            log.warning(
                "the order of training samples is not the one that the checkpoint counted in (the data, seed, "
                "seq_length or number of epochs changed): some samples may come twice, and others later"
            )
        self.sample_order = dataset.identity
        return self._batches(dataset, position.num_samples)

    def state(self, num_samples: int) -> dict[str, Any]:
        """What a checkpoint keeps of the data, behind `num_samples` training samples."""
        stream = {} if self._streamed is None else {"stream": self._streamed.state(num_samples)}
        return {"sample_order": self.sample_order, **stream}

    def validation_batches(self, name: str | None = None) -> Batches | StreamBatches:
        """This rank's micro-batches of a validation: the same each time, so that losses can be compared.

        Args:
            name: one of `validation_names`; none is all of them, blended.
        """
        if "valid" in self._streams:
            return self._stream_batches("valid", 0, None)
        dataset = self._datasets["valid"] if name is None else self._single[name]
        assert dataset is not None
        return self._batches(dataset, 0)

    def _stream(self, path: str) -> Streaming:
        data = self.config.data
        tokenizer = (
            None if data.stream_column == IDS_COLUMN else _find_tokenizer(self.config.tokenizer, needed=True)
        )
        if self.vocabulary.eod is None:
            raise ConfigError(
                [f"{path} needs the tokenizer's end of document; give vocab_file and merge_file"]
            )
        return Streaming(
            open_source(path, data.stream_column),
            tokenizer,
            eod=self.vocabulary.eod,
            seq_length=self.config.model.seq_length,
            seed=self.config.training.seed,
            shuffle_buffer=data.stream_shuffle_buffer,
        )

    def _stream_batches(self, name: str, first_sample: int, state: dict[str, Any] | None) -> StreamBatches:
        return StreamBatches(
            self._streams[name],
            micro_batch_size=self.micro_batch_size,
            data_rank=self.grid.data_rank,
            data_size=self.grid.data_size,
            first_sample=first_sample,
            state=state,
            masked_eod=self.vocabulary.eod if self.config.data.eod_mask_loss else None,
            vocab_size=self.vocabulary.padded_size,
        )

    def _batches(self, dataset: SampleDataset, first_sample: int) -> Batches:
        return Batches(
            dataset,
            micro_batch_size=self.micro_batch_size,
            data_rank=self.grid.data_rank,
            data_size=self.grid.data_size,
            first_sample=first_sample,
            masked_eod=self.vocabulary.eod if self.config.data.eod_mask_loss else None,
            vocab_size=self.vocabulary.padded_size,
        )

    def _build_singles(self) -> dict[str, SampleDataset | None]:
        data = self.config.data
        prefixes = data.valid_data_paths
        if len(prefixes) < 2:
            return {}
        num_samples = -(-self.config.training.eval_iters // len(prefixes)) * self.batch_size
        return {
            name: self._build(
                {"valid": num_samples},
                data.model_copy(update={"valid_data_paths": [prefix], "valid_data_weights": []}),
            )["valid"]
            for name, prefix in zip(_names(prefixes), prefixes)
        }

    def _build(
        self, num_samples: Mapping[str, int], data: DataConfig | None = None
    ) -> dict[str, SampleDataset | None]:
        return build_datasets(
            data or self.config.data,
            seq_length=self.config.model.seq_length,
            seed=self.config.training.seed,
            num_samples=num_samples,
            rank=self.grid.rank,
            barrier=self.grid.barrier,
            eod=self.vocabulary.eod,
        )


def _names(prefixes: Sequence[str]) -> list[str]:
    """Short names of datasets, as far as they tell them apart: PATH/python_text_document is python."""
    short = [Path(prefix).name.removesuffix("_document").removesuffix("_text") for prefix in prefixes]
    return [name if short.count(name) == 1 else prefix for name, prefix in zip(short, prefixes)]
