"""How far a download is: one line rewritten on a terminal, lines of their own elsewhere."""

from __future__ import annotations

import time
from typing import TextIO

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0


class ProgressLines:
    """Writes `downloading NAME: 1.20 of 5.55 GB (21.6%), 35.1 MB/s`; the first at once, the last when all is there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._interval = _TERMINAL_SECONDS if self._is_terminal else _LOG_SECONDS
        self._name = ""
        self._is_open = False
        self._said = 0.0
        self._before = (0.0, 0)

    def __call__(self, name: str, num_bytes: int, total: int | None) -> None:
        """Say that `num_bytes` of `total` are there, unless something was said just before."""
        now = time.monotonic()
        if name != self._name or num_bytes < self._before[1]:
            self._name, self._before, self._said = name, (now, num_bytes), 0.0
        if now - self._said < self._interval and num_bytes != total:
            return
        self._said = now
        line = f"downloading {name}: {_amount(num_bytes, total)}{self._rate(now, num_bytes)}"
        print(f"\r{line}\x1b[K" if self._is_terminal else line, file=self._stream, flush=True,
              end="" if self._is_terminal else "\n")  # fmt: skip
        self._is_open = self._is_terminal
        if num_bytes == total:
            self.close()

    def _rate(self, now: float, num_bytes: int) -> str:
        since, at = self._before
        return (
            f", {(num_bytes - at) / 1e6 / (now - since):.1f} MB/s" if now > since and num_bytes > at else ""
        )

    def close(self) -> None:
        """Leave the line that is being rewritten, so that what follows stands by itself."""
        if self._is_open:
            print(file=self._stream, flush=True)
            self._is_open = False


def _amount(num_bytes: int, total: int | None) -> str:
    unit, divisor = ("GB", 1e9) if (total or num_bytes) >= 1e9 else ("MB", 1e6)
    if total is None:
        return f"{num_bytes / divisor:.2f} {unit}"
    share = 100 * num_bytes / total if total else 100.0
    return f"{num_bytes / divisor:.2f} of {total / divisor:.2f} {unit} ({share:.1f}%)"
