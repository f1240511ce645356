#!/usr/bin/env python3
"""What benchmarks/data.py compares with: the loops that others run, written anew, each in a process of its own."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import deepy

deepy.enter()

import argparse
import json
import multiprocessing
import os
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

EXAMPLES = """examples:
  benchmarks/data_peers.py neox --input Code --tokenizer tokenizer.json --output neox
  benchmarks/data_peers.py datasketch --input Shards --output clusters.json
"""


def main(arguments: Sequence[str]) -> None:
    """Run one of the loops."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("loop", choices=sorted(_LOOPS))
    parser.add_argument("--input", type=Path, required=True, help="a folder of files or of shards, or .jsonl")
    parser.add_argument("--output", type=Path, required=True, help="prefix of a dataset, or a .json file")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json")
    parser.add_argument("--eod", type=int, default=0, help="id that ends a document")
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


NUM_HASHES = 256
THRESHOLD = 0.85
_WORDS = re.compile(rb"\W+")


def datasketch(options: argparse.Namespace) -> None:
    """CodeParrot's minhash_deduplication.py up to the groups: datasketch's MinHash in workers, its LSH in the parent.

    What follows there, the comparison within each group, is left out.
    """
    from datasketch import MinHashLSH
    from pyarrow import parquet

    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_HASHES)
    groups: dict[Any, list[int]] = {}
    contents = (
        text.encode()
        for shard in sorted(options.input.glob("*.parquet"))
        for batch in parquet.ParquetFile(shard).iter_batches(columns=["content"])
        for text in batch.column(0).to_pylist()
    )
    with multiprocessing.get_context("fork").Pool(options.workers) as pool:
        for number, signature in enumerate(pool.imap(word_signature, contents, chunksize=100)):
            if signature is None:
                continue
            if near := index.query(signature):
                groups.setdefault(near[0], []).append(number)
            index.insert(number, signature)
        pool.close()
        pool.join()
    options.output.write_text(json.dumps(groups), encoding="utf-8")


def word_signature(content: bytes) -> Any:
    """datasketch's MinHash of the different words of a file; none of one with fewer than ten words."""
    from datasketch import MinHash

    words = [word for word in _WORDS.split(content) if word]
    if len(words) < 10:
        return None
    signature = MinHash(num_perm=NUM_HASHES)
    signature.update_batch(list(set(words)))
    return signature


_LOOPS = {"neox": neox, "megatron": megatron, "datasketch": datasketch}


if __name__ == "__main__":
    main(sys.argv[1:])
