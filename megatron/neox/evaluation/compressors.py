"""Sizes under general-purpose compressors, the baseline that a language model must beat in bits per byte.

The sizes are what `gzip -9 -n` and `xz -9` write for the same bytes, each file by itself with headers and
checksums: zlib's level 9 in a gzip member without a name (GNU gzip's own deflate differs from zlib's by a few
bytes in a thousand), and xz's preset 9 with its CRC64.
"""

from __future__ import annotations

import gzip
import lzma

_SMALLEST_DICTIONARY = 4096  # bytes; what the format allows


def gzip_size(data: bytes) -> int:
    """Bytes of `gzip -9 -n`."""
    return len(gzip.compress(data, 9, mtime=0))


def xz_size(data: bytes) -> int:
    """Bytes of `xz -9`.

    Preset 9 sets aside 64 MiB for its dictionary whatever the file. One that just holds the file finds the
    same matches and takes a sixth of the time.
    """
    dictionary = _SMALLEST_DICTIONARY
    while dictionary < min(len(data), 64 * 2**20):
        dictionary *= 2
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary}]
    return len(lzma.compress(data, check=lzma.CHECK_CRC64, filters=filters))


SIZES = {"gzip": gzip_size, "xz": xz_size}
