"""Proportions: vectors of shares that sum to 1, with a floor and a cap for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def project(shares: Float64, low: Float64, high: Float64) -> Float64:
    """The proportions within ``low`` and ``high`` that are nearest to ``shares`` in KL divergence.

    They are p_j = min(max(c x_j, low_j), high_j) with the one factor c that makes their sum 1:
    shares that hit no bound keep their ratios. Sources without a share get some only if the others
    are at their caps, and then the same factor of what is left below their caps.

    Args:
        shares: (m,), not negative, of any sum above 0.
        low, high: (m,), 0 <= low <= high, sum(low) <= 1 <= sum(high).

    Raises:
        ValueError: if no proportions are within the bounds, or no share is above 0.
    """
    shares, low, high = (np.asarray(one, np.float64) for one in (shares, low, high))
    if not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise ValueError("shares are finite and not negative, and one is above 0")
    if (low > high).any() or low.sum() > 1 + 1e-9 or high.sum() < 1 - 1e-9:
        raise ValueError("no proportions are within these bounds")
    reached = np.where(shares > 0, high, low)
    if reached.sum() <= 1:
        # All that have a share are at their caps: the rest is left to those that have none.
        room = high - reached
        factor = (1 - reached.sum()) / max(room.sum(), np.finfo(np.float64).tiny)
        return np.asarray(reached + room * min(factor, 1.0))
    some = shares > 0
    # Source j is between its bounds for factors from enters_j to leaves_j; between two such edges
    # the sum grows with the factor like the shares of those that are.
    enters, leaves = low[some] / shares[some], high[some] / shares[some]
    edges = np.unique(np.concatenate([enters, leaves]))
    totals = np.array([np.clip(edge * shares, low, high).sum() for edge in edges])
    at = int(np.searchsorted(totals, 1.0))
    factor = edges[0]
    if at > 0:
        before = edges[at - 1]
        slope = shares[some][(enters <= before) & (leaves > before)].sum()
        factor = before + (1 - totals[at - 1]) / slope
    return np.asarray(np.clip(factor * shares, low, high))


def exponentiated_gradient(shares: Float64, gain: Float64, rate: float) -> Float64:
    """p_j exp(rate g_j) / sum_k p_k exp(rate g_k), (m,), in logarithms so that nothing overflows.

    Source: Kivinen and Warmuth 1997; in mixing Chen et al. 2024 (arXiv 2411.05735, section 3).
    """
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(shares, np.float64)) + rate * np.asarray(gain, np.float64)
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())
