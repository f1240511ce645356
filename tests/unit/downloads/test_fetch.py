"""Comparing a file with what was promised, and saying how far it is; the network is met in tests/integration."""

from __future__ import annotations

import io
import time
from email.utils import formatdate
from pathlib import Path

import pytest
import requests

from megatron.neox.downloads.fetch import Remote, _span, mismatch, retry_after
from megatron.neox.downloads.lock import alone_in
from megatron.neox.downloads.progress import ProgressLines
from megatron.neox.errors import OutputError


def test_size_and_checksum_tell_files_apart(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    assert mismatch(file, Remote("u")) is None
    assert mismatch(file, Remote("u", 3, "md5:900150983CD24FB0D6963F7D28E17F72")) is None
    assert mismatch(file, Remote("u", 4)) == "it has 3 bytes instead of 4"
    wrong = mismatch(file, Remote("u", 3, "sha256:00"))
    assert wrong == (
        "its sha256 is ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad instead of 00"
    )
    assert mismatch(tmp_path, Remote("u")) == "it is not a file"


def answer(status: int, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


def test_where_a_body_belongs() -> None:
    assert _span(answer(200, Content_Length="12")) == (0, 12)
    assert _span(answer(200)) == (0, None)
    assert _span(answer(206, Content_Range="bytes 5-11/12")) == (5, 12)
    assert _span(answer(206, Content_Range="bytes 0-11/*")) == (0, None)
    assert _span(answer(416, Content_Range="bytes */12")) == (-1, 12)
    assert _span(answer(206, Content_Range="lines 1-2/3")) == (-1, None)


def test_how_long_a_server_asks_to_wait() -> None:
    assert retry_after(answer(503)) == 0
    assert retry_after(answer(503, Retry_After="7")) == 7
    assert 50 < retry_after(answer(503, Retry_After=formatdate(time.time() + 60, usegmt=True))) <= 60
    assert retry_after(answer(503, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT")) == 0


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with alone_in(tmp_path / "new"), pytest.raises(OutputError, match="another download into"):  # noqa: SIM117
        with alone_in(tmp_path / "new"):
            pass
    with alone_in(tmp_path / "new"):
        pass


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_lines_in_a_file_and_one_line_on_a_terminal() -> None:
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        lines = ProgressLines(stream)
        for done in (0, 1_000_000, 1_500_000, 5_000_000):
            lines("a.tar", done, 5_000_000)
        lines("b", 12, None)
        lines.close()
    first, last, other = log.getvalue().splitlines()
    assert first == "downloading a.tar: 0.00 of 5.00 MB (0.0%)"
    assert last.startswith("downloading a.tar: 5.00 of 5.00 MB (100.0%), ")
    assert last.endswith(" MB/s")
    assert other == "downloading b: 0.00 MB"
    assert terminal.getvalue().startswith("\rdownloading a.tar: 0.00 of 5.00 MB (0.0%)\x1b[K\rdownloading")
    assert terminal.getvalue().count("\n") == 2
