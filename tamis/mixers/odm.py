"""ODM: a bandit that trains where the loss is high.

Source: Albalak et al. 2023 (arXiv 2312.02406) and its code. The exploration
e_t = min(1/K, sqrt(ln K / (K t))) falls with the steps; the smoothed mean, which the paper uses, is

    R_i = a R_i + (1 - a) exp(loss_i)
    p_i = (1 - K e_t) R_i / sum_k R_k + e_t

It follows the entropy of a source: one that cannot be learned gets the most.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr

from tamis.mixers.mixer import Mixer, Observation, Phase
from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import RecipeError

_REWARD = 10.0


class ODM(Mixer):
    """Proportions that change every step (or every few), from training losses alone."""

    kind: ClassVar[str] = "odm"

    steps: int = Field(default=100, ge=1)
    """In how many equal parts the training is cut."""
    smoothing: float = Field(default=0.9, ge=0, lt=1)
    """a"""
    variant: Literal["smoothed_mean", "exp3"] = "smoothed_mean"

    _rewards: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))
    _shares: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))

    def start(self, problem: Problem) -> Self:
        super().start(problem)
        count = len(problem.sources)
        self._rewards, self._shares = np.zeros(count), np.full(count, 1 / count)
        return self

    def propose(self) -> Phase | None:
        number = len(self._observed)
        if number == self.steps:
            return None
        return Phase(f"step {number + 1}", self.proportions(), 1 / self.steps)

    def _check(self, observation: Observation) -> None:
        unknown = set(observation.train) - set(self.problem.names)
        if unknown or not observation.train:
            raise RecipeError(f"{observation.phase}: odm needs training losses of the sources")

    def learn(self, phase: Phase, observation: Observation) -> None:
        step = len(self._observed) + 1
        for index, name in enumerate(self.problem.names):
            if name not in observation.train:
                continue
            loss = observation.train[name]
            if self.variant == "exp3":
                self._rewards[index] += loss / _REWARD / self._shares[index]
            else:
                older = self.smoothing * self._rewards[index]
                self._rewards[index] = older + (1 - self.smoothing) * np.exp(loss)
        explored, before = (exploration(len(self._rewards), one) for one in (step, step - 1))
        self._shares = odm_shares(self._rewards, explored, before, self.variant)

    def shares(self) -> Float64:
        return self._shares


def exploration(count: int, step: int) -> float:
    """e_t of K sources; 1/K before the first step."""
    return 1 / count if step < 1 else min(1 / count, float(np.sqrt(np.log(count) / (count * step))))


def odm_shares(
    rewards: Float64,
    explored: float,
    before: float,
    variant: Literal["smoothed_mean", "exp3"] = "smoothed_mean",
) -> Float64:
    """The proportions (m,) behind a step with exploration ``explored``; ``before`` is that of the
    step before, by which exp3 multiplies its rewards.
    """
    if variant == "exp3":
        logs = before * rewards
        weights = np.exp(logs - logs.max())
    else:
        weights = rewards if rewards.any() else np.ones(len(rewards))
    return np.asarray((1 - len(rewards) * explored) * weights / weights.sum() + explored)
