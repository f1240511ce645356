"""Causal models of transformers behind our interface.

Scoring feeds right-padded rows without a mask: in a causal model nothing sees what comes after it. Decoding with keys
and values wants every row's newest token in the same place, so its prompts are moved to the right end, as
transformers' own generate has them::

    fed     a b c .        kept    . a b c        next token of both rows: place 4, positions 3 and 4
            d e f g                d e f g
"""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.neox.config import Config
from megatron.neox.conversion import hub
from megatron.neox.engine.agreement import on_main_rank
from megatron.neox.engine.grid import DTYPES, ProcessGrid
from megatron.neox.engine.inference import inference_dtype
from megatron.neox.errors import CheckpointError, ConfigError, InputError, ResourceError, VocabularyError
from megatron.neox.evaluation.evaluated.hf_tokenizer import HuggingFaceTokenizer

log = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")

# Beside what a conversion fetches: the files of other kinds of tokenizers.
_TOKENIZER_FILES = ("*.model", "vocab.txt", "added_tokens.json", "*.tiktoken")

_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken")

# Where the configs of transformers say how many positions there are; attribute maps make most the first.
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")


class RowCache:
    """Keys and values of transformers' for rows of different lengths, all of which end in the same place.

    Attributes:
        lengths: tokens that each row holds.
    """

    def __init__(self, batch: int) -> None:
        self.lengths = [0] * batch
        self.past: Any = None  # transformers' own cache, once there is one
        self.mask = torch.zeros(batch, 0, dtype=torch.long)  # [b, places], 0 where a row has not begun

    def truncate(self, lengths: Sequence[int]) -> None:
        """Count rows as long as this; what a finished row holds beyond it is never looked at."""
        self.lengths = list(lengths)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order."""
        chosen = torch.tensor(rows, device=self.mask.device)
        self.lengths = [self.lengths[row] for row in rows]
        self.mask = self.mask[chosen]
        self.past.batch_select_indices(chosen)


class HuggingFaceModel:
    """Next-token logits of a model of transformers, over the ids that its tokenizer has.

    Attributes:
        max_positions: longest sequence, in tokens.
        device: where it runs.
    """

    def __init__(self, model: Any, *, vocab_size: int, max_positions: int) -> None:
        self._model = model.eval()
        self._vocab_size = vocab_size
        self.max_positions = max_positions
        self.device: torch.device = model.device
        self._takes = set(inspect.signature(model.forward).parameters)

    @torch.inference_mode()
    def logits(self, token_ids: Tensor, cache: Any = None, *, at: Sequence[int] | None = None) -> Tensor:
        """Ids [b, s] to logits [b, s, V] in the model's number format; with a cache the ids follow its tokens.

        Args:
            at: a place in each row, whose logits alone are wanted, [b, 1, V].
        """
        token_ids = token_ids.to(self.device)
        if cache is not None:
            assert at is not None, "decoding wants the last token's logits alone"
            return self._follow(token_ids, cache, at)[..., : self._vocab_size]
        found = self._forward(token_ids, torch.ones_like(token_ids), use_cache=False).logits
        chosen = found if at is None else found[range(len(at)), list(at)].unsqueeze(1)
        return chosen[..., : self._vocab_size]

    def new_cache(self, batch: int, max_length: int) -> Any:
        """An empty cache of `batch` rows, which grows as they do."""
        del max_length
        return RowCache(batch)

    def _follow(self, token_ids: Tensor, cache: RowCache, at: Sequence[int]) -> Tensor:
        """Logits [b, 1, V] after each row's token at `at`; the tokens behind it are padding."""
        width = max(at) + 1
        fed, mask = torch.full_like(token_ids[:, :width], int(token_ids[0, 0])), None
        mask = torch.zeros_like(fed)
        for row, last in enumerate(at):
            fed[row, width - last - 1 :] = token_ids[row, : last + 1]
            mask[row, width - last - 1 :] = 1
        cache.mask = torch.cat([cache.mask.to(mask.device), mask], dim=1)
        positions = (cache.mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        options = {"logits_to_keep": 1} if "logits_to_keep" in self._takes else {}
        found = self._forward(
            fed, cache.mask, use_cache=True, past_key_values=cache.past, position_ids=positions, **options
        )
        cache.past = getattr(found, "past_key_values", None)
        if not hasattr(cache.past, "batch_select_indices"):
            raise InputError(
                f"{type(self._model).__name__} keeps no keys and values that can be gone on with, so that only tasks "
                "that generate nothing run on it (perplexity, code_*, lm-eval's log-likelihoods)"
            )
        cache.lengths = [held + last + 1 for held, last in zip(cache.lengths, at)]
        return found.logits[:, -1:]

    def _forward(self, token_ids: Tensor, mask: Tensor, **options: Any) -> Any:
        given = {"attention_mask": mask, **options}
        return self._model(token_ids, **{name: value for name, value in given.items() if name in self._takes})


def load_huggingface(
    config: Config, grid: ProcessGrid
) -> tuple[HuggingFaceModel, HuggingFaceTokenizer, dict[str, Any]]:
    """The model, its tokenizer, and what the results say of it; code from a model's folder is never run.

    Raises:
        InputError: nothing is at the path, or the hub has no such model.
        ResourceError: the hub cannot be reached.
        CheckpointError: the model cannot be loaded, or its weights are not all there.
        VocabularyError: its tokenizer cannot be loaded, or is another model's.
        ConfigError: how many positions it has is told nowhere; or the device cannot do the precision.
    """
    wanted = config.evaluation.evaluated_model
    assert wanted.path is not None, "the config checks it"
    name, tokenizer_name = wanted.path, wanted.tokenizer
    folder = on_main_rank(lambda: _folder_of(name, wanted.revision))
    tokenizer_folder = folder
    if tokenizer_name is not None:
        tokenizer_folder = on_main_rank(lambda: _folder_of(tokenizer_name, None))
    dtype = inference_dtype(config, grid)
    with _quiet():
        settings = _settings(folder)
        max_positions = _positions(settings, config.evaluation.eval_window, name)
        model = _model(folder, DTYPES[dtype]).to(grid.device)
        tokenizer = load_tokenizer(tokenizer_folder, num_rows=model.get_output_embeddings().weight.shape[0])
    log.info("loaded %s (%s, %s)", name, type(model).__name__, dtype)
    told = {
        "path": name,
        "revision": folder.name if _COMMIT.fullmatch(folder.name) else wanted.revision,
        "precision": dtype,
        "class": type(model).__name__,
        "max_positions": max_positions,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if tokenizer_name is not None:
        told["tokenizer_path"] = tokenizer_name
    wrapped = HuggingFaceModel(model, vocab_size=tokenizer.vocab_size, max_positions=max_positions)
    return wrapped, tokenizer, told


def load_tokenizer(folder: Path, *, num_rows: int) -> HuggingFaceTokenizer:
    """The tokenizer of a folder, by AutoTokenizer.

    Raises:
        VocabularyError: there is none, or it is damaged.
    """
    from transformers import AutoTokenizer

    # Of a folder without any, transformers may make an empty vocabulary.
    if not any(any(folder.glob(pattern)) for pattern in _VOCABULARIES):
        raise VocabularyError(
            f"{folder} holds no tokenizer; evaluated_model.tokenizer names another folder or hub name"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever the parsers of its files may raise
        raise VocabularyError(
            f"{folder} has no tokenizer that can be loaded: {_first_line(error)}; "
            "evaluated_model.tokenizer names another"
        ) from error
    return HuggingFaceTokenizer(tokenizer, num_rows=num_rows, source=str(folder))


def _folder_of(name: str, revision: str | None) -> Path:
    """The folder of a model, fetched from the hub where it is no folder here."""
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise InputError(
                f"evaluated_model.revision belongs to a name on the hub, and {name} is a folder here"
            )
        if not any(
            (path / file).is_file() for file in ("config.json", "tokenizer_config.json", "tokenizer.json")
        ):
            raise InputError(
                f"evaluated_model: {path} is no folder of transformers (it holds no config.json); a checkpoint "
                "of ours is named by load, or made into one by tools/convert_checkpoint.py --to hf"
            )
        return path
    if path.exists() or not _HUB_NAME.fullmatch(name):
        kind = (
            "a file; type gguf reads GGUF files"
            if path.is_file()
            else "no folder here and no name on the hub"
        )
        raise InputError(f"evaluated_model: {name} is {kind} (looked for {path.absolute()})")
    try:
        return hub.download(name, revision=revision, also=_TOKENIZER_FILES)
    except ResourceError as error:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
        log.warning("%s: the hub cannot be reached; taken from its cache, commit %s", name, folder.name)
        return folder


def _settings(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a config's own class may raise of what it finds
        raise CheckpointError(f"{folder} cannot be loaded: {_first_line(error)}") from error


def _positions(settings: Any, window: int | None, name: str) -> int:
    """Longest sequence of the model; eval_window where it has no such limit."""
    text = settings.get_text_config(decoder=True)
    found = next(
        (getattr(text, key) for key in _POSITIONS if isinstance(getattr(text, key, None), int)), None
    )
    if found is None and window is None:
        raise ConfigError(
            [f"eval_window is missing: the config of {name} does not tell how many positions the model has"]
        )
    return found or window or 0


def _model(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        loading: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, weights_only=True,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # transformers and what it calls raise all kinds
        raise CheckpointError(f"{folder} cannot be loaded as a causal model: {_first_line(error)}") from error
    model, loaded = loading
    # transformers would draw these at random, and go on.
    lines = [f"  {name} is missing" for name in sorted(loaded["missing_keys"])]
    lines += [f"  {what[0]} has another shape than its config says" for what in loaded["mismatched_keys"]]
    if lines:
        more = [f"  and {len(lines) - 10} more"] if len(lines) > 10 else []
        raise CheckpointError("\n".join([f"{folder}: its weights are not all there", *lines[:10], *more]))
    if idle := sorted(loaded["unexpected_keys"]):
        log.warning("%s: tensors without use: %s", folder, ", ".join(idle[:5]) + (" ..." if idle[5:] else ""))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and other people's warnings about their own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging as theirs

        level = theirs.get_verbosity()
        theirs.disable_progress_bar()
        theirs.set_verbosity_error()
        try:
            yield
        finally:
            theirs.set_verbosity(level)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
