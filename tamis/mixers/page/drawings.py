"""Marks of the drawings of ``tamis mix``, in units of their SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tamis.mixers.simplex import Float64
from tamis.pipeline.report.axes import Tick, apart, linear_ticks
from tamis.pipeline.report.figures import compact

WIDTH, HEIGHT = 420.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 408.0, 12.0, 272.0
CELLS = 24
"""Of an edge of the triangle."""
_EDGE = 300.0
_HIGH = _EDGE * 3**0.5 / 2
CORNERS = np.array([[210.0, 20.0], [210.0 - _EDGE / 2, 20 + _HIGH], [210 + _EDGE / 2, 20 + _HIGH]])
"""Of the triangle: the first source on top, the second on the left."""


@dataclass(frozen=True)
class Dot:
    """A run, and what is said of it."""

    x: float
    y: float
    title: str
    colour: int = 0


@dataclass(frozen=True)
class Plane:
    """Marks over two axes."""

    dots: tuple[Dot, ...]
    lines: tuple[tuple[int, str], ...]
    """(colour, points)."""
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    upright: float | None = None
    """Where a line stands over x."""


@dataclass(frozen=True)
class Cell:
    """A part of the triangle: how much of its colour it has."""

    points: str
    strength: float
    title: str


@dataclass(frozen=True)
class Triangle:
    """Mixtures of three sources."""

    cells: tuple[Cell, ...]
    dots: tuple[Dot, ...]
    answer: Dot


@dataclass(frozen=True)
class Parallel:
    """An axis for each source, a line for each run."""

    axes: tuple[tuple[float, str], ...]
    runs: tuple[tuple[str, float, str], ...]
    """(points, strength, what is said)."""
    answer: str


def plane(
    x: Float64, y: Float64, colours: Sequence[int], titles: Sequence[str],
    curves: Sequence[tuple[int, Float64, Float64]] = (), equal: bool = False,
    upright: float | None = None,
) -> Plane:  # fmt: skip
    """Dots and lines; ``equal`` gives both axes the same range."""
    across, over = (
        np.concatenate([dots, *(one[axis] for one in curves)]) for axis, dots in ((1, x), (2, y))
    )
    if equal:
        across = over = np.concatenate([across, over])
    place_x, x_ticks = _axis(across, LEFT, RIGHT)
    place_y, y_ticks = _axis(over, BOTTOM, TOP)
    marks = zip(place_x(x).tolist(), place_y(y).tolist(), titles, colours, strict=True)
    return Plane(
        tuple(Dot(*one) for one in marks),
        tuple((colour, _points(place_x(a), place_y(b))) for colour, a, b in curves),
        apart(x_ticks),
        tuple(y_ticks),
        None if upright is None else float(place_x(np.array([upright]))[0]),
    )


def _axis(
    values: Float64, begin: float, end: float
) -> tuple[Callable[[Float64], Float64], list[Tick]]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5 * max(abs(low), 1e-3)
    low, high = low - margin, high + margin

    def place(at: Float64) -> Float64:
        return np.asarray(begin + (end - begin) * (at - low) / (high - low))

    marks = linear_ticks(low, high)
    spots = place(np.array(marks)).tolist()
    ticks = [Tick(at, compact(one)) for at, one in zip(spots, marks, strict=True)]
    return place, ticks


def triangle(
    names: Sequence[str], loss: Callable[[Float64], Float64] | None, runs: Float64,
    titles: Sequence[str], answer: Float64,
) -> Triangle:  # fmt: skip
    """The runs (n, 3) and the answer (3,) among all mixtures; ``loss`` of mixtures (k, 3), (k,)."""
    spots = (runs @ CORNERS).tolist()
    dots = tuple(Dot(x, y, title) for (x, y), title in zip(spots, titles, strict=True))
    x, y = (answer @ CORNERS).tolist()
    best = Dot(x, y, in_words(names, answer))
    return Triangle(() if loss is None else _cells(names, loss), dots, best)


def _cells(names: Sequence[str], loss: Callable[[Float64], Float64]) -> tuple[Cell, ...]:
    outlines = []
    for i in range(CELLS):
        for j in range(CELLS - i):
            up = [(i + 1, j), (i, j + 1), (i, j)]
            down = [(i + 1, j + 1), (i + 1, j), (i, j + 1)]
            outlines += [up, down] if i + j < CELLS - 1 else [up]
    grid = np.array(outlines, np.float64) / CELLS
    corners = np.concatenate([grid, 1 - grid.sum(2, keepdims=True)], 2)
    middles = corners.mean(1)
    values = loss(middles)
    # By rank: one loss far above all others would leave a single colour for the rest.
    ranks = values.argsort(kind="stable").argsort(kind="stable") / max(len(values) - 1, 1)
    return tuple(
        Cell(
            _points(*(one @ CORNERS).T),
            round(0.04 + 0.8 * (1 - rank) ** 2, 3),
            f"{in_words(names, middle)}: {value:.4f}",
        )
        for one, middle, value, rank in zip(
            corners, middles, values.tolist(), ranks.tolist(), strict=True
        )
    )


def parallel(
    names: Sequence[str], runs: Float64, losses: Float64, titles: Sequence[str], answer: Float64
) -> Parallel:
    """A line for each run (n, m), the stronger the smaller its loss (n,) is, and the answer's."""
    places = np.linspace(LEFT, RIGHT - 12, len(names))
    most = float(max(runs.max(), answer.max()))
    ranks = losses.argsort(kind="stable").argsort(kind="stable") / max(len(losses) - 1, 1)

    def line(shares: Float64) -> str:
        return _points(places, BOTTOM - (BOTTOM - TOP) * shares / most)

    lines = [
        (line(row), round(0.06 + 0.7 * (1 - rank) ** 3, 3), title)
        for row, rank, title in zip(runs, ranks.tolist(), titles, strict=True)
    ]
    axes = zip(places.tolist(), names, strict=True)
    return Parallel(tuple(axes), tuple(lines), line(answer))


def in_words(names: Sequence[str], shares: Float64) -> str:
    """A mixture (m,)."""
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))


def _points(x: Float64, y: Float64) -> str:
    return " ".join(f"{at:.1f},{height:.1f}" for at, height in zip(x, y, strict=True))
