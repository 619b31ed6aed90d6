"""Aioli: learn while training how each source lowers each loss, and train more on those that help.

Source: Chen et al. 2024 (arXiv 2411.05735) and its code. Training has T rounds, in which losses are
taken to fall linearly in the proportions,

    L_i(t + 1) = L_i(t) - sum_j A_ij p_j

A round begins with probes, short stretches on mixtures that are mostly one source; from what the
losses did in them A is solved for, and the rest of the round is trained on

    p_j  ~  p_j exp(eta sum_i s_i A_ij)

with the weights s of the targets (the paper's are equal). Probes are part of the training.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr

from tamis.mixers.mixer import Mixer, Observation, Phase
from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64, exponentiated_gradient
from tamis.pipeline.errors import RecipeError

_SEPARATION = 0.1


class Aioli(Mixer):
    """Proportions that change every round.

    As published (``normalize: official`` with ``ema``) proportions start from uniform every round
    and hardly leave it: A is scaled to sum 1, so that the largest and smallest share differ by no
    more than e^eta. ``cumulative`` goes on from the last round (algorithm 1 of the paper); with
    ``normalize: positive`` losses that a source raises count as 0 instead of being subtracted from
    all others.
    """

    kind: ClassVar[str] = "aioli"

    rounds: int = Field(default=20, ge=1)
    """T"""
    sweeps: int = Field(default=4, ge=1)
    """k: how often each source is probed in a round, each time in another order."""
    probe_share: float = Field(default=0.128, gt=0, lt=1)
    """delta: of a round, spent on probes."""
    one_hot: float = Field(default=0.625, gt=0, le=1)
    """The share of its source in a probe; the others have the same of the rest."""
    eta: float = Field(default=0.2, gt=0)
    ema: float | None = Field(default=0.1, gt=0, le=1)
    """The weight of earlier rounds in the mean of A; then proportions start from uniform every
    round. None: they go on from those of the round before (cumulative).
    """
    normalize: Literal["official", "positive", "none"] = "official"
    diagonal: bool = False
    """Solve for the effect of each source on its own loss only."""

    _shares: Float64 = PrivateAttr(default_factory=lambda: np.zeros(0))
    _mean: Float64 | None = PrivateAttr(default=None)
    _fallen: Float64 = PrivateAttr(default_factory=lambda: np.zeros((0, 0)))
    _matrices: list[Float64] = PrivateAttr(default_factory=list)

    def start(self, problem: Problem) -> Self:
        count = len(problem.sources)
        if count < 2:
            raise RecipeError("aioli needs two sources or more")
        if self.diagonal and problem.evaluations != problem.names:
            raise RecipeError("aioli: diagonal needs a loss for each source, and no others")
        if self.one_hot - (1 - self.one_hot) / (count - 1) < _SEPARATION:
            raise RecipeError(
                f"aioli.one_hot = {self.one_hot}: probes of {count} sources would be too alike to "
                "tell their effects apart; raise it"
            )
        super().start(problem)
        self._shares = np.full(count, 1 / count)
        self._mean, self._matrices = None, []
        self._fallen = np.zeros((len(problem.evaluations), count))
        return self

    def probes(self) -> Float64:
        """P, (m, m): row j is the mixture that is mostly source j."""
        count = len(self.problem.sources)
        mixtures = np.full((count, count), (1 - self.one_hot) / (count - 1))
        np.fill_diagonal(mixtures, self.one_hot)
        return mixtures

    def propose(self) -> Phase | None:
        count = len(self.problem.sources)
        of_round = count * self.sweeps
        number, place = divmod(len(self._observed), of_round + 1)
        if number == self.rounds:
            return None
        if place == of_round:
            share = (1 - self.probe_share) / self.rounds
            return Phase(f"round {number + 1}", self.proportions(), share)
        sweep, position = divmod(place, count)
        source = self._order(number, sweep)[position]
        mixture = self.problem.by_name(self.probes()[source])
        share = self.probe_share / self.rounds / of_round
        return Phase(f"round {number + 1}, probe {place + 1}", mixture, share, "probe")

    def _order(self, number: int, sweep: int) -> list[int]:
        """Interleaved, so that no source always comes first, when losses fall fastest."""
        random = np.random.default_rng((self.problem.seed, number, sweep))
        return [int(one) for one in random.permutation(len(self.problem.sources))]

    def _check(self, observation: Observation) -> None:
        super()._check(observation)
        phase = self.propose()
        if phase is not None and phase.purpose == "probe" and not observation.before:
            raise RecipeError(f"{phase.id}: aioli needs the losses before a probe, too")

    def learn(self, phase: Phase, observation: Observation) -> None:
        if phase.purpose != "probe":
            return
        names = self.problem.evaluations
        before, after = (
            np.array([losses[name] for name in names])
            for losses in (observation.before, observation.after)
        )
        source = int(np.argmax(self.problem.vector(phase.mixture)))
        self._fallen[:, source] += (before - after) / self.sweeps
        count = len(self.problem.sources)
        place = len(self._observed) % (count * self.sweeps + 1)
        if place == count * self.sweeps - 1:
            self._end_of_probes()

    def _end_of_probes(self) -> None:
        matrix = solve_effects(self._fallen, self.probes(), self.diagonal)
        self._matrices.append(matrix)
        self._fallen = np.zeros_like(self._fallen)
        scaled = normalized(matrix, self.normalize)
        if self.ema is None:
            start = self._shares
        else:
            start = np.full(len(self._shares), 1 / len(self._shares))
            older = scaled if self._mean is None else self._mean
            scaled = self._mean = (1 - self.ema) * scaled + self.ema * older
        # The sum over losses of the paper, when all targets count the same.
        weights = self.problem.target_weights() * len(scaled)
        self._shares = exponentiated_gradient(start, weights @ scaled, self.eta)

    def shares(self) -> Float64:
        return self._shares

    def report(self) -> dict[str, Any]:
        """``effects``: A of each round, rows are losses and columns sources."""
        return {"effects": [one.tolist() for one in self._matrices], "warnings": []}


def solve_effects(fallen: Float64, probes: Float64, diagonal: bool = False) -> Float64:
    """A (evaluations, m) from how far each loss fell in the probes of each source, ``fallen``
    (evaluations, m): in probe j with the mixture P_j loss i falls by sum_l P_jl A_il.
    """
    if diagonal:
        return np.asarray(np.diag(np.diag(fallen) / np.diag(probes)))
    return np.asarray(np.linalg.solve(probes, fallen.T).T)


def normalized(matrix: Float64, how: Literal["official", "positive", "none"]) -> Float64:
    """``official``: the smallest entry, if it is negative, is taken from all; then they are divided
    by their sum. ``positive``: negative entries become 0 first instead.
    """
    if how == "none":
        return matrix
    if how == "official":
        shifted = matrix - min(0.0, float(matrix.min()))
    else:
        shifted = np.maximum(matrix, 0.0)
    total = float(shifted.sum())
    return np.asarray(shifted / total if total > 0 else np.full_like(matrix, 1 / matrix.size))
