"""Skill-It: train on the skills that lower the losses which are still high.

Source: Chen et al. 2023 (arXiv 2307.14430) and its code. A graph says how training on skill i helps
skill j (rows train, columns are evaluated); every round

    p_i  ~  exp(eta sum_{last w rounds} sum_j A_ij L_j)

and in the first exp(eta sum_j A_ij). Without a graph it is learned from short runs on each skill
alone: A_ij is by how much the loss on j falls, where it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, PrivateAttr

from tamis.mixers.mixer import Mixer, Observation, Phase
from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64, exponentiated_gradient
from tamis.pipeline.errors import RecipeError, nearest


class SkillIt(Mixer):
    """Proportions that change every round."""

    kind: ClassVar[str] = "skill_it"

    rounds: int = Field(default=6, ge=1)
    eta: float = Field(default=0.5, gt=0)
    window: int = Field(default=3, ge=1)
    """Losses of so many rounds are added up."""
    graph: Mapping[str, Mapping[str, float]] | None = None
    """``{skill trained: {skill evaluated: weight}}``; missing weights are 0."""
    graph_share: float = Field(default=0.05, gt=0, lt=1)
    """The length of a run for the graph, as a share of the training."""

    _graph: Float64 | None = PrivateAttr(default=None)
    _learned: list[Float64] = PrivateAttr(default_factory=list)
    _losses: list[Float64] = PrivateAttr(default_factory=list)

    def start(self, problem: Problem) -> Self:
        super().start(problem)
        self._learned, self._losses = [], []
        self._graph = None if self.graph is None else self._given(self.graph)
        return self

    def _given(self, graph: Mapping[str, Mapping[str, float]]) -> Float64:
        rows, columns = self.problem.names, self.problem.evaluations
        for source, row in graph.items():
            for name, known in ((source, rows), *((one, columns) for one in row)):
                if name not in known:
                    raise RecipeError(f"graph: there is no skill {name}{nearest(name, known)}")
        matrix = [[graph.get(row, {}).get(column, 0.0) for column in columns] for row in rows]
        return np.array(matrix, np.float64)

    def propose(self) -> Phase | None:
        names = self.problem.names
        if self._graph is None:
            source = names[len(self._learned)]
            mixture = {name: float(name == source) for name in names}
            return Phase(f"graph: {source}", mixture, self.graph_share, "proxy", f"graph {source}")
        if len(self._losses) == self.rounds:
            return None
        number = len(self._losses) + 1
        return Phase(f"round {number}", self.proportions(), 1 / self.rounds)

    def _check(self, observation: Observation) -> None:
        super()._check(observation)
        if self._graph is None and not observation.before:
            raise RecipeError(f"{observation.phase}: skill_it needs the losses before it, too")

    def learn(self, phase: Phase, observation: Observation) -> None:
        names = self.problem.evaluations
        after = np.array([observation.after[name] for name in names])
        if self._graph is not None:
            self._losses.append(after)
            return
        before = np.array([observation.before[name] for name in names])
        self._learned.append(np.maximum(before - after, 0.0))
        if len(self._learned) == len(self.problem.sources):
            self._graph = np.array(self._learned)

    def shares(self) -> Float64:
        uniform = np.full(len(self.problem.sources), 1 / len(self.problem.sources))
        if self._graph is None:
            return uniform
        weights = self.problem.target_weights() * len(self.problem.evaluations)
        recent = np.sum(self._losses[-self.window :], 0) if self._losses else np.ones(len(weights))
        return exponentiated_gradient(uniform, self._graph @ (weights * recent), self.eta)

    def graph_by_name(self) -> dict[str, dict[str, float]] | None:
        """As the setting ``graph``; None before it is known."""
        if self._graph is None:
            return None
        columns = self.problem.evaluations
        rows = zip(self.problem.names, self._graph.tolist(), strict=True)
        return {name: dict(zip(columns, row, strict=True)) for name, row in rows}

    def report(self) -> dict[str, Any]:
        """``graph``: rows are trained, columns evaluated."""
        return {"graph": None if self._graph is None else self._graph.tolist(), "warnings": []}
