"""The best proportions under laws, floors, caps and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import TamisError

Function = Callable[[Float64], tuple[float, Float64]]
"""A mixture (m,) to a value and its gradient (m,)."""

_STARTS = 16
_TOLERANCE = 1e-6


def minimise(problem: Problem, objective: Function, limits: Sequence[Function] = ()) -> Float64:
    """The proportions (m,) that make the objective smallest, where each of ``limits`` is at most 0.

    Sequential quadratic programming from the middle, all corners and some mixtures between; a
    convex objective has one answer, of others the best that was found is taken.

    Raises:
        TamisError: if no mixture keeps the limits.
    """
    from scipy.optimize import minimize

    low, high = problem.bounds()
    count = len(low)
    random = np.random.default_rng(0)
    starts = [np.ones(count), *np.eye(count), *random.dirichlet(np.ones(count), _STARTS)]
    constraints = [
        {"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda _: np.ones(count)},
        *(
            {"type": "ineq", "fun": lambda p, f=f: -f(p)[0], "jac": lambda p, f=f: -f(p)[1]}
            for f in limits
        ),
    ]
    best: tuple[float, Float64] | None = None
    for start in starts:
        inside = problem.allowed(start)
        found = minimize(
            objective,
            inside,
            jac=True,
            method="SLSQP",
            bounds=list(zip(low, high, strict=True)),
            constraints=constraints,
            options={"maxiter": 300, "ftol": 1e-12},
        )
        for candidate in (np.clip(found.x, low, high), inside):
            if not np.isfinite(candidate).all() or abs(candidate.sum() - 1) > _TOLERANCE:
                continue
            if any(limit(candidate)[0] > _TOLERANCE for limit in limits):
                continue
            value = objective(candidate)[0]
            if np.isfinite(value) and (best is None or value < best[0]):
                best = value, candidate
    if best is None:
        raise TamisError("no mixture keeps the limits on the losses; loosen them")
    return problem.allowed(best[1])
