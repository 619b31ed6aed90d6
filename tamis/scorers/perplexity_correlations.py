"""``tamis fit perplexity_correlations``: a fastText classifier of the documents, or groups of them,
on which the losses of existing models go with their errors on benchmarks (Thrush et al. 2024,
arXiv:2409.05816).

    data: [crawl_sample.jsonl.zst]
    models:
      - {model: models/10M, benchmark: 0.312}
      - ...                                         # as of preselect; the paper has 90 models
    per_group: {groups: 10000, documents: 25}
    unit: group
    output: models/correlated.bin

For each document or group the rank correlation of bits per byte and error, over the models, is
estimated. A projection makes weights of the estimates: the highest are taken, each up to a cap,
until they make up 1. What has a weight is included.

``X`` is (N, D), the bits per byte of N models on D units, and ``y`` (N,) their errors, lower for
better models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from tamis.pipeline.errors import TamisError
from tamis.scorers.rated_models import Examples, FitFromLosses, Judged

Float64 = NDArray[np.float64]


def product(X: ArrayLike, y: ArrayLike) -> Float64:
    """mean_k x_k y_k (Plan et al. 2016); sensitive to outliers in both."""
    X, y = np.asarray(X, np.float64), np.asarray(y, np.float64)
    return np.asarray(y @ X / len(y))


def sign(X: ArrayLike, y: ArrayLike) -> Float64:
    """2 / (N (N - 1)) sum_{k < g} sign(y_g - y_k) (x_g - x_k) (Chen and Banerjee 2017)."""
    y = np.asarray(y, np.float64)
    # Each x_g stands in N - 1 of the differences, with the sign that y has there.
    signs = np.sign(y[:, None] - y[None, :]).sum(axis=1)
    return np.asarray(2 * (signs @ np.asarray(X, np.float64)) / (len(y) * (len(y) - 1)))


def sign_cdf(X: ArrayLike, y: ArrayLike) -> Float64:
    """2 / (N (N - 1)) sum_{k < g} sign(y_g - y_k) (F(x_g) - F(x_k)), with F = rank / N within the
    column: the paper's estimator, robust to outliers.
    """
    return sign(_ranks(np.asarray(X, np.float64)) / len(np.asarray(y)), y)


def sign_sign(X: ArrayLike, y: ArrayLike) -> Float64:
    """2 / (N (N - 1)) sum_{k < g} sign(y_g - y_k) sign(x_g - x_k)."""
    X, y = np.asarray(X, np.float64), np.asarray(y, np.float64)
    total = np.zeros(X.shape[1])
    for k in range(len(y)):
        total += np.sign(y[k:] - y[k]) @ np.sign(X[k:] - X[k])
    return np.asarray(2 * total / (len(y) * (len(y) - 1)))


def spearman(X: ArrayLike, y: ArrayLike) -> Float64:
    """1 - 6 sum_k (rank(y_k) - rank(x_k))^2 / (N (N^2 - 1)); equal values are ranked by their
    order.
    """
    y = np.asarray(y, np.float64)
    difference = _ranks(y)[:, None] - _ranks(np.asarray(X, np.float64))
    return np.asarray(1 - 6 * (difference**2).sum(axis=0) / (len(y) * (len(y) ** 2 - 1)))


def _ranks(values: Float64) -> Float64:
    """From 1 on, by column."""
    order = values.argsort(axis=0, kind="stable")
    return (order.argsort(axis=0, kind="stable") + 1).astype(np.float64)


Estimator = Literal["spearman", "sign_cdf", "sign_sign", "sign", "product"]
ESTIMATORS: dict[Estimator, Callable[[ArrayLike, ArrayLike], Float64]] = {
    "spearman": spearman,
    "sign_cdf": sign_cdf,
    "sign_sign": sign_sign,
    "sign": sign,
    "product": product,
}


def project(estimate: ArrayLike, caps: ArrayLike) -> Float64:
    """The weights w of the largest sum of w times estimate, with 0 <= w <= caps and sum w = 1: the
    highest estimates have their caps, the last one the rest. Of equal estimates the first comes
    first.

    Raises:
        TamisError: if the caps make up less than 1, or one of them is not positive.
    """
    estimate, caps = np.asarray(estimate, np.float64), np.asarray(caps, np.float64)
    if not (caps > 0).all() or caps.sum() < 1 - 1e-9:
        raise TamisError(
            f"the caps on weights are positive and make up at least 1, not {caps.sum():g}"
        )
    order = np.argsort(-estimate, kind="stable")
    before = np.append(0.0, caps[order].cumsum()[:-1])
    weights = np.zeros(len(estimate))
    weights[order] = np.clip(1 - before, 0, caps[order])
    return weights


class FitPerplexityCorrelations(FitFromLosses):
    """Trains the classifier of what the projection includes and what it does not."""

    kind: ClassVar[str] = "perplexity_correlations"

    estimator: Estimator = "spearman"
    unit: Literal["document", "group"] = "document"
    """``group``: the bits per byte of the documents of a group (``per_group``) are averaged, and
    the whole group is included or not.
    """
    ratio: float = Field(default=0.1, gt=0, le=1)
    """The share of the text that is wanted: the cap of a unit is its share of the bytes divided by
    this, so that nothing is taken more often than once.
    """

    def judge(self, judged: Judged) -> tuple[Examples, dict[str, Any], list[str]]:
        documents = judged.documents
        whole = np.flatnonzero(~np.isnan(judged.losses).any(axis=0))
        bits = judged.losses[:, whole] / (documents.sizes[whole] * math.log(2))
        sizes = documents.sizes[whole].astype(np.float64)
        unit = np.arange(len(whole))
        if self.unit == "group":
            _, unit = np.unique([documents.groups[row] for row in whole], return_inverse=True)
            count = np.bincount(unit)
            bits = np.array([np.bincount(unit, one) / count for one in bits])
            sizes = np.bincount(unit, sizes).astype(np.float64)
        # Higher benchmark results are lower errors.
        estimate = ESTIMATORS[self.estimator](bits, [-one for one in judged.benchmarks])
        weights = project(estimate, sizes / sizes.sum() / self.ratio)
        included = (weights > 0)[unit]
        n = len(judged.names)
        told = (
            f"{n} models, {len(estimate):,} units: {(weights > 0).sum():,} included, with "
            f"estimates ({self.estimator}) from {estimate[weights > 0].min():.3f} to "
            f"{estimate.max():.3f}; the lowest is {estimate.min():.3f}. By chance a rank "
            f"correlation over {n} models has a standard deviation of {1 / math.sqrt(n - 1):.2f}"
        )
        facts = {
            "units": len(estimate),
            "included": int((weights > 0).sum()),
            "lowest_included": float(estimate[weights > 0].min()),
            "standard_deviation_by_chance": 1 / math.sqrt(n - 1),
        }
        return Examples(whole[included], whole[~included]), facts, [told]
