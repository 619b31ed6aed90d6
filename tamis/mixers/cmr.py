"""The critical mixture ratio of continual pre-training: the largest share of new data with which a
model does not lose what it knew.

Source: Gu et al. 2024 (arXiv 2407.17467). R is the share of the new domain, T the tokens of the
continued training (their unit: 0.2 billion).

    at a fixed T     L(R) = a R^s + b                                       general and domain loss
    at a fixed R     dL_dom(T) = a1 T^s1 + b1,  dL_gen(T) = a2 T^s2 + a3 T^s3 + b2
    over T           R_CMR(T) = a4 T^s4 + b3

Near a general share of 0 general losses rise faster than the power of R, and the r-term of D-CPT
fits better, E + C / (1 - R + e)^g: the form with the smaller leave-one-out error is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr

from tamis.mixers.mixer import LeftOut, Mixer, Observation, Phase
from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import RecipeError, TamisError

_EXPONENTS = np.concatenate([np.linspace(-3, -0.02, 60), np.linspace(0.02, 8, 160)])
_OFFSETS = np.concatenate([[0.0], np.geomspace(1e-3, 0.3, 25)])
_POWERS = np.geomspace(0.02, 4, 40)
_FEWEST = 4


@dataclass(frozen=True)
class PowerLaw:
    """scale x^exponent + constant"""

    scale: float
    exponent: float
    constant: float

    def __call__(self, x: Float64 | float) -> Float64:
        return np.asarray(self.scale * np.asarray(x, np.float64) ** self.exponent + self.constant)


@dataclass(frozen=True)
class ReplayLaw:
    """constant + scale / (1 - R + offset)^power: the r-term of D-CPT in the general share."""

    scale: float
    power: float
    offset: float
    constant: float

    def __call__(self, ratio: Float64 | float) -> Float64:
        general = 1 - np.asarray(ratio, np.float64) + self.offset
        return np.asarray(self.constant + self.scale * general**-self.power)


RatioLaw = PowerLaw | ReplayLaw


def fit_power_law(x: Float64, y: Float64) -> PowerLaw:
    """Least squares: for an exponent the other two are linear, so only it is searched for."""
    from scipy.optimize import minimize_scalar

    def squares(exponent: float) -> float:
        return _linear(x**exponent, y)[1]

    around = _EXPONENTS[int(np.argmin([squares(one) for one in _EXPONENTS]))]
    width = 0.2 if around > 0 else 0.1
    found = minimize_scalar(
        squares, bounds=(around - width, around + width), method="bounded", options={"xatol": 1e-9}
    )
    exponent = float(found.x)
    (scale, constant), _ = _linear(x**exponent, y)
    return PowerLaw(scale, exponent, constant)


def fit_replay_law(ratio: Float64, y: Float64) -> ReplayLaw:
    """Least squares over a grid of offset and power, then nearby; scale and constant are linear.
    Only laws that rise with R (scale above 0) are considered.
    """
    from scipy.optimize import minimize

    def squares(logs: Float64) -> float:
        offset, power = np.exp(logs)
        (scale, _), error = _linear((1 - ratio + offset) ** -power, y)
        return error if scale > 0 else error + 1.0

    smallest = 1e-6 if (ratio < 1).all() else 1e-3
    offsets, powers = np.meshgrid(np.maximum(_OFFSETS, smallest), _POWERS, indexing="ij")
    features = (1 - ratio + offsets[..., None]) ** -powers[..., None]
    centred = features - features.mean(-1, keepdims=True)
    along = centred @ (y - y.mean())
    # What is left of the squares, with the best scale: the largest that is explained.
    explained = np.where(along > 0, along**2 / (centred**2).sum(-1), 0.0)
    at = np.unravel_index(int(explained.argmax()), explained.shape)
    best = np.log([offsets[at], powers[at]])
    limits = [(np.log(smallest), 0.0), (np.log(0.01), np.log(8))]
    found = minimize(
        squares, best, method="Nelder-Mead", bounds=limits, options={"xatol": 1e-8, "fatol": 1e-16}
    )
    offset, power = np.exp(found.x)
    (scale, constant), _ = _linear((1 - ratio + offset) ** -power, y)
    return ReplayLaw(scale, float(power), float(offset), constant)


def _linear(feature: Float64, y: Float64) -> tuple[tuple[float, float], float]:
    """(scale, constant) of y = scale feature + constant, and the sum of squares that is left."""
    centred = feature - feature.mean()
    spread = float(centred @ centred)
    scale = float(centred @ y) / spread if spread > 0 else 0.0
    constant = float(y.mean() - scale * feature.mean())
    residual = y - scale * feature - constant
    return (scale, constant), float(residual @ residual)


def fit_ratio_law(
    ratio: Float64, losses: Float64, form: Literal["power", "replay", "best"] = "best"
) -> tuple[RatioLaw, float]:
    """The law of losses at a fixed T, and its largest leave-one-out error.

    Raises:
        TamisError: with fewer than four ratios.
    """
    if len(np.unique(ratio)) < _FEWEST:
        raise TamisError(
            f"a law of the ratio needs runs at {_FEWEST} ratios or more, there are "
            f"{len(np.unique(ratio))}"
        )
    fits: list[Callable[[Float64, Float64], RatioLaw]] = []
    if form in ("power", "best"):
        fits.append(fit_power_law)
    if form in ("replay", "best"):
        fits.append(fit_replay_law)
    found = []
    for fit in fits:
        errors = [
            abs(float(fit(np.delete(ratio, row), np.delete(losses, row))(ratio[row])) - losses[row])
            for row in range(len(ratio))
        ]
        found.append((max(errors), fit(ratio, losses)))
    error, law = min(found, key=lambda one: one[0])
    return law, error


def largest_ratio(law: RatioLaw, limit: float) -> float | None:
    """The largest R in [0, 1] with L(R) <= limit; None if there is none."""
    ratios = np.linspace(0, 1, 4097)
    with np.errstate(divide="ignore"):
        within = law(ratios) <= limit
    if not within.any():
        return None
    at = int(np.flatnonzero(within)[-1])
    if at == len(ratios) - 1:
        return 1.0
    low, high = ratios[at], ratios[at + 1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(law(middle)) <= limit else (low, middle)
    return float(low)


def turning_point(
    domain: tuple[float, float],
    general: tuple[float, float, float, float],
    multiplier: float,
    most: float = 1e6,
) -> float | None:
    """T0, from which on more training lowers dL_dom + multiplier dL_gen: the largest root of

        a1 s1 T^(s1 - 1) + multiplier (a2 s2 T^(s2 - 1) + a3 s3 T^(s3 - 1))

    None if there is none up to ``most``. ``domain`` is (a1, s1), ``general`` (a2, s2, a3, s3). The
    general loss rises before it and falls after it; the fixed point that the paper iterates can be
    nearly singular, so the root is bracketed. A large multiplier gives the turning point of the
    general loss alone.
    """
    from scipy.optimize import brentq

    a1, s1 = domain
    a2, s2, a3, s3 = general

    def slope(log_t: float) -> float:
        t = np.exp(log_t)
        rest = a2 * s2 * t ** (s2 - 1) + a3 * s3 * t ** (s3 - 1)
        return float(a1 * s1 * t ** (s1 - 1) / multiplier + rest)

    places = np.linspace(np.log(1e-3), np.log(most), 4000)
    signs = np.sign([slope(one) for one in places])
    changes = np.flatnonzero(np.diff(signs) != 0)
    if not len(changes):
        return None
    last = changes[-1]
    return float(np.exp(brentq(slope, places[last], places[last + 1], xtol=1e-13)))


def critical_ratio(law: PowerLaw, tokens: float) -> float:
    """R_CMR(T), at most 1; 0 where the law is below it: no share is feasible yet."""
    return float(np.clip(law(tokens), 0.0, 1.0))


class CriticalRatio(Mixer):
    """The largest share of a new source at which the loss on the old does not rise above a limit.

    Runs (or takes from a table) continued trainings of the same model at some shares, fits the old
    loss as a function of the share, and solves for the limit. Losses should be those at the end:
    early on general losses rise and then recover.
    """

    kind: ClassVar[str] = "cmr"

    domain: str
    """The source that is new; the other one is what the model knows."""
    base: float
    """The loss on the other source before."""
    tolerance: float = Field(default=0.05, ge=0)
    """By how much it may rise, in nats."""
    relative: bool = False
    """Whether the tolerance is a share of ``base``."""
    ratios: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75)
    form: Literal["power", "replay", "best"] = "best"
    bootstraps: int = Field(default=200, ge=0)

    _ratios: list[float] = PrivateAttr(default_factory=list)
    _losses: list[dict[str, float]] = PrivateAttr(default_factory=list)
    _found: tuple[RatioLaw, float] | None = PrivateAttr(default=None)

    def start(self, problem: Problem) -> Self:
        if len(problem.sources) != 2 or self.domain not in problem.names:
            raise RecipeError(
                f"cmr decides between two sources of which one is {self.domain}, not between "
                f"{', '.join(problem.names)}"
            )
        super().start(problem)
        if self.general not in problem.evaluations:
            raise RecipeError(f"targets: cmr decides by the loss on {self.general}; name it, too")
        self._ratios, self._losses, self._found = [], [], None
        return self

    @property
    def general(self) -> str:
        """The source that the model knows."""
        return next(name for name in self.problem.names if name != self.domain)

    def use(self, ratios: Float64, losses: Sequence[Mapping[str, float]]) -> Self:
        """Take the runs of a table."""
        self._ratios, self._losses = [float(one) for one in ratios], [dict(one) for one in losses]
        self._fit()
        return self

    def propose(self) -> Phase | None:
        number = len(self._ratios)
        if self._found is not None or number >= len(self.ratios):
            return None
        share = self.ratios[number]
        mixture = {self.domain: share, self.general: 1 - share}
        return Phase(f"ratio {share:g}", mixture, 1.0, "proxy", f"ratio {number + 1}")

    def learn(self, phase: Phase, observation: Observation) -> None:
        self._ratios.append(phase.mixture[self.domain])
        self._losses.append(dict(observation.after))
        if len(self._ratios) == len(self.ratios):
            self._fit()

    def _fit(self) -> None:
        losses = np.array([one[self.general] for one in self._losses])
        self._found = fit_ratio_law(np.array(self._ratios), losses, self.form)

    @property
    def limit(self) -> float:
        """The largest loss on the old source that is allowed."""
        return self.base + self.tolerance * (self.base if self.relative else 1.0)

    def ratio(self) -> float:
        """The critical ratio.

        Raises:
            TamisError: before the runs are there, or if no share keeps the limit.
        """
        if self._found is None:
            raise TamisError(f"cmr has seen {len(self._ratios)} of {len(self.ratios)} runs")
        found = largest_ratio(self._found[0], self.limit)
        if found is None:
            raise TamisError(
                f"no share of {self.domain} keeps the loss on {self.general} at "
                f"{self.limit:.4g}: raise tolerance, or train longer"
            )
        return found

    def interval(self) -> tuple[float, float]:
        """95 % of the ratios when the residuals of the fit are drawn again."""
        assert self._found is not None
        law, error = self._found
        ratios = np.array(self._ratios)
        losses = np.array([one[self.general] for one in self._losses])
        form: Literal["power", "replay"] = "power" if isinstance(law, PowerLaw) else "replay"
        fit = fit_power_law if form == "power" else fit_replay_law
        # With as many parameters as runs, nearly, residuals are too small: what a left-out run is
        # missed by is the better measure.
        scale = max(float(np.std(law(ratios) - losses)), error / 2)
        random = np.random.default_rng(self.problem.seed)
        found = []
        for _ in range(self.bootstraps):
            drawn = losses + random.normal(scale=scale, size=len(losses))
            ratio = largest_ratio(fit(ratios, drawn), self.limit)
            found.append(0.0 if ratio is None else ratio)
        if not found:
            return self.ratio(), self.ratio()
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)

    def shares(self) -> Float64:
        ratio = self.ratio()
        return np.array(
            [ratio if name == self.domain else 1 - ratio for name in self.problem.names]
        )

    def expected(self, mixtures: Float64) -> Float64:
        shares = mixtures[:, self.problem.names.index(self.domain)]
        return np.stack([fit[0](shares) for fit in self._fits()], 1)

    def left_out(self) -> LeftOut:
        ratios, measured = np.array(self._ratios), self._measured()
        predicted = np.empty_like(measured)
        for number, (law, _) in enumerate(self._fits()):
            fit = fit_power_law if isinstance(law, PowerLaw) else fit_replay_law
            for row in range(len(ratios)):
                rest = fit(np.delete(ratios, row), np.delete(measured[:, number], row))
                predicted[row, number] = float(rest(ratios[row]))
        new = self.problem.names.index(self.domain)
        mixtures = np.stack([1 - ratios, ratios] if new else [ratios, 1 - ratios], 1)
        return LeftOut(mixtures, measured, predicted)

    def _measured(self) -> Float64:
        """Losses, (runs, evaluations)."""
        return np.array([[one[name] for name in self.problem.evaluations] for one in self._losses])

    def _fits(self) -> list[tuple[RatioLaw, float]]:
        """The law of each evaluation; others than the old source's need not rise."""
        assert self._found is not None
        ratios = np.array(self._ratios)
        return [
            self._found if name == self.general else fit_ratio_law(ratios, losses, "power")
            for name, losses in zip(self.problem.evaluations, self._measured().T, strict=True)
        ]

    def report(self) -> dict[str, Any]:
        assert self._found is not None
        law, error = self._found
        ratio, found = self.ratio(), []
        if ratio >= 1:
            found.append(f"even {self.domain} alone keeps the limit")
        if not min(self._ratios) <= ratio <= max(self._ratios):
            found.append(
                f"the ratio {ratio:.3g} is outside of what was run ({min(self._ratios):g} to "
                f"{max(self._ratios):g})"
            )
        low, high = self.interval()
        return {
            "ratio": ratio,
            "interval": [low, high],
            "law": {"form": type(law).__name__, "left-out error": error, **vars(law)},
            "warnings": found,
        }
