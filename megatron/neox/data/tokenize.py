"""Documents to token datasets, one for each key: what `tools/preprocess_data.py` does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from megatron.neox.corpus.readers import inputs_of
from megatron.neox.corpus.stages.executors import Resources
from megatron.neox.data.encoding import one_thread
from megatron.neox.data.token_dataset import TokenDataset, encoder_of
from megatron.neox.data.tokenize_settings import Progress, TokenizeSettings
from megatron.neox.errors import InputError, OutputError
from megatron.neox.plugins import filters as filter_registry

__all__ = ["Progress", "TokenizeSettings", "submit_tokenize", "tokenize"]

log = logging.getLogger(__name__)


def tokenize(
    settings: TokenizeSettings, *, report: Callable[[Progress], None] = lambda _: None
) -> list[Path]:
    """Write one dataset for each key and return their prefixes.

    Raises:
        InputError: an input is absent or damaged, or holds no document that can be used.
        OutputError: a dataset or an unfinished one stands under the prefix, another run writes it, or the prefix lies
            in an input.
        VocabularyError: the tokenizer's files are absent or wrong.
        UnknownPartError: no filter has a name that is asked for.
        ResourceError: a worker died.
    """
    with one_thread():
        return [dataset.write(report) for dataset in _datasets(settings)]


def submit_tokenize(settings: TokenizeSettings, resources: Resources) -> dict[str, str | None]:
    """Hand the datasets to Slurm; gives the job that finishes each by its prefix, none where it is made already.

    Once that job is done, `tokenize` with `resume` tells the counts and removes the pieces.

    Raises:
        DependencyError, InputError, OutputError: as `submit_stage`; and all but ResourceError as `tokenize`.
    """
    return {dataset.prefix: dataset.submit(resources) for dataset in _datasets(settings)}


def _datasets(settings: TokenizeSettings) -> list[TokenDataset]:
    """One for each key, all that can be known to be wrong being told before any is begun."""
    inputs = [place for path in settings.inputs for place in inputs_of(path)]
    names = [name for name, _ in inputs]
    _check_keys(settings, inputs)
    _check_place(settings.output_prefix, inputs)
    for name in settings.filters:
        filter_registry.part(name)
    append_eod = "directory" in names if settings.append_eod is None else settings.append_eod
    datasets = [TokenDataset(settings, inputs, key, append_eod) for key in settings.keys]
    engine = encoder_of(datasets[0].encoding).engine
    _note_end_of_document(append_eod, given=settings.append_eod is not None, is_tree="directory" in names)
    log.info("encoding with %s", engine.name)
    return datasets


def _check_keys(settings: TokenizeSettings, inputs: Sequence[tuple[str, Path]]) -> None:
    """Refuse keys where nothing has them, and tell of records that would be read as source text."""
    if list(settings.keys) != ["text"] and {name for name, _ in inputs} != {"jsonl"}:
        raise InputError(
            f"--jsonl-keys {' '.join(settings.keys)}: only .jsonl files have keys, and an input is something else; "
            "tokenize them in runs of their own"
        )
    for name, path in inputs:
        if name == "directory" and (
            records := sorted(path.glob("*.jsonl*")) + sorted(path.glob("*.parquet"))
        ):
            log.warning(
                "NOTE: %s is read as a tree of source files, %s and the like as text too; to read records, "
                "give the files themselves to --input, divided by commas", path, records[0].name,
            )  # fmt: skip


def _check_place(output_prefix: str, inputs: Sequence[tuple[str, Path]]) -> None:
    """Refuse a dataset inside a tree of source files, of which it would be one."""
    place = Path(output_prefix).resolve()
    for name, path in inputs:
        if name == "directory" and place.is_relative_to(path.resolve()):
            raise OutputError(
                f"{output_prefix} lies inside the input {path}, and would be read as a source file of it; "
                "give another --output-prefix"
            )


def _note_end_of_document(append_eod: bool, *, given: bool, is_tree: bool) -> None:
    if not given:
        reason = "an input is a folder of files" if is_tree else "GPT-NeoX's default for records"
        other = (
            "--no-append-eod leaves it out, as PolyCoder's own data" if append_eod else "--append-eod adds it"
        )
        log.warning(
            "NOTE: end-of-document tokens are %s: %s. %s.", "ON" if append_eod else "OFF", reason, other
        )
    elif not append_eod:
        log.info("end-of-document tokens are off: documents run together, and a model never learns to stop")
