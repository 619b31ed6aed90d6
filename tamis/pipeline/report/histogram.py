"""A measure's histogram as shapes on a small drawing: bars, ticks, thresholds, the dropped sides.

Where the edges of the bins grow (counts and lengths: 0, then powers) the axis is logarithmic, with
a linear first bin so that zero has its place; where they grow on both sides of zero (logits, log
weights), both sides are. Heights follow the square root of the number of
documents: thresholds mostly lie in the tail, which would vanish beside the peak on a linear scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tamis.pipeline.report.axes import Tick, apart, linear_ticks, log_ticks, nice
from tamis.pipeline.report.figures import as_number, compact, count, value

WIDTH, HEIGHT = 360.0, 158.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 352.0, 20.0, 136.0
# Bins around what is drawn at least, so that a single full bin does not look like a wall.
_FEWEST_BINS = 8
# Labels of two thresholds closer than this (in drawing units) go on separate lines.
_LABEL_ROOM = 78.0


@dataclass(frozen=True)
class Bar:
    """One bin: where it stands, its kept (below) and dropped (above) parts, and what it says."""

    x: float
    width: float
    kept_y: float
    kept_height: float
    dropped_y: float
    dropped_height: float
    title: str


@dataclass(frozen=True)
class Threshold:
    """A threshold line, its label, and the rectangle of values that its rule drops."""

    x: float
    label: str
    label_y: float
    anchor: str
    label_x: float
    dropped_x: float
    dropped_width: float


@dataclass(frozen=True)
class Histogram:
    """Everything that is drawn of one measure, in units of a ``WIDTH`` x ``HEIGHT`` drawing."""

    bars: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    thresholds: tuple[Threshold, ...]


def draw(
    histogram: Mapping[str, Any], limits: Sequence[tuple[str, float]], *, integers: bool = False
) -> Histogram | None:
    """The drawing of a manifest's histogram; None if it holds no documents or is not well formed.

    ``limits`` are (comparison, threshold) of the rules on this measure, ``integers`` says that it
    is a count.
    """
    bins = _bins(histogram)
    if bins is None:
        return None
    edges, kept, dropped = _whole(*bins) if integers else bins
    rules = [
        (comparison, at, _border(comparison, at) if integers else at)
        for comparison, at in limits
        if math.isfinite(at)
    ]
    warp = _warp(edges)
    first, last = _window(edges, kept, dropped, [border for _, _, border in rules])
    low, high = warp(edges[first]), warp(edges[last])

    def across(at: float) -> float:
        position = (warp(at) - low) / (high - low)
        return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, position))

    peak = max(k + d for k, d in zip(kept, dropped, strict=True))
    titles = [_interval(*pair, integers) for pair in itertools.pairwise(edges)]
    bars = tuple(
        _bar(across(edges[i]), across(edges[i + 1]), kept[i], dropped[i], peak, titles[i])
        for i in range(first, last)
        if kept[i] + dropped[i]
    )
    ticks = _x_ticks(edges, first, last, integers)
    x_ticks = apart([Tick(across(at), compact(at)) for at in ticks])
    y_ticks = tuple(Tick(_up(at, peak), compact(at)) for at in _count_ticks(peak))
    return Histogram(bars, x_ticks, y_ticks, _thresholds(across, rules))


def _x_ticks(edges: Sequence[float], first: int, last: int, integers: bool) -> list[float]:
    """Where the axis from one edge to another has its ticks."""
    low, high = edges[first], edges[last]
    if _is_logarithmic(edges):
        start = low or edges[first + 1]
        return [0.0] * (not low) + log_ticks(start, high)
    if _is_mirrored(edges):
        unit = edges[len(edges) // 2 + 1]
        below = log_ticks(max(unit, -high), -low) if -low > unit else []
        above = log_ticks(max(unit, low), high) if high > unit else []
        return [-at for at in below[::-1]] + [0.0] * (low <= 0 <= high) + above
    return linear_ticks(low, high, 1.0 if integers else 0.0)


def _border(comparison: str, threshold: float) -> float:
    """The smallest count on the upper side of the threshold: count n is drawn from n to n + 1."""
    return math.floor(threshold) + 1.0 if comparison in (">", "<=") else float(math.ceil(threshold))


def _bins(histogram: Mapping[str, Any]) -> tuple[list[float], list[float], list[float]] | None:
    """(edges, kept, dropped) with finite edges, or None if there is nothing to draw."""
    raw, kept_raw, dropped_raw = (
        one if isinstance(one, list) else []
        for one in (histogram.get(key) for key in ("edges", "kept", "dropped"))
    )
    edges = [math.inf if edge is None else as_number(edge) for edge in raw]
    kept = [max(0.0, as_number(n) or 0.0) for n in kept_raw]
    dropped = [max(0.0, as_number(n) or 0.0) for n in dropped_raw]
    if not len(edges) - 1 == len(kept) == len(dropped) or not sum(kept) + sum(dropped):
        return None
    numbers = [edge for edge in edges if edge is not None]
    if len(numbers) != len(edges) or any(a >= b for a, b in itertools.pairwise(numbers)):
        return None
    # An open bin at an end is drawn as wide as its neighbour.
    if numbers[0] == -math.inf:
        numbers[0] = 2 * numbers[1] - numbers[2] if len(numbers) > 2 else -1.0
    if numbers[-1] == math.inf:
        before, at = (numbers[-3], numbers[-2]) if len(numbers) > 2 else (0.0, numbers[-2])
        ratio = at / before if before > 0 and _is_logarithmic(numbers[:-1]) else 0.0
        numbers[-1] = at * ratio if ratio else at + max(at - before, 1.0)
    return (numbers, kept, dropped) if all(map(math.isfinite, numbers)) else None


def _whole(
    edges: list[float], kept: list[float], dropped: list[float]
) -> tuple[list[float], list[float], list[float]]:
    """The same bins for counts: from an integer to an integer, without those that hold none."""
    ceilings = [float(math.ceil(edge)) for edge in edges]
    bins = [i for i in range(len(kept)) if ceilings[i] < ceilings[i + 1]]
    whole = [ceilings[i] for i in bins] + [ceilings[-1]]
    return whole, [kept[i] for i in bins], [dropped[i] for i in bins]


def _is_logarithmic(edges: Sequence[float]) -> bool:
    """Whether the bins grow: the last is over three times as wide as the first, none negative."""
    if len(edges) < 4 or edges[0] < 0:
        return False
    return edges[-1] - edges[-2] > 3 * (edges[1] - edges[0])


def _is_mirrored(edges: Sequence[float]) -> bool:
    """Whether the bins grow from zero to both sides alike."""
    middle = len(edges) // 2
    mirrored = all(low == -high for low, high in zip(edges, reversed(edges), strict=True))
    return mirrored and _is_logarithmic(edges[middle:])


def _warp(edges: Sequence[float]) -> Callable[[float], float]:
    """The scale of the axis: linear, or logarithmic from the first positive edge on."""
    if _is_mirrored(edges):
        upwards = _warp(edges[len(edges) // 2 :])
        return lambda at: math.copysign(upwards(abs(at)) - upwards(0.0), at)
    if not _is_logarithmic(edges):
        return lambda at: at
    start = edges[0] if edges[0] > 0 else edges[1]
    following = edges[edges.index(start) + 1]
    step = math.log(following / start)
    return lambda at: math.log(at / start) if at >= start else step * (at / start - 1)


def _window(
    edges: Sequence[float], kept: Sequence[float], dropped: Sequence[float], limits: Sequence[float]
) -> tuple[int, int]:
    """(first, last) edge to draw: all bins that hold documents, and all thresholds."""
    bins = len(kept)
    used = [i for i in range(bins) if kept[i] + dropped[i]]
    for limit in limits:
        at = sum(edge <= limit for edge in edges) - 1
        if 0 <= at <= bins:
            used += [max(0, at - 1), min(at, bins - 1)]
    first, last = min(used), max(used) + 1
    while last - first < min(_FEWEST_BINS, bins):
        if last < bins:
            last += 1
        if first > 0 and last - first < _FEWEST_BINS:
            first -= 1
    return first, last


def _up(documents: float, peak: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * math.sqrt(documents / peak)


def _interval(low: float, high: float, integers: bool) -> str:
    """A bin in words: "3", "3 to 5" (both inside) for counts, else "0.2 to 0.4"."""
    if not integers:
        return f"{value(low)} to {value(high)}"
    return value(low) if high - low == 1 else f"{value(low)} to {value(high - 1)}"


def _bar(x: float, right: float, kept: float, dropped: float, peak: float, interval: str) -> Bar:
    gap = min(1.0, (right - x) / 4)
    # A bin with one document among millions is still seen.
    height = max(1.5, BOTTOM - _up(kept + dropped, peak))
    kept_height = height * kept / (kept + dropped)
    return Bar(
        x=x,
        width=right - x - gap,
        kept_y=BOTTOM - kept_height,
        kept_height=kept_height,
        dropped_y=BOTTOM - height,
        dropped_height=height - kept_height,
        title=f"{interval}: {count(kept)} kept, {count(dropped)} dropped",
    )


def _thresholds(
    across: Callable[[float], float], rules: Sequence[tuple[str, float, float]]
) -> tuple[Threshold, ...]:
    """Lines for (comparison, threshold, where it is drawn)."""
    lines: list[Threshold] = []
    for comparison, limit, border in sorted(rules, key=lambda rule: (rule[2], rule[0])):
        x = across(border)
        below = comparison in ("<", "<=")
        row = sum(abs(x - line.x) < _LABEL_ROOM for line in lines) % 2
        starts = x < (LEFT + RIGHT) / 2
        lines.append(
            Threshold(
                x=x,
                label=f"{comparison} {compact(limit)}",
                label_y=TOP - 8 + 11 * row,
                anchor="start" if starts else "end",
                label_x=x + 4 if starts else x - 4,
                dropped_x=LEFT if below else x,
                dropped_width=x - LEFT if below else RIGHT - x,
            )
        )
    return tuple(lines)


def _count_ticks(peak: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10(peak))
    top = max(step * power for step in (1, 2, 5) if step * power <= peak)
    return [nice(top / 8), top] if top >= 8 else [top]
