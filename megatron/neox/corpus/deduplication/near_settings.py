"""What makes two files nearly the same, and the settings of those who said it before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from megatron.neox.corpus.deduplication.shingles import Shingling


@dataclass(frozen=True)
class NearSettings:
    """What makes two files nearly the same.

    Attributes:
        threshold: Jaccard's index from which on they are.
        num_hashes: bins of a signature.
        bands, rows: keys of a file, and bins in each.
    """

    shingling: Shingling
    threshold: float
    num_hashes: int
    bands: int
    rows: int

    def __post_init__(self) -> None:
        assert self.bands * self.rows <= self.num_hashes
        assert 0 < self.threshold <= 1


PRESETS: Mapping[str, NearSettings] = {
    "bytes": NearSettings(Shingling("bytes", 16, 16), 0.8, 256, 32, 8),
    # transformers-research-projects: codeparrot/scripts/minhash_deduplication.py; datasketch's bands for 0.85.
    "codeparrot": NearSettings(Shingling("words", 1, 10), 0.85, 256, 13, 19),
    # bigcode-dataset: near_deduplication/minhash_deduplication.py.
    "bigcode": NearSettings(Shingling("words", 5, 5), 0.7, 256, 25, 10),
}
