"""Lines about a long piece of work, now and then."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 10.0


class Progress:
    """Counts what is done of a known number of things and logs it every ten seconds, and at the end.

    Args:
        total: how many things there are.
        what: what they are, in the plural.
    """

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._num_done = self._num_tokens = 0
        self._start = self._logged = time.perf_counter()

    def add(self, num_done: int, num_tokens: int) -> None:
        """Count more things done, and the tokens that they were."""
        self._num_done += num_done
        self._num_tokens += num_tokens
        now = time.perf_counter()
        if now - self._logged > _INTERVAL_SECONDS or self._num_done == self._total:
            self._logged = now
            rate = self._num_tokens / max(now - self._start, 1e-9)
            log.info("%d of %d %s, %.0f tokens/s", self._num_done, self._total, self._what, rate)
