"""Worlds with a known right answer: bigram sources over a few symbols, and a table that learns.

The transition matrix of each source is random and doubly stochastic, so all symbols are as common
in all of them. A table of logits is trained by SGD on batches of a mixture. Trained to the end on
proportions p it predicts q = sum_j p_j A_j, and for target weights s over the sources the best
proportions are exactly s.
"""

from __future__ import annotations

import numpy as np

from tamis.mixers.mixer import Observation, Phase
from tamis.mixers.problem import Problem

SYMBOLS = 24


def sources(count: int, seed: int, noise: int | None = None) -> np.ndarray:
    """(count, V, V): rows and columns of each sum to 1; source ``noise`` is uniform."""
    random = np.random.default_rng(seed)
    found = random.gamma(0.15, size=(count, SYMBOLS, SYMBOLS)) + 1e-6
    for _ in range(500):
        found /= found.sum(2, keepdims=True)
        found /= found.sum(1, keepdims=True)
    if noise is not None:
        found[noise] = 1 / SYMBOLS
    return found / found.sum(2, keepdims=True)


def losses(matrices: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The cross-entropy on each source, in nats a symbol."""
    return -(matrices * np.log(predicted)).sum((1, 2)) / SYMBOLS


class World:
    """Runs phases. Those of a run go on from each other; gradients are told if they are wanted."""

    def __init__(
        self, problem: Problem, matrices: np.ndarray, steps: int = 1000, seed: int = 0,
        rate: float = 0.3, batch: int = 128, gradients: bool = False,
    ) -> None:  # fmt: skip
        self.problem, self.matrices, self.steps = problem, matrices, steps
        self.rate, self.batch, self.gradients = rate * SYMBOLS, batch, gradients
        self.random = np.random.default_rng(seed)
        self.runs: dict[str, np.ndarray] = {}
        self.owed = 0.0

    def predicted(self, run: str = "main") -> np.ndarray:
        logits = self.runs.setdefault(run, np.zeros((SYMBOLS, SYMBOLS)))
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)

    def __call__(self, phase: Phase) -> Observation:
        mixture = self.problem.vector(phase.mixture)
        before = losses(self.matrices, self.predicted(phase.run))
        gradients, norms = self._aligned(phase.run) if self.gradients else ({}, {})
        self.owed += phase.share * self.steps
        for _ in range(int(self.owed)):
            self.owed -= 1
            self._step(mixture, phase.run)
        after = losses(self.matrices, self.predicted(phase.run))
        named = [self._named(one) for one in (after, before)]
        train = self._named(after)
        return Observation(phase.id, named[0], named[1], train, gradients, norms)

    def _named(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.problem.names, values.tolist(), strict=True))

    def _step(self, mixture: np.ndarray, run: str) -> None:
        drawn = self.random.choice(len(mixture), self.batch, p=mixture)
        first = self.random.integers(SYMBOLS, size=self.batch)
        rows = self.matrices[drawn, first].cumsum(1)
        second = (self.random.random(self.batch)[:, None] > rows).sum(1).clip(max=SYMBOLS - 1)
        predicted = self.predicted(run)
        gradient = np.zeros((SYMBOLS, SYMBOLS))
        np.add.at(gradient, first, predicted[first])
        np.add.at(gradient, (first, second), -1.0)
        self.runs[run] -= self.rate * gradient / self.batch

    def _aligned(self, run: str) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        predicted = self.predicted(run)
        each = ((predicted - self.matrices) / SYMBOLS).reshape(len(self.matrices), -1)
        inner, names = each @ each.T, self.problem.names
        return (
            {
                one: dict(zip(names, row.tolist(), strict=True))
                for one, row in zip(names, inner, strict=True)
            },
            dict(zip(names, np.linalg.norm(each, axis=1).tolist(), strict=True)),
        )


def final_loss(
    problem: Problem, matrices: np.ndarray, mixture: np.ndarray, seeds: int = 3
) -> float:
    """The weighted loss of a table that was trained on fixed proportions."""
    found = []
    for seed in range(seeds):
        world = World(problem, matrices, seed=100 + seed)
        after = world(Phase("all", problem.by_name(mixture), 1.0)).after
        found.append(problem.target_weights() @ [after[name] for name in problem.evaluations])
    return float(np.mean(found))
