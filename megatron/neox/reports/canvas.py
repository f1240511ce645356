"""What all drawings share: figures without a display, colours, and pictures that appear whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megatron.neox.files import appearing


@contextmanager
def canvas(output: Path, *, panels: int = 1, height: float = 4.5) -> Iterator[list[Any]]:
    """Axes below one another; when the block ends, what was drawn on them is the PNG file `output`.

    Args:
        height: of each panel, inches; all are 8 wide.
    """
    import matplotlib

    matplotlib.use("Agg")  # no display is needed
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(panels, figsize=(8, height * panels), layout="constrained", squeeze=False)
    try:
        yield [row[0] for row in axes]
        with appearing(output) as partial:
            figure.savefig(partial, dpi=120, format="png")
    finally:
        pyplot.close(figure)


def colour(index: int, count: int) -> Any:
    """One of `count` colours that differ in lightness too, for those who see few."""
    import matplotlib

    return matplotlib.colormaps["viridis"](0.1 + 0.75 * index / max(1, count - 1))
