"""What the page of ``tamis mix`` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from tamis.mixers.from_runs import MixingLaw
from tamis.mixers.mixer import LeftOut
from tamis.mixers.page import drawings
from tamis.mixers.page.drawings import Parallel, Plane, Triangle
from tamis.mixers.simplex import Float64

if TYPE_CHECKING:
    from tamis.mixers.mix import Mixed

SOURCES, RUNS, COLOURS = 60, 2000, 8
STEP = 0.01
"""One more percent, of the whole."""


@dataclass(frozen=True)
class Share:
    """A source and what it gets."""

    name: str
    share: float
    low: float | None
    high: float | None
    allowed: str
    epochs: float | None


@dataclass(frozen=True)
class Loss:
    """What is expected of a loss."""

    name: str
    weight: float
    expected: float
    low: float
    high: float
    other: float


@dataclass(frozen=True)
class Marginal:
    """What a source is worth at the answer."""

    name: str
    gradient: float | None
    changes: tuple[float, ...]
    """Of each loss, with one more percent."""
    total: float


def contents(mixed: Mixed, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of the template."""
    seen = _readable(mixed.mixer.left_out())
    answer = mixed.problem.vector(mixed.proportions)
    kind = mixed.mixer.kind
    return {
        "run": str(settings.get("output") or "mix"),
        "manifest": {"tamis": version("tamis")},
        "draw": drawings,
        "verdict": verdict(mixed),
        "why": why(mixed),
        "warnings": mixed.warnings,
        "kind": kind,
        "runs": None if seen is None else len(seen.mixtures),
        "shares": _shares(mixed),
        "has_intervals": mixed.intervals is not None,
        "losses": _losses(mixed),
        "triangle": _triangle(mixed, seen, answer),
        "curve": _curve(mixed, seen, answer),
        "parallel": _parallel(mixed, seen, answer),
        "scatter": _scatter(mixed, seen),
        "error": _error(mixed, seen),
        "names": mixed.problem.names,
        "interest": mixed.problem.names[_of_interest(mixed)],
        "evaluations": mixed.problem.evaluations,
        "marginals": _marginals(mixed, answer),
        "configuration": yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True),
        "commands": commands(mixed, str(settings.get("output") or "")),
    }


def verdict(mixed: Mixed) -> str:
    """The proportions, in one sentence."""
    ordered = sorted(mixed.proportions.items(), key=lambda one: -one[1])
    named = [f"{share:.1%} {name}" for name, share in ordered[:4] if share >= 0.0005]
    if len(ordered) > 4:
        named.append(f"{sum(share for _, share in ordered[4:]):.1%} others")
    *front, last = named
    return f"Train on {', '.join(front)} and {last}." if front else f"Train on {last} alone."


def why(mixed: Mixed) -> str:
    """What is expected of it."""
    losses = _losses(mixed)
    if not losses:
        expected = mixed.mixer.expected(mixed.problem.vector(mixed.proportions)[None])
        if expected is None:
            return f"By {mixed.mixer.kind}, which expects nothing of losses."
        pairs = zip(expected[0].tolist(), mixed.problem.evaluations, strict=True)
        named = " and ".join(f"{loss:.4f} on {name}" for loss, name in pairs)
        return f"By {mixed.mixer.kind}, which expects a loss of {named}."
    ours, other = (sum(one.weight * value for one, value in pairs) for pairs in (
        [(one, one.expected) for one in losses], [(one, one.other) for one in losses],
    ))  # fmt: skip
    said = f"A weighted loss of {ours:.4f} is expected, against {other:.4f} with {_else(mixed)}."
    if mixed.prediction is not None and not mixed.prediction.in_hull:
        said += " No run was near it: what is expected is a guess."
    return said


def _else(mixed: Mixed) -> str:
    known = all(one.tokens is not None for one in mixed.problem.sources)
    return "natural proportions" if known else "uniform proportions"


def commands(mixed: Mixed, output: str) -> list[tuple[str, str]]:
    """(what it is for, command)."""
    if not output:
        return []
    lines = [f"{name}: {share:.4g}" for name, share in list(mixed.proportions.items())[:SOURCES]]
    said = "proportion of each source in the configuration of a training"
    return [(f"The {said}", "; ".join(lines))]


def _shares(mixed: Mixed) -> list[Share]:
    problem = mixed.problem
    low, high = problem.bounds()
    found = []
    for one, least, most in zip(problem.sources, low, high, strict=True):
        share = mixed.proportions[one.name]
        around = (mixed.intervals or {}).get(one.name)
        limits = [f"at least {least:.1%}"] if least > 0 else []
        limits += [f"at most {most:.1%}"] if most < 1 else []
        epochs = None
        if problem.budget is not None and one.tokens is not None:
            epochs = share * problem.budget / one.tokens
        low_end, high_end = (None, None) if around is None else around
        found.append(Share(one.name, share, low_end, high_end, ", ".join(limits), epochs))
    return sorted(found, key=lambda one: -one.share)[:SOURCES]


def _losses(mixed: Mixed) -> list[Loss]:
    expected, other = mixed.prediction, mixed.natural
    if expected is None or other is None:
        return []
    weights = mixed.problem.target_weights().tolist()
    return [
        Loss(name, weight, expected.losses[name], expected.low[name], expected.high[name],
             other.losses[name])
        for name, weight in zip(mixed.problem.evaluations, weights, strict=True)
    ][:SOURCES]  # fmt: skip


def _readable(seen: LeftOut | None) -> LeftOut | None:
    if seen is None or not len(seen.mixtures):
        return None
    return LeftOut(seen.mixtures[:RUNS], seen.measured[:RUNS], seen.predicted[:RUNS])


def _titles(mixed: Mixed, seen: LeftOut) -> list[str]:
    totals = seen.measured @ mixed.problem.target_weights()
    return [
        f"run {number + 1}: {drawings.in_words(mixed.problem.names, row)}; loss {total:.4f}"
        for number, (row, total) in enumerate(zip(seen.mixtures, totals.tolist(), strict=True))
    ]


def _weighted(mixed: Mixed, mixtures: Float64) -> Float64:
    found = mixed.mixer.expected(mixtures)
    assert found is not None
    return np.asarray(found @ mixed.problem.target_weights())


def _triangle(mixed: Mixed, seen: LeftOut | None, answer: Float64) -> Triangle | None:
    if len(answer) != 3 or seen is None:
        return None
    names = mixed.problem.names
    return drawings.triangle(
        names, lambda mixtures: _weighted(mixed, mixtures), seen.mixtures, _titles(mixed, seen),
        answer,
    )  # fmt: skip


def _curve(mixed: Mixed, seen: LeftOut | None, answer: Float64) -> Plane | None:
    """Of two sources: each loss over the share of the one, as its difference from the mean."""
    if len(answer) != 2 or seen is None:
        return None
    at = _of_interest(mixed)
    shares = np.linspace(seen.mixtures[:, at].min(), seen.mixtures[:, at].max(), 80)
    mixtures = np.stack([shares, 1 - shares] if at == 0 else [1 - shares, shares], 1)
    expected = mixed.mixer.expected(mixtures)
    if expected is None or not np.isfinite(expected).all():
        return None
    count = len(mixed.problem.evaluations)
    middle = seen.measured.mean(0)
    curves = [(number, shares, expected[:, number] - middle[number]) for number in range(count)]
    x = np.tile(seen.mixtures[:, at], count)
    colours = np.repeat(np.arange(count), len(seen.mixtures)).tolist()
    return drawings.plane(
        x, (seen.measured - middle).T.ravel(), colours, _titles(mixed, seen) * count, curves,
        upright=float(answer[at]),
    )  # fmt: skip


def _of_interest(mixed: Mixed) -> int:
    domain = getattr(mixed.mixer, "domain", mixed.problem.names[0])
    return mixed.problem.names.index(domain)


def _parallel(mixed: Mixed, seen: LeftOut | None, answer: Float64) -> Parallel | None:
    if len(answer) < 4 or seen is None:
        return None
    totals = seen.measured @ mixed.problem.target_weights()
    names = mixed.problem.names
    return drawings.parallel(names, seen.mixtures, totals, _titles(mixed, seen), answer)


def _scatter(mixed: Mixed, seen: LeftOut | None) -> Plane | None:
    """Predictions of left-out runs over what was measured, both less the mean of the runs: losses
    of different height in one drawing.
    """
    pairs = _pairs(seen)
    if seen is None or not len(pairs):
        return None
    rows, columns = pairs.T
    names = mixed.problem.evaluations
    measured, predicted = seen.measured[rows, columns], seen.predicted[rows, columns]
    titles = [
        f"run {row + 1}, {names[column]}: measured {a:.4f}, predicted {b:.4f}"
        for row, column, a, b in zip(rows, columns, measured, predicted, strict=True)
    ]
    middle = seen.measured.mean(0)[columns]
    measured, predicted = measured - middle, predicted - middle
    ends = np.array([min(measured.min(), predicted.min()), max(measured.max(), predicted.max())])
    colours = [min(int(one), COLOURS) for one in columns]
    return drawings.plane(measured, predicted, colours, titles, [(-1, ends, ends)], equal=True)


def _pairs(seen: LeftOut | None) -> Any:
    """(run, evaluation) of every prediction."""
    if seen is None:
        return np.zeros((0, 2), np.intp)
    return np.argwhere(np.isfinite(seen.predicted) & np.isfinite(seen.measured))


def _error(mixed: Mixed, seen: LeftOut | None) -> list[tuple[str, float, float]]:
    """(evaluation, mean error of left-out runs, that of the mean of all runs)."""
    if seen is None or not len(_pairs(seen)):
        return []
    missed = np.nanmean(np.abs(seen.predicted - seen.measured), 0)
    spread = np.abs(seen.measured - seen.measured.mean(0)).mean(0)
    return list(zip(mixed.problem.evaluations, missed.tolist(), spread.tolist(), strict=True))


def _marginals(mixed: Mixed, answer: Float64) -> list[Marginal]:
    """One more percent of a source, taken from the others as they stand."""
    now = mixed.mixer.expected(answer[None])
    if now is None:
        return []
    slope = _centred_gradient(mixed, answer)
    found = []
    for number, name in enumerate(mixed.problem.names):
        if answer[number] > 1 - STEP:
            continue
        more = answer * (1 - STEP / (1 - answer[number]))
        more[number] = answer[number] + STEP
        change = mixed.mixer.expected(more[None])
        assert change is not None
        changes = (change - now)[0]
        total = float(changes @ mixed.problem.target_weights())
        gradient = None if slope is None else float(slope[number])
        found.append(Marginal(name, gradient, tuple(changes.tolist()), total))
    return sorted(found, key=lambda one: one.total)[:SOURCES]


def _centred_gradient(mixed: Mixed, answer: Float64) -> Float64 | None:
    """As shares sum to 1, only how far a slope is from the mean of all means something."""
    if not isinstance(mixed.mixer, MixingLaw):
        return None
    slope = mixed.mixer.gradient(answer)
    return np.asarray(slope - answer @ slope)
