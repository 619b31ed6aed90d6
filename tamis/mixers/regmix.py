"""RegMix: predict the losses of any mixture from those of many tiny runs, and average the best.

Source: Liu et al. 2024 (arXiv 2407.01492) and its code: a gradient boosted regression (LightGBM,
1000 trees, rate 0.01, early stopping) for each loss; 100,000 mixtures are drawn around natural
proportions, and the 128 with the smallest predicted loss are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from tamis.mixers.from_runs import FromRuns
from tamis.mixers.mixer import LeftOut, Prediction
from tamis.mixers.runs import Runs
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import TamisError

_FEWEST = 16


class RegMix(FromRuns):
    """Regression on the proportions.

    The authors stop early on the runs that they then test on; here a part of the runs is held out
    for it. Trees do not extrapolate: what is averaged lies between the runs.
    """

    kind: ClassVar[str] = "regmix"

    design: Literal["dirichlet", "swarm", "faces", "lattice"] = "swarm"
    runs: int = Field(default=512, ge=1)
    regressor: Literal["lightgbm", "linear"] = "lightgbm"
    draws: int = Field(default=100_000, ge=1000)
    best: int = Field(default=128, ge=1)
    """So many of the draws are averaged."""
    seed: int = 42

    _models: list[Any] = PrivateAttr(default_factory=list)
    _shares: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))
    _errors: list[float] = PrivateAttr(default_factory=list)
    _held: NDArray[np.intp] = PrivateAttr(default_factory=lambda: np.zeros(0, np.intp))

    def _fit(self, runs: Runs) -> None:
        if len(runs) < _FEWEST:
            raise TamisError(f"regmix needs at least {_FEWEST} runs, there are {len(runs)}")
        random = np.random.default_rng(self.seed)
        order = random.permutation(len(runs))
        held = max(4, len(runs) // 10)
        learned, stopped = order[held:], order[:held]
        self._models, self._errors, self._held = [], [], stopped
        for losses in runs.losses.T:
            model = fit_regressor(
                self.regressor, runs.proportions, losses, learned, stopped, self.seed
            )
            self._models.append(model)
            missed = model(runs.proportions[stopped]) - losses[stopped]
            self._errors.append(float(np.abs(missed).mean()))
        drawn = self._draw(random)
        predicted = np.stack([model(drawn) for model in self._models], 1)
        total = predicted @ self.problem.target_weights()
        self._shares = drawn[np.argsort(total, kind="stable")[: self.best]].mean(0)

    def _draw(self, random: np.random.Generator) -> Float64:
        """Mixtures within the bounds: Dirichlet(prior), the prior flattened natural proportions, or
        uniform if the sizes are not known.
        """
        problem = self.problem
        known = all(one.tokens is not None for one in problem.sources)
        sizes = problem.sizes(self.kind) if known else np.ones(len(problem.sources))
        prior = np.sqrt(sizes) / np.sqrt(sizes).sum()
        drawn = random.dirichlet(prior, self.draws)
        low, high = problem.bounds()
        inside = ((drawn >= low) & (drawn <= high)).all(1)
        if inside.sum() < self.best:
            return np.array([problem.allowed(one) for one in drawn[: 20 * self.best]])
        return np.asarray(drawn[inside])

    def shares(self) -> Float64:
        self.fitted()
        return self._shares

    def expected(self, mixtures: Float64) -> Float64:
        self.fitted()
        return np.stack([model(mixtures) for model in self._models], 1)

    def left_out(self) -> LeftOut:
        """Of the runs that the trees were stopped by."""
        runs = self.fitted()
        predicted = np.full_like(runs.losses, np.nan)
        predicted[self._held] = self.expected(runs.proportions[self._held])
        return LeftOut(runs.proportions, runs.losses, predicted)

    def predict(self, mixture: Mapping[str, float]) -> Prediction:
        """Losses, give or take the mean error on runs that were held out."""
        from tamis.mixers.designs import in_hull

        runs, point = self.fitted(), self.problem.vector(mixture)
        names = self.problem.evaluations
        losses = {
            name: float(model(point[None])[0])
            for name, model in zip(names, self._models, strict=True)
        }
        # Of a normal error 95 % are within 1.96 standard deviations, or 2.46 mean deviations.
        around = {name: 2.46 * one for name, one in zip(names, self._errors, strict=True)}
        return Prediction(
            losses,
            {name: losses[name] - around[name] for name in names},
            {name: losses[name] + around[name] for name in names},
            in_hull(runs.proportions, point),
        )

    def report(self) -> dict[str, Any]:
        errors = dict(zip(self.problem.evaluations, self._errors, strict=True))
        return {"runs": len(self.fitted()), "held-out error": errors, "warnings": []}


def fit_regressor(
    kind: str, mixtures: Float64, losses: Float64, learned: Any, stopped: Any, seed: int
) -> Any:
    """A function from mixtures (n, m) to losses (n,), learned from some rows; LightGBM stops when
    it no longer gets better on others.
    """
    if kind == "linear":
        features = np.column_stack([np.ones(len(learned)), mixtures[learned]])
        weights = np.linalg.lstsq(features, losses[learned], rcond=None)[0]
        return lambda points: weights[0] + points @ weights[1:]
    try:
        import lightgbm
    except ImportError as error:
        raise TamisError("regmix needs LightGBM: pip install 'tamis[mix]'") from error
    settings = {
        "boosting": "gbdt", "objective": "regression", "learning_rate": 0.01, "seed": seed,
        "metric": ["l1", "l2"], "num_threads": 1, "verbosity": -1, "deterministic": True,
        "force_row_wise": True,
    }  # fmt: skip
    training = lightgbm.Dataset(mixtures[learned], losses[learned])
    stopping = lightgbm.Dataset(mixtures[stopped], losses[stopped], reference=training)
    model = lightgbm.train(
        settings,
        training,
        num_boost_round=1000,
        valid_sets=[stopping],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    return model.predict
