"""Bands and rows: which pairs of documents become candidates.

A signature of b * r positions is cut into b bands of r rows. Two documents of Jaccard similarity J
share a band with the probability 1 - (1 - J^r)^b, an S-shaped curve that rises where J is about
(1/b)^(1/r).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray


def candidate_probability(jaccard: float, bands: int, rows: int) -> float:
    """The probability that two documents of this Jaccard similarity share a band: 1 - (1 -
    J^rows)^bands.
    """
    return float(1.0 - (1.0 - jaccard**rows) ** bands)


@functools.cache
def optimal_banding(
    threshold: float, permutations: int, bands: int | None = None, rows: int | None = None
) -> tuple[int, int]:
    """(bands, rows), bands * rows <= permutations, that best tell pairs below the threshold from
    those above.

    It minimises half the area under the curve of ``candidate_probability`` below the threshold
    (false positives) plus half the area above the curve beyond it (false negatives), as datasketch
    and text-dedup do. ``bands`` or ``rows`` leave the other one to be found. The areas are those of
    polynomials of degree bands * rows, which Gauss-Legendre quadrature integrates exactly.

    Raises:
        ValueError: if the bands or rows that are given do not fit into the permutations.
    """
    nodes, weights = np.polynomial.legendre.leggauss(permutations // 2 + 1)
    below = threshold * (nodes + 1) / 2
    above = threshold + (1 - threshold) * (nodes + 1) / 2
    best, smallest = None, np.inf
    for b in range(1, permutations + 1) if bands is None else (bands,):
        for r in range(1, permutations // b + 1) if rows is None else (rows,):
            if b * r > permutations:
                continue
            false_positives = threshold * _mean(_found(below, b, r), weights)
            false_negatives = (1 - threshold) * (1 - _mean(_found(above, b, r), weights))
            area = false_positives + false_negatives
            if area < smallest:
                best, smallest = (b, r), area
    if best is None:
        raise ValueError(f"{permutations} permutations are too few for {bands or rows}")
    return best


def _found(jaccard: NDArray[np.float64], bands: int, rows: int) -> NDArray[np.float64]:
    return 1 - (1 - jaccard**rows) ** bands


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float(values @ weights) / 2
