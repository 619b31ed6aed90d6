"""DoGE: more of the sources whose gradients point where the targets' do.

Source: Fan et al. 2023 (arXiv 2310.15393), src/trainer.py of its code. With the gradients g of the
losses of one step,

    W_j = <g_j, sum of the targets' gradients>
    p_j  ~  p_j exp(clip(rate W_j / mean_k |g_k|, 0, 5 rate) / mu)

and the answer is the mean of p over the steps. ``rate`` is the learning rate of the step.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field, PrivateAttr

from tamis.mixers.mixer import Mixer, Observation, Phase
from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64, exponentiated_gradient
from tamis.pipeline.errors import RecipeError

_SMALL = 1e-6


class DoGE(Mixer):
    """Proportions from a proxy run in which gradients are compared every step.

    A source that works against the targets (W < 0) is not pushed below one that does nothing: the
    clip at 0 is the code's.
    """

    kind: ClassVar[str] = "doge"
    in_steps: ClassVar[bool] = True

    steps: int = Field(default=200, ge=1)
    mu: float = Field(default=0.01, gt=0)
    rate: float = Field(default=5e-4, gt=0)
    """The learning rate of the proxy run."""
    most: float = Field(default=5.0, gt=0)
    """Of W over the mean norm, in one step."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """How much of uniform is mixed in."""

    _shares: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))
    _sum: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))

    def start(self, problem: Problem) -> Self:
        super().start(problem)
        self._shares = np.full(len(problem.sources), 1 / len(problem.sources))
        self._sum = np.zeros(len(problem.sources))
        return self

    def propose(self) -> Phase | None:
        number = len(self._observed)
        if number == self.steps:
            return None
        mixture = self.problem.by_name(self._shares)
        return Phase(f"step {number + 1}", mixture, 1 / self.steps, "proxy", "proxy")

    def _check(self, observation: Observation) -> None:
        for name in self.problem.names:
            if name not in observation.norms or not observation.gradients:
                raise RecipeError(
                    f"{observation.phase}: doge needs the gradient of {name} with those of the "
                    "targets, and its norm"
                )

    def learn(self, phase: Phase, observation: Observation) -> None:
        problem = self.problem
        weights = problem.target_weights() * len(problem.evaluations)
        inner = np.array(
            [
                [observation.gradients[target][name] for name in problem.names]
                for target in problem.evaluations
            ]
        )
        norms = np.array([observation.norms[name] for name in problem.names])
        aligned = (weights @ inner) / (norms.mean() + _SMALL)
        gain = np.clip(aligned, 0.0, self.most) * self.rate
        shares = exponentiated_gradient(self._shares, gain, 1 / self.mu)
        uniform = 1 / len(shares)
        self._shares = (1 - self.smoothing) * shares + self.smoothing * uniform
        self._sum = self._sum + self._shares

    def shares(self) -> Float64:
        return self._sum / len(self._observed) if len(self._observed) else self._shares
