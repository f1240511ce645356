"""Windows of a search: their words, and that halves are neither less nor more than the whole."""

from __future__ import annotations

import random

from megatron.neox.corpus.crawl.windows import Window

FIRST, LAST = 1_167_609_600, 1_633_737_600  # 2007-01-01, 2021-10-09


def holds(window: Window, stars: int, created: int) -> bool:
    most = stars if window.most_stars is None else window.most_stars
    return window.fewest_stars <= stars <= most and window.created_from <= created <= window.created_to


def test_the_words_of_a_search() -> None:
    assert Window(50, None, FIRST, LAST).search("C#", "2020-01-01") == (
        'language:"C#" stars:50..* created:2007-01-01T00:00:00Z..2021-10-09T00:00:00Z '
        "pushed:>=2020-01-01 fork:false sort:stars-desc"
    )
    assert 'language:"Go" stars:7..7 ' in Window(7, 7, FIRST, LAST).search("Go", "2020-01-01")


def test_halves_divide_the_whole() -> None:
    """Down to one number of stars and one second, wherever a repository lies."""
    chance = random.Random(1)
    for _ in range(300):
        stars, created = int(chance.paretovariate(0.3)) - 1, chance.randint(FIRST, LAST)
        window, num_steps = Window(chance.choice([0, 1, 50]), None, FIRST, LAST), 0
        stars = max(stars, window.fewest_stars)
        while halves := window.halves():
            more, less = halves
            assert holds(more, stars, created) != holds(less, stars, created)
            assert more.fewest_stars > (less.most_stars or 0) or more.created_from > less.created_to
            window = more if holds(more, stars, created) else less
            num_steps += 1
        assert window == Window(stars, stars, created, created)
        assert num_steps < 200


def test_halves_of_small_windows() -> None:
    assert Window(0, None, 5, 9).halves() == (Window(1, None, 5, 9), Window(0, 0, 5, 9))
    assert Window(50, None, 5, 9).halves() == (Window(100, None, 5, 9), Window(50, 99, 5, 9))
    assert Window(50, 51, 5, 9).halves() == (Window(51, 51, 5, 9), Window(50, 50, 5, 9))
    assert Window(100, 399, 5, 9).halves() == (Window(201, 399, 5, 9), Window(100, 200, 5, 9))
    assert Window(50, 50, 5, 6).halves() == (Window(50, 50, 6, 6), Window(50, 50, 5, 5))
    assert Window(50, 50, 5, 5).halves() is None
