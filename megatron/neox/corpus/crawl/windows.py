"""Parts of a search small enough for GitHub, which hands out the first 1,000 results of any."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

MOST_RESULTS = 1000


@dataclass(frozen=True)
class Window:
    """Repositories with so many stars, created between two seconds; all ends belong to it.

    Args:
        most_stars: none is without an upper end.
        created_from: seconds since 1970.
    """

    fewest_stars: int
    most_stars: int | None
    created_from: int
    created_to: int

    def search(self, language: str, pushed_since: str) -> str:
        """The words of GitHub's search; `pushed_since` is a date."""
        most = "*" if self.most_stars is None else self.most_stars
        return (
            f'language:"{language}" stars:{self.fewest_stars}..{most} '
            f"created:{second_text(self.created_from)}..{second_text(self.created_to)} "
            f"pushed:>={pushed_since} fork:false sort:stars-desc"
        )

    def halves(self) -> tuple[Window, Window] | None:
        """The same in two, more stars first; of one number of stars, newer first; None for a single second.

        Stars are divided by their logarithm, since repositories with twice as many are about a quarter as many.
        """
        low, high = self.fewest_stars, self.most_stars
        if high is None:
            return self._at_stars(max(2 * low, low + 1))
        if low < high:
            # The geometric middle, moved to where both halves hold something.
            return self._at_stars(min(high, max(low + 1, round(((low + 1) * (high + 1)) ** 0.5))))
        if self.created_from < self.created_to:
            middle = (self.created_from + self.created_to + 1) // 2
            return replace(self, created_from=middle), replace(self, created_to=middle - 1)
        return None

    def _at_stars(self, middle: int) -> tuple[Window, Window]:
        return replace(self, fewest_stars=middle), replace(self, most_stars=middle - 1)


def second_text(seconds: int) -> str:
    """`2020-01-01T00:00:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
