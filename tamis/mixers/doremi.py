"""DoReMi: more of the sources where a small model is furthest from a reference model.

Source: Xie et al. 2023 (arXiv 2305.10429). A reference model is trained on the reference
proportions; then a proxy model, in whose steps

    excess_i = mean over the tokens of source i of max(loss - loss of the reference, 0)
    p_i  ~  p_i exp(eta excess_i),   p = (1 - c) p + c / m

and the answer is the mean of p over the steps. It does not know targets: it makes the worst source
better.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field, PrivateAttr

from tamis.mixers.mixer import Mixer, Observation, Phase
from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64, exponentiated_gradient
from tamis.pipeline.errors import RecipeError


class DoReMi(Mixer):
    """Proportions from a reference run and a proxy run.

    Steps of the proxy run tell the excess losses as ``train``: clipped at 0 token by token, before
    the mean. A source that a batch had none of keeps its last one.
    """

    kind: ClassVar[str] = "doremi"
    in_steps: ClassVar[bool] = True

    steps: int = Field(default=200, ge=1)
    eta: float = Field(default=1.0, gt=0)
    smoothing: float = Field(default=1e-3, ge=0, lt=1)
    """c"""

    _shares: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))
    _sum: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))
    _excess: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))

    def start(self, problem: Problem) -> Self:
        super().start(problem)
        count = len(problem.sources)
        self._shares, self._sum = np.full(count, 1 / count), np.zeros(count)
        self._excess = np.zeros(count)
        return self

    def propose(self) -> Phase | None:
        number = len(self._observed)
        uniform = np.full(len(self.problem.sources), 1 / len(self.problem.sources))
        if number == 0:
            mixture = self.problem.by_name(uniform)
            return Phase("reference", mixture, 1.0, "proxy", "reference")
        if number > self.steps:
            return None
        # The rows are drawn uniformly; the losses are weighted with the shares.
        settings = {"weights": self.problem.by_name(self._shares)}
        mixture = self.problem.by_name(uniform)
        return Phase(f"step {number}", mixture, 1 / self.steps, "proxy", "proxy", settings)

    def _check(self, observation: Observation) -> None:
        unknown = set(observation.train) - set(self.problem.names)
        if unknown or any(not value >= 0 for value in observation.train.values()):
            raise RecipeError(f"{observation.phase}: excess losses of sources are not negative")

    def learn(self, phase: Phase, observation: Observation) -> None:
        if phase.id == "reference":
            return
        for index, name in enumerate(self.problem.names):
            self._excess[index] = observation.train.get(name, self._excess[index])
        self._shares = doremi_step(self._shares, self._excess, self.eta, self.smoothing)
        self._sum = self._sum + self._shares

    def shares(self) -> Float64:
        steps = len(self._observed) - 1
        return self._sum / steps if steps > 0 else self._shares


def doremi_step(shares: Float64, excess: Float64, eta: float, smoothing: float) -> Float64:
    """The shares behind one step, (m,)."""
    moved = exponentiated_gradient(shares, np.maximum(excess, 0.0), eta)
    return np.asarray((1 - smoothing) * moved + smoothing / len(shares))
