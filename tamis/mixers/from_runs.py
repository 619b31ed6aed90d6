"""Mixers that learn from many runs of which each had other proportions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr

from tamis.mixers import designs
from tamis.mixers.mixer import LeftOut, Mixer, Observation, Phase, Prediction
from tamis.mixers.mixing_laws import FORMS, Form, Law, LogLinear, fit_law, left_out, parameters
from tamis.mixers.optimum import minimise
from tamis.mixers.problem import Problem
from tamis.mixers.runs import Runs
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import TamisError

_CORNER = 0.97
_APART = 0.95


class FromRuns(Mixer):
    """Asks for proxy runs of a design, or takes the runs of a table, and fits."""

    runs: int = Field(default=32, ge=1)
    """Proxy runs; nothing is asked for if there is a table."""
    design: Literal["dirichlet", "swarm", "faces", "lattice"] = "faces"
    """Mixtures from Dirichlet(1); around natural proportions as RegMix has them; Dirichlet(1) with
    one run near each corner; or all multiples of 1/``parts``.
    """
    parts: int = Field(default=8, ge=2)

    _mixtures: Float64 | None = PrivateAttr(default=None)
    _runs: Runs | None = PrivateAttr(default=None)
    _rows: list[Float64] = PrivateAttr(default_factory=list)

    def start(self, problem: Problem) -> Self:
        super().start(problem)
        self._rows, self._runs, self._mixtures = [], None, None
        return self

    def use(self, runs: Runs) -> Self:
        """Take the runs of a table: nothing more is asked for.

        Raises:
            TamisError: if they are too few.
        """
        self._runs = runs
        self._fit(runs)
        return self

    @abstractmethod
    def _fit(self, runs: Runs) -> None:
        """Learn from all runs."""

    def propose(self) -> Phase | None:
        if self._runs is not None:
            return None
        number = len(self._rows)
        mixture = self.problem.by_name(self.mixtures()[number])
        return Phase(f"run {number + 1}", mixture, 1.0, "proxy", f"proxy {number + 1}")

    def learn(self, phase: Phase, observation: Observation) -> None:
        losses = [observation.after[name] for name in self.problem.evaluations]
        self._rows.append(np.array(losses))
        if len(self._rows) == len(self.mixtures()):
            self.use(Runs(self.mixtures(), np.array(self._rows)))

    def fitted(self) -> Runs:
        """The runs that were learned from; TamisError before there are any."""
        if self._runs is None:
            raise TamisError(f"{self.kind} has seen {len(self._rows)} of its runs")
        return self._runs

    def mixtures(self) -> Float64:
        """Those of the design, (runs, m)."""
        if self._mixtures is None:
            self._mixtures = self._designed()
        return self._mixtures

    def _designed(self) -> Float64:
        problem = self.problem
        if self.design == "lattice":
            return designs.lattice(problem, self.parts)
        if self.design == "swarm":
            return designs.swarm(problem, self.runs, problem.sizes("the design swarm"))
        if self.design == "dirichlet":
            return designs.dirichlet(problem, self.runs)
        between = max(0, self.runs - len(problem.sources))
        drawn = designs.dirichlet(problem, between).reshape(between, len(problem.sources))
        return designs.with_faces(problem, drawn)[: self.runs]


class MixingLaw(FromRuns):
    """The proportions that make the predicted losses smallest:

        minimise sum_i s_i L_i(p) + kl KL(p || prior)   within floors, caps and limits

    with a law for each evaluation i (``mixing_laws``). A single loss that is log-linear is smallest
    at a corner, always: then name several targets, or give caps or ``kl``.
    """

    kind: ClassVar[str] = "mixing_law"

    form: Form | Literal["best"] = "best"
    """The same for all evaluations, or for each the one that predicts left-out runs best."""
    kl: float = Field(default=0.0, ge=0)
    """How much staying near the prior is worth (Olmix: 0.05)."""
    prior: Mapping[str, float] = {}
    """By default uniform."""
    limits: Mapping[str, float] = {}
    """The largest loss that is allowed on an evaluation."""
    bootstraps: int = Field(default=200, ge=0)
    """Fits on runs drawn again, for the intervals."""

    _laws: list[Law] = PrivateAttr(default_factory=list)
    _again: list[list[Law]] = PrivateAttr(default_factory=list)
    _best: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))

    def _fit(self, runs: Runs) -> None:
        self._laws = [self._law(runs, one) for one in range(runs.losses.shape[1])]
        self._best = self._optimum(self._laws)
        random = np.random.default_rng(self.problem.seed)
        self._again = []
        for _ in range(self.bootstraps):
            rows = random.integers(len(runs), size=len(runs))
            # A fit needs as many different runs as it has parameters.
            if len(np.unique(rows)) > max(self._parameters()):
                self._again.append(self._refit(runs.take(rows)))

    def _parameters(self) -> list[int]:
        return [parameters(law.form, len(self.problem.sources)) for law in self._laws]

    def _law(self, runs: Runs, number: int) -> Law:
        forms = FORMS if self.form == "best" else (self.form,)
        names = self.problem.names
        evaluation = self.problem.evaluations[number]
        own = names.index(evaluation) if evaluation in names else None
        return fit_law(runs.proportions, runs.losses[:, number], forms, own)

    def _refit(self, runs: Runs) -> list[Law]:
        """The same forms on other runs."""
        return [
            fit_law(
                runs.proportions, runs.losses[:, number], (law.form,), getattr(law, "own", None)
            )
            for number, law in enumerate(self._laws)
        ]

    def _optimum(self, laws: list[Law]) -> Float64:
        weights = self.problem.target_weights()
        prior = self._prior()

        def objective(p: Float64) -> tuple[float, Float64]:
            inside = np.maximum(p, 0.0)
            value = sum(
                w * float(law.predict(inside[None])[0])
                for w, law in zip(weights, laws, strict=True)
            )
            slope = sum(
                (w * law.gradient(inside) for w, law in zip(weights, laws, strict=True)),
                np.zeros(len(p)),
            )
            if self.kl:
                ratio = np.log(np.maximum(inside, 1e-12) / prior)
                value += self.kl * float(inside @ ratio)
                slope = slope + self.kl * (ratio + 1)
            return value, slope

        def limit(name: str, most: float) -> Any:
            if name not in self.problem.evaluations:
                raise TamisError(f"limits: there is no loss of {name}")
            law = laws[self.problem.evaluations.index(name)]
            return lambda p: (float(law.predict(p[None])[0]) - most, law.gradient(p))

        return minimise(self.problem, objective, [limit(*one) for one in self.limits.items()])

    def _prior(self) -> Float64:
        if self.prior:
            return np.maximum(self.problem.vector(self.prior), 1e-12)
        return np.full(len(self.problem.sources), 1 / len(self.problem.sources))

    def shares(self) -> Float64:
        self.fitted()
        return self._best

    def predict(self, mixture: Mapping[str, float]) -> Prediction:
        """Losses with intervals from the fits on runs drawn again."""
        runs, point = self.fitted(), self.problem.vector(mixture)
        names = self.problem.evaluations
        losses = [float(law.predict(point[None])[0]) for law in self._laws]
        drawn = np.array(
            [[float(law.predict(point[None])[0]) for law in laws] for laws in self._again]
            or [losses]
        )
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        return Prediction(
            dict(zip(names, losses, strict=True)),
            dict(zip(names, low.tolist(), strict=True)),
            dict(zip(names, high.tolist(), strict=True)),
            designs.in_hull(runs.proportions, point),
        )

    def expected(self, mixtures: Float64) -> Float64:
        self.fitted()
        return np.stack([law.predict(mixtures) for law in self._laws], 1)

    def slopes(self) -> Float64 | None:
        """t of the log-linear laws, (evaluations, m); None if a law is of another form."""
        self.fitted()
        laws = [law for law in self._laws if isinstance(law, LogLinear)]
        return np.stack([law.slopes for law in laws]) if len(laws) == len(self._laws) else None

    def gradient(self, mixture: Float64) -> Float64:
        """Of the weighted loss at a mixture (m,), as if shares did not have to sum to 1."""
        slopes = np.stack([law.gradient(mixture) for law in self._laws])
        return np.asarray(self.problem.target_weights() @ slopes)

    def left_out(self) -> LeftOut:
        runs = self.fitted()
        predicted = [
            left_out(law, runs.proportions, losses)
            for law, losses in zip(self._laws, runs.losses.T, strict=True)
        ]
        return LeftOut(runs.proportions, runs.losses, np.stack(predicted, 1))

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of the recommended proportions: 95 % of the optima of the fits on runs drawn again."""
        optima = np.array([self._optimum(laws) for laws in self._again[:50]] or [self._best])
        low, high = np.quantile(optima, [0.025, 0.975], axis=0)
        pairs = zip(low.tolist(), high.tolist(), strict=True)
        return dict(zip(self.problem.names, pairs, strict=True))

    def report(self) -> dict[str, Any]:
        runs = self.fitted()
        return {
            "runs": len(runs),
            "laws": {
                name: {"form": law.form, "left-out error": law.error}
                for name, law in zip(self.problem.evaluations, self._laws, strict=True)
            },
            "warnings": self.warnings(),
        }

    def warnings(self) -> list[str]:
        """What makes the answer less sure than it looks."""
        runs, found = self.fitted(), []
        high = self.problem.bounds()[1]
        names = self.problem.names
        top = int(self._best.argmax())
        if self._best[top] > _CORNER and high[top] > _CORNER:
            found.append(
                f"nearly everything is {names[top]}: a single loss has its minimum at a corner; "
                "name several targets, or give caps or kl"
            )
        if not designs.in_hull(runs.proportions, self._best):
            found.append("the proportions lie outside those that were run: the law extrapolates")
        apart = designs.correlation(runs.proportions)
        if len(names) > 2 and apart > _APART:
            found.append(
                f"the shares of two sources go together in the runs (correlation {apart:.2f}): "
                "their effects cannot be told apart"
            )
        for name, law, losses in zip(
            self.problem.evaluations, self._laws, runs.losses.T, strict=True
        ):
            spread = float(np.abs(losses - losses.mean()).mean())
            if spread > 0 and law.error > 0.5 * spread:
                found.append(
                    f"the law of {name} explains little: it misses left-out runs by "
                    f"{law.error:.3g}, their mean by {spread:.3g}"
                )
        return found
