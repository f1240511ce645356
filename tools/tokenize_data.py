#!/usr/bin/env python3
"""Tokenize one parquet file of The Stack into samples of a fixed length, for PickledTrainerDataset and train.py."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import deepy

deepy.enter()

from megatron.neox.config import TokenizerConfig
from megatron.neox.data.pretokenize import PretokenizeSettings, check_settings, pretokenize
from megatron.neox.downloads.hub import SCHEME, fetch_hub_file, parse_hub_path
from megatron.neox.downloads.progress import ProgressLines
from megatron.neox.errors import InputError, run_long_door
from megatron.neox.tokenizers import HFTokenizer, Tokenizer, build_tokenizer
from megatron.neox.tokenizers.pretrained import find_pretrained, padding_of

_DEFAULT_TOKENIZER = "deepseek-ai/deepseek-coder-33b-base"  # the original's

_EXAMPLES = """examples:
  tools/tokenize_data.py --tokenization_folder tokenized_data \\
      --data_file hf://datasets/bigcode/the-stack/data/c/train-00000-of-00257.parquet \\
      --vocab-file code-vocab.json --merge-file code-merges.txt --workers 4
  tools/tokenize_data.py --data_file train-00000-of-00257.parquet --tokenization_folder validation_512 \\
      --seq_length 512 --starting_character 100000000 --chars_to_tokenize 2000000 --valid-of tokenized_data
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_input(parser.add_argument_group("input"))
    _add_tokenizer(parser.add_argument_group("tokenizer"))
    _add_cutting(parser.add_argument_group("cutting"))
    _add_output(parser.add_argument_group("output and running"))
    return parser


def _flag(name: str) -> tuple[str, ...]:
    """Both spellings of an option."""
    return (f"--{name}", f"--{name.replace('_', '-')}")


def _add_number(
    group: argparse._ArgumentGroup, name: str, default: int, text: str, *, least: int = 1
) -> None:
    def number(word: str) -> int:
        value = int(word.replace("_", ""))
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, and is {value}")
        return value

    group.add_argument(
        *_flag(name), type=number, default=default, metavar="N", help=f"{text} (default: %(default)s)"
    )


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        *_flag("data_file"), required=True, metavar="FILE", help="a parquet file, or one of the hub: hf://..."
    )
    group.add_argument(
        *_flag("download_folder"), type=Path, default=Path("downloads"), metavar="FOLDER",
        help="where a file of the hub goes, and stays (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--column", default="content", metavar="NAME", help="its texts (default: %(default)s)")
    _add_number(group, "starting_character", 0, "first character of the documents in one line", least=0)
    _add_number(group, "chars_to_tokenize", 100_000_000, "characters to take from there on")
    group.add_argument(
        *_flag("valid_of"), type=Path, metavar="FOLDER",
        help="refuse characters that this folder, made for training, holds",
    )  # fmt: skip


def _add_tokenizer(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tokenizer", "--tokenizer_base", "--tokenizer-base", metavar="NAME",
        help=f"a folder with tokenizer.json, or a name of the Hugging Face hub (default: {_DEFAULT_TOKENIZER})",
    )  # fmt: skip
    group.add_argument("--vocab-file", metavar="FILE", help="vocab.json of GPT2BPETokenizer, instead")
    group.add_argument("--merge-file", metavar="FILE", help="merges.txt")
    group.add_argument(
        "--merges-header", choices=["drop_first_line", "auto"], default="drop_first_line",
        help="GPT-NeoX drops the first line of merges.txt whatever it is (default); auto drops a #version line only",
    )  # fmt: skip
    group.add_argument(
        "--missing-bytes", choices=["eod", "extend"], default="eod",
        help="bytes that the vocabulary lacks: GPT-NeoX's id 0 (eod, the default), or ids of their own behind it",
    )  # fmt: skip
    group.add_argument(
        *_flag("pad_token"),
        type=int,
        metavar="ID",
        help="fills samples (default: the tokenizer's padding token)",
    )
    group.add_argument(
        "--bos", action=argparse.BooleanOptionalAction,
        help="begin each piece with the tokenizer's first token (default: where its own settings say so)",
    )  # fmt: skip
    group.add_argument(
        "--join", choices=["space", "eod"], default="space",
        help="what stands between documents: a space, as in the original, or the end-of-document token",
    )  # fmt: skip


def _add_cutting(group: argparse._ArgumentGroup) -> None:
    _add_number(group, "chunk_size", 10_000_000, "characters encoded together; memory follows it")
    _add_number(group, "seq_length", 1536, "ids in a sample")
    _add_number(
        group, "min_sample_length", 1000, "a sample begins where more ids than these are left", least=0
    )
    _add_number(group, "max_dump_size", 10_000, "samples in a file at most")


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        *_flag("tokenization_folder"), type=Path, required=True, metavar="FOLDER", help="to make"
    )
    group.add_argument(
        "--format", choices=["pickle", "mmap"], default="pickle",
        help="dump-N.pkl, or dump-N.npy, which are mapped into memory instead of read (default: %(default)s)",
    )  # fmt: skip
    _add_number(group, "workers", 1, "processes that encode")
    group.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    group.add_argument(
        "--overwrite", action="store_true", help="replace a folder that was made by this program"
    )


class _Reporter:
    """A line on stderr for each piece, at most one each second."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._last >= 1:
            self._last = now
            print(f"{done} of {total} pieces", file=sys.stderr, flush=True)


def _tokenizer_of(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> tuple[TokenizerConfig, int, int | None]:
    """The tokenizer's settings, the id that fills samples, and the one that begins pieces."""
    files = options.vocab_file or options.merge_file
    if files and options.tokenizer:
        parser.error("--tokenizer and --vocab-file are both given; keep one of them")
    if files:
        section = TokenizerConfig(
            vocab_file=options.vocab_file,
            merge_file=options.merge_file,
            merges_header=options.merges_header,
            missing_bytes=options.missing_bytes,
        )
        if options.bos:
            parser.error("--bos: a vocabulary of GPT-2's kind has no token that begins texts")
        tokenizer, named, first = build_tokenizer(section), None, None
    else:
        pretrained = find_pretrained(options.tokenizer or _DEFAULT_TOKENIZER)
        section, tokenizer = pretrained.section, build_tokenizer(pretrained.section)
        assert isinstance(tokenizer, HFTokenizer)
        named, first = pretrained.pad_token(tokenizer), pretrained.first_token(tokenizer)
        if options.bos and first is None:
            first = pretrained.bos_token(tokenizer)
            if first is None:
                parser.error("--bos: the tokenizer's settings name no token that begins texts")
    return section, _pad_token(options, tokenizer, named), None if options.bos is False else first


def _pad_token(options: argparse.Namespace, tokenizer: Tokenizer, named: int | None) -> int:
    if options.pad_token is not None:
        return options.pad_token
    own = named if named is not None else padding_of(tokenizer)
    if own is None:
        print(
            "the tokenizer has no padding token: samples are filled with the end of document", file=sys.stderr
        )
        return tokenizer.eod
    return own


def _local_file(options: argparse.Namespace) -> Path:
    """Where the data file is, or comes to lie where it is one of the hub.

    Raises:
        InputError: it is to be here, and is not.
    """
    if not options.data_file.startswith(SCHEME):
        path = Path(options.data_file)
        if not path.exists():
            raise InputError(f"the data file {path} does not exist (looked for {path.absolute()})")
        return path
    return parse_hub_path(options.data_file).path_in(options.download_folder)


def _fetch(options: argparse.Namespace) -> None:
    with closing(ProgressLines(sys.stderr)) as progress:
        fetch_hub_file(options.data_file, options.download_folder, progress)


def main(arguments: Sequence[str]) -> None:
    """Read the arguments and tokenize."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.pad_token is not None and options.pad_token < 0:
        parser.error("--pad_token cannot be negative")
    data_file = _local_file(options)  # before a tokenizer is fetched for nothing
    section, pad_token, bos = _tokenizer_of(parser, options)
    settings = PretokenizeSettings(
        data_file=data_file,
        tokenization_folder=options.tokenization_folder,
        tokenizer=section,
        pad_token=pad_token,
        bos=bos,
        column=options.column,
        chars_to_tokenize=options.chars_to_tokenize,
        starting_character=options.starting_character,
        chunk_size=options.chunk_size,
        seq_length=options.seq_length,
        min_sample_length=options.min_sample_length,
        max_dump_size=options.max_dump_size,
        join=options.join,
        form=options.format,
        workers=options.workers,
        resume=options.resume,
        overwrite=options.overwrite,
        valid_of=options.valid_of,
    )
    check_settings(settings)
    if options.data_file.startswith(SCHEME):
        _fetch(options)
    done = pretokenize(settings, report=_Reporter())
    print(
        f"{options.tokenization_folder}{' was complete already' if done.was_complete else ''}: {done.num_files} files, "
        f"{done.num_samples} samples of {options.seq_length} ids, {done.num_tokens} ids, "
        f"{done.num_padding} of them padding"
    )


if __name__ == "__main__":
    sys.exit(run_long_door(main, sys.argv[1:]))
