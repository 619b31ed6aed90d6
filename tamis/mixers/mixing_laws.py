"""Laws: the loss on one evaluation as a function of the proportions, fitted on runs.

    log_linear     L(p) = c + exp(sum_j t_j p_j)                            Data Mixing Laws
    offset_power   L(p) = w + a (p_own + e)^-b + sum_{j != own} d_j p_j     the r-term of D-CPT
    quadratic_log  L(p) = sum_j a_j p_j + sum_{j<=k} b_jk p_j p_k + sum_j c_j log(p_j + 0.01)

``log_linear`` is that of Ye et al. 2024 (arXiv 2403.16952) and of Olmix (arXiv 2602.12237): a
factor in front of the exponential would be a constant added to all t_j, as the shares sum to 1. It
is finite at p = 0, where true losses often rise like -log p; there the others are better. So each
evaluation takes the form whose leave-one-out error is smallest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np

from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import TamisError

Form = Literal["log_linear", "offset_power", "quadratic_log"]
FORMS: tuple[Form, ...] = ("log_linear", "offset_power", "quadratic_log")
HUBER = 0.02
"""Residuals above it count linearly (Data Mixing Laws: 0.02 to 0.05)."""
_RIDGE = 1e-6
_OFFSETS, _POWERS = (0.002, 0.01, 0.03, 0.1), (0.05, 0.2, 0.5, 1.0)
_LOG_OFFSET = 0.01


class Law:
    """A fitted law of one evaluation."""

    form: Form
    error: float
    """Mean absolute error of the runs, each predicted from the others."""

    @abstractmethod
    def predict(self, mixtures: Float64) -> Float64:
        """Losses (n,) of mixtures (n, m)."""

    @abstractmethod
    def gradient(self, mixture: Float64) -> Float64:
        """dL / dp, (m,), of a mixture (m,)."""


@dataclass(frozen=True)
class LogLinear(Law):
    """c + exp(t . p)"""

    floor: float
    """c"""
    slopes: Float64
    """t, (m,)"""
    error: float = np.nan
    form: Form = "log_linear"

    def predict(self, mixtures: Float64) -> Float64:
        return np.asarray(self.floor + np.exp(mixtures @ self.slopes))

    def gradient(self, mixture: Float64) -> Float64:
        return np.asarray(np.exp(mixture @ self.slopes) * self.slopes)


@dataclass(frozen=True)
class OffsetPower(Law):
    """w + a (p_own + e)^-b + sum of d_j p_j"""

    own: int
    offset: float
    power: float
    constant: float
    scale: float
    linear: Float64
    """d, (m,), 0 for the source itself."""
    error: float = np.nan
    form: Form = "offset_power"

    def predict(self, mixtures: Float64) -> Float64:
        curve = (mixtures[:, self.own] + self.offset) ** -self.power
        return np.asarray(self.constant + self.scale * curve + mixtures @ self.linear)

    def gradient(self, mixture: Float64) -> Float64:
        slope = self.linear.copy()
        steep = (mixture[self.own] + self.offset) ** (-self.power - 1)
        slope[self.own] -= self.scale * self.power * steep
        return slope


@dataclass(frozen=True)
class QuadraticLog(Law):
    """Linear in its features."""

    linear: Float64
    products: Float64
    """b, (m, m), upper triangle."""
    logs: Float64
    error: float = np.nan
    form: Form = "quadratic_log"

    def predict(self, mixtures: Float64) -> Float64:
        squares = np.einsum("nj,jk,nk->n", mixtures, self.products, mixtures)
        logs = np.log(mixtures + _LOG_OFFSET)
        return np.asarray(mixtures @ self.linear + squares + logs @ self.logs)

    def gradient(self, mixture: Float64) -> Float64:
        both = self.products + self.products.T
        return np.asarray(self.linear + both @ mixture + self.logs / (mixture + _LOG_OFFSET))


def fit_law(
    mixtures: Float64, losses: Float64, forms: Sequence[Form] = FORMS, own: int | None = None
) -> Law:
    """The law of the form with the smallest leave-one-out error.

    Args:
        mixtures: (n, m); losses: (n,).
        own: the source whose loss it is; by default (an evaluation that is no source) the one with
            which the power law predicts best.

    Raises:
        TamisError: if there are too few runs for each of the forms.
    """
    sources = mixtures.shape[1]
    laws: list[Law] = []
    for form in forms:
        if len(mixtures) <= parameters(form, sources):
            continue
        if form == "log_linear":
            laws.append(fit_log_linear(mixtures, losses))
        elif form == "offset_power":
            owners = range(sources) if own is None else (own,)
            laws += [fit_offset_power(mixtures, losses, one) for one in owners]
        else:
            laws.append(fit_quadratic_log(mixtures, losses))
    if not laws:
        fewest = min(parameters(form, sources) for form in forms) + 1
        raise TamisError(
            f"{len(mixtures)} runs are too few for {sources} sources: {' or '.join(forms)} needs "
            f"at least {fewest}"
        )
    return min(laws, key=lambda law: law.error)


def parameters(form: Form, sources: int) -> int:
    """How many numbers a law has that are fitted; more runs than that are needed."""
    if form == "log_linear":
        return sources + 1
    if form == "offset_power":
        return sources + 1
    return 2 * sources + sources * (sources + 1) // 2


def fit_log_linear(mixtures: Float64, losses: Float64) -> LogLinear:
    """Huber's loss, from the best of several starts.

    For a given c the slopes are those of a regression of log(L - c) on p; the starts are the best
    of 40 values of c below the smallest loss.
    """
    law = _log_linear(mixtures, losses, _log_linear_starts(mixtures, losses))
    errors = np.abs(left_out(law, mixtures, losses) - losses)
    return LogLinear(law.floor, law.slopes, float(errors.mean()))


def left_out(law: Law, mixtures: Float64, losses: Float64) -> Float64:
    """What the same form, fitted on the other runs, says of each run (n,)."""
    if isinstance(law, LogLinear):
        start = np.append(np.log(max(law.floor, 1e-12)), law.slopes)
        fits = [
            _log_linear(*_without(mixtures, losses, row), [start]) for row in range(len(losses))
        ]
        rows = zip(fits, mixtures, strict=True)
        return np.array([float(one.predict(row[None])[0]) for one, row in rows])
    if isinstance(law, OffsetPower):
        features = _power_features(mixtures, law.own, law.offset, law.power)
    else:
        features = _quadratic_features(mixtures)
    return np.asarray(losses - _ridge(features, losses)[1])


def _without(mixtures: Float64, losses: Float64, row: int) -> tuple[Float64, Float64]:
    return np.delete(mixtures, row, 0), np.delete(losses, row)


def _log_linear_starts(mixtures: Float64, losses: Float64) -> list[Float64]:
    """(log c, t), the five of the grid that fit best."""
    low, spread = float(losses.min()), float(np.ptp(losses)) or 1e-3
    starts: list[tuple[float, Float64]] = []
    below = np.concatenate([np.geomspace(1e-3, 1, 20) * spread, np.geomspace(1.2, 30, 20) * spread])
    for gap in below:
        floor = low - gap
        if floor <= 0:
            continue
        slopes = np.linalg.lstsq(mixtures, np.log(losses - floor), rcond=None)[0]
        residual = floor + np.exp(mixtures @ slopes) - losses
        starts.append((float(residual @ residual), np.append(np.log(floor), slopes)))
    starts.sort(key=lambda one: one[0])
    return [start for _, start in starts[:5]]


def _log_linear(mixtures: Float64, losses: Float64, starts: Sequence[Float64]) -> LogLinear:
    from scipy.optimize import least_squares

    def residuals(x: Float64) -> Float64:
        return np.asarray(np.exp(x[0]) + np.exp(np.minimum(mixtures @ x[1:], 50)) - losses)

    def jacobian(x: Float64) -> Float64:
        curve = np.exp(np.minimum(mixtures @ x[1:], 50))
        return np.column_stack([np.full(len(losses), np.exp(x[0])), curve[:, None] * mixtures])

    found = [
        least_squares(residuals, start, jacobian, loss="huber", f_scale=HUBER, max_nfev=300)
        for start in starts
    ]
    best = min(found, key=lambda one: float(one.cost))
    return LogLinear(float(np.exp(best.x[0])), np.asarray(best.x[1:]))


def fit_offset_power(mixtures: Float64, losses: Float64, own: int) -> OffsetPower:
    """Ridge regression for each offset and power of a small grid; the pair whose leave-one-out
    error is smallest. The last of the other sources is left out, as the shares sum to 1.
    """
    best: tuple[float, float, float, Float64] | None = None
    for offset in _OFFSETS:
        for power in _POWERS:
            features = _power_features(mixtures, own, offset, power)
            weights, errors = _ridge(features, losses)
            error = float(np.abs(errors).mean())
            if best is None or error < best[0]:
                best = error, offset, power, weights
    assert best is not None
    error, offset, power, weights = best
    linear = np.zeros(mixtures.shape[1])
    linear[_others(mixtures, own)] = weights[2:]
    return OffsetPower(own, offset, power, float(weights[0]), float(weights[1]), linear, error)


def _others(mixtures: Float64, own: int) -> list[int]:
    return [one for one in range(mixtures.shape[1]) if one != own][:-1]


def _power_features(mixtures: Float64, own: int, offset: float, power: float) -> Float64:
    curve = (mixtures[:, own] + offset) ** -power
    return np.column_stack([np.ones(len(mixtures)), curve, mixtures[:, _others(mixtures, own)]])


def fit_quadratic_log(mixtures: Float64, losses: Float64) -> QuadraticLog:
    """Ridge regression."""
    count = mixtures.shape[1]
    pairs = list(combinations_with_replacement(range(count), 2))
    weights, errors = _ridge(_quadratic_features(mixtures), losses)
    error = float(np.abs(errors).mean())
    products = np.zeros((count, count))
    for (j, k), weight in zip(pairs, weights[count:], strict=False):
        products[j, k] = weight
    return QuadraticLog(weights[:count], products, weights[count + len(pairs) :], error)


def _quadratic_features(mixtures: Float64) -> Float64:
    pairs = combinations_with_replacement(range(mixtures.shape[1]), 2)
    columns = [mixtures[:, j] * mixtures[:, k] for j, k in pairs]
    return np.column_stack([mixtures, *columns, np.log(mixtures + _LOG_OFFSET)])


def _ridge(features: Float64, losses: Float64) -> tuple[Float64, Float64]:
    """Weights, and the leave-one-out errors (n,): residual / (1 - leverage)."""
    gram = features.T @ features + _RIDGE * np.eye(features.shape[1])
    inverse = np.linalg.inv(gram)
    weights = inverse @ features.T @ losses
    leverage = np.einsum("nj,jk,nk->n", features, inverse, features)
    errors = (losses - features @ weights) / np.maximum(1 - leverage, 1e-9)
    return weights, errors


def optimum_of_two(scale: tuple[float, float], slope: tuple[float, float]) -> float:
    """The share p of the first of two sources that makes L1 + L2 smallest, in closed form:

        L1 = c1 + exp(b1 - k1 p), L2 = c2 + exp(b2 - k2 (1 - p)), k > 0
        p* = (k2 + b1 - b2 + ln(k1 / k2)) / (k1 + k2)

    within 0 and 1; ``scale`` is b, ``slope`` k. The floors c do not matter.
    """
    (b1, b2), (k1, k2) = scale, slope
    share = (k2 + b1 - b2 + np.log(k1 / k2)) / (k1 + k2)
    return float(np.clip(share, 0.0, 1.0))
