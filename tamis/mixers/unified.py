"""One view of methods that decide while a model trains: which effects each takes for granted.

Source: Chen et al. 2024 (arXiv 2411.05735), table 1 and section 4. All of them are said to minimise
the sum of the losses under a law that is linear in the proportions (or log-linear, over a whole
training) with parameters A, rows losses, columns sources, positive where training on j lowers i:

    L_i(t + 1) = L_i(t) - sum_j A_ij p_j           p_j  ~  p_j exp(eta sum_i s_i A_ij)

They differ in how they come by A:

    stratified   0
    Aioli        solved for, from what losses did in probes
    Skill-It     L_i x how far the loss on i fell in a run on j alone
    DoGE         <gradient of the loss on i, gradient of the loss on j>
    DoReMi       excess over a reference model, on its own loss only
    mixing law   -t_ij of L_i = c_i + exp(sum_j t_ij p_j)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tamis.mixers.aioli import Aioli
from tamis.mixers.doge import DoGE
from tamis.mixers.doremi import DoReMi
from tamis.mixers.from_runs import MixingLaw
from tamis.mixers.mixer import Mixer
from tamis.mixers.simplex import Float64
from tamis.mixers.skill_it import SkillIt
from tamis.mixers.static import Uniform
from tamis.pipeline.errors import TamisError


def implied_effects(mixer: Mixer) -> Float64:
    """A (evaluations, m) as the method has it after what it observed last. Only how columns differ
    decides what it does; scales are the method's own.

    Raises:
        TamisError: for a method that is none of the table, or has not observed enough.
    """
    problem = mixer.problem
    if isinstance(mixer, Uniform):
        return np.zeros((len(problem.evaluations), len(problem.sources)))
    found = _of_observations(mixer)
    if found is None:
        raise TamisError(
            f"{mixer.kind} implies no effects: it is none of uniform, aioli, skill_it, doge, "
            "doremi and a log-linear mixing_law, or it has not observed enough"
        )
    return found


def _of_observations(mixer: Mixer) -> Float64 | None:
    problem = mixer.problem
    if isinstance(mixer, Aioli):
        effects = mixer.report()["effects"]
        return np.array(effects[-1]) if effects else None
    if isinstance(mixer, MixingLaw):
        slopes = mixer.slopes()
        return None if slopes is None else -slopes
    if not mixer.observed:
        return None
    last = mixer.observed[-1]
    if isinstance(mixer, SkillIt):
        graph = mixer.graph_by_name()
        if graph is None:
            return None
        # Where the rounds begin, losses are those before the runs of the graph.
        single = mixer.graph is None and len(mixer.observed) == len(problem.sources)
        losses = last.before if single else last.after
        return np.array(
            [
                [losses[loss] * graph[source][loss] for source in problem.names]
                for loss in problem.evaluations
            ]
        )
    if isinstance(mixer, DoGE):
        inner = last.gradients
        return np.array([[inner[i][j] for j in problem.names] for i in problem.evaluations])
    if isinstance(mixer, DoReMi):
        excess = np.array([max(last.train.get(name, 0.0), 0.0) for name in problem.names])
        return np.asarray(np.eye(len(excess)) * excess)
    return None


def agreement(effects: ArrayLike, true: ArrayLike, weights: Float64 | None = None) -> float:
    """How alike two A are in what they make a method do, from -1 to 1: half the cosine of their
    column sums and half the rank correlation of these (section 5 of the paper). ``weights`` are
    those of the targets. NaN if all columns of one are the same.
    """
    rows = [np.asarray(each, np.float64) for each in (effects, true)]
    scale = np.ones(len(rows[0])) if weights is None else weights
    one, other = (np.asarray((scale[:, None] * each).sum(0)) for each in rows)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    ranks = [_ranks(sums) for sums in (one, other)]
    return (cosine + float(np.atleast_2d(np.corrcoef(ranks))[0, 1])) / 2


def _ranks(values: Float64) -> Float64:
    """Equal values have the mean of their ranks."""
    below = (values[:, None] > values).sum(1)
    return np.asarray(below + ((values[:, None] == values).sum(1) - 1) / 2)
