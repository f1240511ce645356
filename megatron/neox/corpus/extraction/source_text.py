"""From the bytes of a source file to its text, or to the reason why it has none."""

from __future__ import annotations

import codecs
from typing import Literal

from megatron.neox.errors import DependencyError

Encoding = Literal["skip", "replace", "detect"]
ENCODINGS: tuple[Encoding, ...] = ("skip", "replace", "detect")

_LFS_START = b"version https://git-lfs.github.com/spec/"
# UTF-32's mark begins with that of UTF-16, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_MARKS_BEGIN = {mark[0] for mark, _ in _MARKS}
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")
_PACKET_BYTES = 188  # of an MPEG transport stream; each begins with G


def source_text(data: bytes, encoding: Encoding) -> tuple[str, str]:
    """The text with LF line ends and without a byte order mark, and "" or the reason why there is none.

    Reasons: empty (nothing, or white space alone), lfs_pointer, binary (NUL bytes, an MPEG stream; where other bytes
    than UTF-8 are welcome, many control characters too), not_utf8. UTF-16
    and UTF-32 with a byte order mark are decoded whatever the policy.

    Args:
        encoding: of other bytes that are not UTF-8: `skip` leaves the file out, `replace` puts U+FFFD for what
            cannot be decoded, `detect` takes charset-normalizer's best guess over the whole file, and leaves it
            out where there is none.
    """
    if not data.strip():
        return "", "empty"
    if data.startswith(_LFS_START):
        return "", "lfs_pointer"
    text = _marked(data)
    if text is None:
        if b"\0" in data or _is_transport_stream(data):
            return "", "binary"
        try:
            text = data.decode()
        except UnicodeDecodeError:
            if encoding != "skip" and _has_controls(data):
                return "", "binary"
            text = _otherwise(data, encoding)
            if text is None:
                return "", "not_utf8"
    elif "\0" in text:
        return "", "binary"
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (text, "") if text and not text.isspace() else ("", "empty")


def _marked(data: bytes) -> str | None:
    """What a byte order mark other than UTF-8's says it is; None where it has none, or says wrong."""
    if data[0] not in _MARKS_BEGIN:
        return None
    for mark, name in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(name)
            except UnicodeDecodeError:
                continue
    return None


def _is_transport_stream(data: bytes) -> bool:
    return len(data) > 4 * _PACKET_BYTES and data[: 4 * _PACKET_BYTES : _PACKET_BYTES] == b"GGGG"


def _has_controls(data: bytes) -> bool:
    """Whether more than one byte in fifty is a control character that no text has; of noise it is one in ten."""
    return 50 * (len(data) - len(data.translate(None, _CONTROLS))) > len(data)


def _otherwise(data: bytes, encoding: Encoding) -> str | None:
    if encoding == "skip":
        return None
    if encoding == "replace":
        return data.decode(errors="replace")
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise DependencyError(
            "--encoding detect needs charset-normalizer, which is not installed: pip install charset-normalizer"
        ) from error
    best = from_bytes(data).best()
    return None if best is None else str(best)
