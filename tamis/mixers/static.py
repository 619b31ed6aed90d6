"""Proportions that follow from sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from tamis.mixers.mixer import Mixer, Phase
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import RecipeError, TamisError, nearest


class _Static(Mixer):
    """Nothing has to be trained to know the answer."""

    def propose(self) -> Phase | None:
        return None


class Natural(_Static):
    """Every token counts the same: p_i = n_i / sum n."""

    kind: ClassVar[str] = "natural"

    def shares(self) -> Float64:
        return self.problem.sizes(self.kind)


class Uniform(_Static):
    """Every source counts the same (stratified sampling)."""

    kind: ClassVar[str] = "uniform"

    def shares(self) -> Float64:
        return np.ones(len(self.problem.sources))


class Fixed(_Static):
    """Given proportions."""

    kind: ClassVar[str] = "fixed"

    mixture: Mapping[str, float]

    def shares(self) -> Float64:
        return self.problem.vector(self.mixture)


class Temperature(_Static):
    """p_i = n_i^(1/t) / sum_k n_k^(1/t): natural at t = 1, uniform as t grows.

    Some code has alpha = 1/t instead (XLM: 0.3 to 0.7).
    """

    kind: ClassVar[str] = "temperature"

    temperature: float = Field(default=3.33, gt=0)

    def shares(self) -> Float64:
        return tempered(self.problem.sizes(self.kind), self.temperature)


def tempered(sizes: Float64, temperature: float) -> Float64:
    """n^(1/t), scaled to sum 1, (m,)."""
    logs = np.log(sizes) / temperature
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


class UniMax(_Static):
    """As uniform as possible, with no source seen more than ``max_epochs`` times.

    Sources are given their equal part of what is left of the budget, the smallest first; one that
    has less takes all that it may (Chung et al. 2023, arXiv 2304.09151, algorithm 1). A source's
    own ``max_epochs`` comes before that of the method.
    """

    kind: ClassVar[str] = "unimax"

    max_epochs: float = Field(default=1.0, gt=0)

    def shares(self) -> Float64:
        problem = self.problem
        if problem.budget is None:
            raise RecipeError("unimax needs the budget in tokens")
        epochs = np.array([one.max_epochs or self.max_epochs for one in problem.sources])
        allocation = unimax(problem.sizes(self.kind) * epochs, problem.budget)
        if allocation.sum() < problem.budget * (1 - 1e-9):
            raise TamisError(
                f"unimax: with {self.max_epochs:g} epochs there are {allocation.sum():,.0f} tokens "
                f"for a budget of {problem.budget:,.0f}; raise max_epochs or lower the budget"
            )
        return allocation


def unimax(capacities: Float64, budget: float) -> Float64:
    """The tokens of each source, (m,); less than the budget in all if the capacities are."""
    allocation = np.zeros(len(capacities))
    left = budget
    for position, index in enumerate(np.argsort(capacities, kind="stable")):
        share = left / (len(capacities) - position)
        allocation[index] = min(share, capacities[index])
        left -= allocation[index]
    return allocation


class Equitable(_Static):
    """The allocation of a budget that makes a weighted sum of power laws smallest:

        minimise sum_g w_g s_g n_g^(-q_g)   subject to   sum_g c_g n_g = budget

    where the loss of group g falls like s_g n^(-q_g) with its n examples, which cost c_g each. At
    the optimum w_g s_g q_g n_g^(-q_g - 1) / c_g is the same for all groups (Rolf et al. 2022, arXiv
    2202.01327, for the setting).
    """

    kind: ClassVar[str] = "equitable"

    scale: Mapping[str, float]
    """s_g"""
    exponent: Mapping[str, float]
    """q_g"""
    cost: Mapping[str, float] = {}
    """c_g, by default 1. Proportions are of examples, not of what they cost."""

    def shares(self) -> Float64:
        problem = self.problem
        if problem.budget is None:
            raise RecipeError("equitable needs the budget")
        if set(problem.evaluations) != set(problem.names):
            raise RecipeError("equitable: targets are weights of the sources themselves")
        weights = dict(zip(problem.evaluations, problem.target_weights(), strict=True))
        given = {"scale": self.scale, "exponent": self.exponent, "cost": self.cost}
        for setting, values in given.items():
            for name in values:
                if name not in problem.names:
                    raise RecipeError(f"{setting}: no source {name}{nearest(name, problem.names)}")
            for name in problem.names:
                if name not in values and setting != "cost":
                    raise RecipeError(f"{setting}: there is none for the source {name}")
                if not values.get(name, 1.0) > 0:
                    raise RecipeError(f"{setting}.{name} = {values[name]}: it is above 0")
        names = problem.names
        return equitable(
            np.array([weights[name] * self.scale[name] for name in names]),
            np.array([self.exponent[name] for name in names]),
            np.array([self.cost.get(name, 1.0) for name in names]),
            problem.budget,
        )


def equitable(scale: Float64, exponent: Float64, cost: Float64, budget: float) -> Float64:
    """n_g = (s_g q_g / (l c_g))^(1 / (q_g + 1)) with the multiplier l that spends the budget, (m,);
    ``scale`` is w_g s_g.
    """

    def allocation(log_multiplier: float) -> Float64:
        return np.asarray(
            np.exp((np.log(scale * exponent / cost) - log_multiplier) / (exponent + 1))
        )

    low, high = -1.0, 1.0
    while cost @ allocation(low) < budget:
        low *= 2
    while cost @ allocation(high) > budget:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if cost @ allocation(middle) > budget else (low, middle)
    return allocation((low + high) / 2)
