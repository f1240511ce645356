#!/usr/bin/env python3
"""What benchmarks/data.py compares with: the loops that others run, written anew, each in a process of its own."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import multiprocessing
import os
import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

EXAMPLES = """examples:
  benchmarks/data_peers.py neox --input Code --tokenizer tokenizer.json --output neox
  benchmarks/data_peers.py datasketch --input Shards --output distinct.parquet
"""


def main(arguments: Sequence[str]) -> None:
    """Run one of the loops."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("loop", choices=sorted(_LOOPS))
    parser.add_argument("--input", type=Path, required=True, help="a folder of files or of shards, or .jsonl")
    parser.add_argument(
        "--output", type=Path, required=True, help="prefix of a dataset, a folder, or a .parquet file"
    )
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json")
    parser.add_argument("--eod", type=int, default=0, help="id that ends a document")
    parser.add_argument("--update", choices=("word", "batch"), default="word", help="how signatures are made")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    _LOOPS[options.loop](options)


def neox(options: argparse.Namespace) -> None:
    """GPT-NeoX's tools/datasets/preprocess_data.py, with the folder reader of PolyCoder's fork.

    Workers encode a document a call with the library `tokenizers`, 25 documents a message; the parent reads the
    files, takes lists of ids, makes an array of each and writes it. What is not UTF-8 or empty is left out.
    """
    context = multiprocessing.get_context("fork")
    sizes: list[int] = []
    with (
        context.Pool(options.workers, _load, (str(options.tokenizer),)) as pool,
        Path(f"{options.output}.bin").open("wb") as file,
    ):
        for ids in pool.imap(_encode, _texts(options.input), chunksize=25):
            ids.append(options.eod)
            array = np.array(ids, dtype=np.uint16)
            file.write(array.tobytes(order="C"))
            sizes.append(array.size)
        pool.close()
        pool.join()  # so that their processor time is counted
    _write_index(options.output, sizes)


_tokenizer: Any = None  # of a worker


def _load(path: str) -> None:
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    _tokenizer = Tokenizer.from_file(path)


def _encode(text: str) -> list[int]:
    return _tokenizer.encode(text).ids


def _texts(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                with open(os.path.join(place, name), encoding="utf-8") as file:
                    text = file.read()
            except UnicodeDecodeError:
                continue
            if text and "\0" not in text:
                yield text


def megatron(options: argparse.Namespace) -> None:
    """Megatron-LM's tools/preprocess_data_fast.py: gigatoken reads and encodes a whole .jsonl file in threads.

    All ids are in memory at once; the end of document is appended to the array, and the array is written.
    """
    os.environ["RAYON_NUM_THREADS"] = str(options.workers)
    import awkward
    import gigatoken

    tokenizer = gigatoken.Tokenizer.from_json(options.tokenizer.read_text(encoding="utf-8"))
    documents = tokenizer.encode_files(gigatoken.JsonlFileSource([str(options.input)], "text"))
    ends = awkward.singletons(awkward.Array(np.full(len(documents), options.eod, np.uint32)))
    documents = awkward.concatenate([documents, ends], axis=1)
    sizes = awkward.to_numpy(awkward.num(documents))
    awkward.to_numpy(awkward.flatten(documents)).astype(np.uint16).tofile(f"{options.output}.bin")
    _write_index(options.output, sizes)


def _write_index(prefix: Path, sizes: Sequence[int] | np.ndarray) -> None:
    """The .idx of the memory-mapped form, uint16, a document a sequence."""
    lengths = np.asarray(sizes, np.int32)
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64) * 2])[: len(lengths)]
    with Path(f"{prefix}.idx").open("wb") as file:
        file.write(struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, len(lengths), len(lengths) + 1))
        file.write(lengths.tobytes())
        file.write(pointers.astype(np.int64).tobytes())
        file.write(np.arange(len(lengths) + 1, dtype=np.int64).tobytes())


def polycoder(options: argparse.Namespace) -> None:
    """PolyCoder's Data/extract_code.py over a tree of LANGUAGE/ORGANIZATION/PROJECT, in workers, 25 files a message.

    A worker reads a file, counts all its tokens by Pygments, and copies one of 100 and more under its path with `__`
    for `/`. The names that a language has, and whose a `.h` is, are ours, and what is not text is left out as we do
    it, or the two would not keep the same files; PolyCoder starts a process a repository, which is saved here.
    """
    with multiprocessing.get_context("fork").Pool(options.workers) as pool:
        found = (
            (str(path), str(options.input), str(options.output)) for path in _source_files(options.input)
        )
        num_kept = sum(pool.imap_unordered(_extract, found, chunksize=25))
        pool.close()
        pool.join()
    print(f"copied {num_kept} files")


def _source_files(folder: Path) -> Iterator[Path]:
    """Files with a name of the language that their path begins with, of at most 1 MiB."""
    from megatron.neox.corpus.extraction.languages import languages_by_name

    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            language = path.relative_to(folder).parts[0]
            if language in languages_by_name(os.fsencode(name)) and path.stat().st_size <= 1 << 20:
                yield path


def _extract(paths: tuple[str, str, str]) -> bool:
    """Copy a file, unless it is too short."""
    import pygments

    from megatron.neox.corpus.extraction.languages import language_of

    path, folder, output = paths
    language, *rest = Path(path).relative_to(folder).parts
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError:
        return False
    text = text.removeprefix("\ufeff")
    if "\0" in text or not text.strip() or language_of(os.fsencode(rest[-1]), text, language) != language:
        return False
    if sum(1 for _ in pygments.lex(text, _pygments_lexer(language))) < 100:
        return False
    place = Path(output, language)
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place / "__".join(rest))
    return True


@cache
def _pygments_lexer(language: str) -> Any:
    from pygments.lexers import get_lexer_by_name

    from megatron.neox.corpus.extraction.languages import LANGUAGES

    return get_lexer_by_name(LANGUAGES[language].lexer)


NUM_HASHES = 256
THRESHOLD = 0.85
_WORDS = re.compile(rb"\W+")


def datasketch(options: argparse.Namespace) -> None:
    """CodeParrot's minhash_deduplication.py: datasketch's MinHash in workers, its LSH in the parent, then the files
    of each group compared by their words, in workers, and the rows that stay written.

    `--update word` makes signatures as the script does, `batch` as datasketch can.
    """
    import pyarrow as pa
    from pyarrow import parquet

    tables = [parquet.read_table(shard) for shard in sorted(options.input.glob("*.parquet"))]
    table = pa.concat_tables(tables)
    signatures_of = partial(word_signature, update=options.update)
    with multiprocessing.get_context("fork").Pool(options.workers) as pool:
        contents = (text.as_py().encode() for text in table["content"])
        groups = grouped(pool.imap(signatures_of, contents, chunksize=100))
        texts = table["content"]
        members = ([(number, texts[number].as_py()) for number in group] for group in groups)
        gone = {number for numbers in pool.imap_unordered(_near_another, members) for number in numbers}
        pool.close()
        pool.join()
    kept = table.filter(pa.array([number not in gone for number in range(len(table))]))
    parquet.write_table(kept, options.output, compression="zstd")


def word_signature(content: bytes, update: str = "batch") -> Any:
    """datasketch's MinHash of the different words of a file; none of one with fewer than ten words."""
    from datasketch import MinHash

    words = [word for word in _WORDS.split(content) if word]
    if len(words) < 10:
        return None
    signature = MinHash(num_perm=NUM_HASHES)
    if update == "batch":
        signature.update_batch(list(set(words)))
    else:
        for word in set(words):
            signature.update(word)
    return signature


def grouped(signatures: Iterable[Any]) -> list[list[int]]:
    """Numbers of the files that datasketch's index puts together, two or more a group."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_HASHES)
    groups: dict[int, list[int]] = {}
    group_of: dict[int, int] = {}
    for number, signature in enumerate(signatures):
        if signature is None:
            continue
        near: list[Any] = index.query(signature)
        if near:
            first: int = next((group_of[other] for other in near if other in group_of), near[0])
            group_of[number] = first
            groups.setdefault(first, [first]).append(number)
        index.insert(number, signature)
    return list(groups.values())


def _near_another(members: list[tuple[int, str]]) -> list[int]:
    """Members of a group that one kept before is near to, each pair compared anew as CodeParrot does."""
    kept: list[str] = []
    gone = []
    for number, text in members:
        if any(_jaccard(text, other) >= THRESHOLD for other in kept):
            gone.append(number)
        else:
            kept.append(text)
    return gone


def _jaccard(one: str, other: str) -> float:
    first, second = ({word for word in _WORDS.split(text.encode()) if word} for text in (one, other))
    return len(first & second) / len(first | second)


_LOOPS = {"neox": neox, "megatron": megatron, "polycoder": polycoder, "datasketch": datasketch}


if __name__ == "__main__":
    main(sys.argv[1:])
