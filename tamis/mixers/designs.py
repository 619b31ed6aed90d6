"""Which mixtures to run, so that a law fitted on them can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np

from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import TamisError

_STRENGTHS = np.geomspace(0.1, 5.0, 15)
_OVERSAMPLING = 100
_SAME = 1e-5


def dirichlet(problem: Problem, count: int, strength: float = 1.0) -> Float64:
    """Mixtures from a symmetric Dirichlet distribution, brought within the bounds, (count, m)."""
    random = np.random.default_rng(problem.seed)
    drawn = random.dirichlet(np.full(len(problem.sources), strength), count)
    return np.array([problem.allowed(one) for one in drawn])


def swarm(
    problem: Problem,
    count: int,
    prior: Float64,
    temperature: float = 2.0,
    smallest: float = 2e-4,
    most_times: float = 15.0,
) -> Float64:
    """Mixtures around a prior, as RegMix (and Olmix) draws them, (count, m).

    The prior is made flatter (prior^(1/temperature)); each mixture is drawn from a Dirichlet
    distribution whose strength is one of 15 from 0.1 to 5: weak ones give corners, strong ones the
    middle. A mixture with ``most_times`` the prior of a source is left out, shares below
    ``smallest`` become 0, equal mixtures are run once.

    Source: Liu et al. 2024 (arXiv 2407.01492), mixture_config of its code; Olmix: smallest 0.002.

    Raises:
        TamisError: if the bounds leave too few mixtures.
    """
    random = np.random.default_rng(problem.seed)
    flat = np.asarray(prior, np.float64) ** (1 / temperature)
    flat /= flat.sum()
    low, high = problem.bounds()
    found: list[Float64] = []
    for _ in range(count * _OVERSAMPLING):
        drawn = random.dirichlet(random.choice(_STRENGTHS) * flat)
        drawn[drawn < smallest] = 0.0
        if not drawn.any() or (drawn > most_times * flat).any():
            continue
        drawn /= drawn.sum()
        inside = (drawn >= low - 1e-9).all() and (drawn <= high + 1e-9).all()
        if inside and all(np.abs(drawn - one).sum() > _SAME for one in found):
            found.append(drawn)
            if len(found) == count:
                return np.array(found)
    raise TamisError(
        f"only {len(found)} of {count} mixtures are within the floors and caps; ask for fewer, or "
        "loosen them"
    )


def lattice(problem: Problem, parts: int) -> Float64:
    """All mixtures of multiples of 1/parts within the bounds (a simplex lattice design)."""
    count = len(problem.sources)
    low, high = problem.bounds()
    rows = [
        np.bincount(chosen, minlength=count) / parts
        for chosen in combinations_with_replacement(range(count), parts)
    ]
    inside = [one for one in rows if (one >= low - 1e-9).all() and (one <= high + 1e-9).all()]
    if not inside:
        raise TamisError(f"no mixture of multiples of 1/{parts} is within the floors and caps")
    return np.array(inside)


def with_faces(problem: Problem, mixtures: Float64, share: float = 0.9) -> Float64:
    """The mixtures, and in front of them one for each source that is nearly all of it: laws are
    worst where a share is near 0 or 1 and nothing was run there.
    """
    count = len(problem.sources)
    faces = np.full((count, count), (1 - share) / max(count - 1, 1))
    np.fill_diagonal(faces, share if count > 1 else 1.0)
    return np.concatenate([[problem.allowed(one) for one in faces], mixtures])


def correlation(mixtures: Float64) -> float:
    """The largest absolute correlation between the shares of two sources over the runs: near 1
    their effects cannot be told apart. 1 - 1/m is what the sum of 1 alone makes of m = 2.
    """
    spread = mixtures[:, mixtures.std(0) > 0]
    if spread.shape[1] < 2 or len(mixtures) < 3:
        return 1.0
    found = np.atleast_2d(np.corrcoef(spread.T))
    return float(np.abs(found[np.triu_indices(len(found), 1)]).max())


def budget_plan(
    flops: float, parameters: float, runs: int, tokens_per_parameter: float = 20.0
) -> tuple[float, float]:
    """(parameters, tokens) of each of the ``runs`` proxies that together cost ``flops``, at 6 N D
    each: of the wanted size if that can be afforded, else the largest that can.
    """
    each = flops / runs
    affordable = float(np.sqrt(each / (6 * tokens_per_parameter)))
    size = min(parameters, affordable)
    return size, each / (6 * size)


def in_hull(mixtures: Float64, point: Sequence[float] | Float64) -> bool:
    """Whether the point is a mixture of the mixtures: between them, a law interpolates."""
    from scipy.optimize import linprog

    equalities = np.vstack([mixtures.T, np.ones(len(mixtures))])
    wanted = np.append(np.asarray(point, np.float64), 1.0)
    # Within rounding: the sum of 1 stands in the rows twice.
    slack = np.eye(len(wanted))
    cost = np.concatenate([np.zeros(len(mixtures)), np.ones(2 * len(wanted))])
    found = linprog(cost, A_eq=np.hstack([equalities, slack, -slack]), b_eq=wanted)
    return bool(found.success and found.fun < 1e-6)
