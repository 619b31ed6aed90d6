"""How near documents are to examples: by the ranks that the examples give them.

Source: Mizrahi et al. 2025 (arXiv:2507.12466, BETR), 3.4 and 3.5. Example i ranks all documents of
a sample by cosine; r_ij = 1 is the document most similar to it. A document's score is

    max               log2 of 1 / min_i r_ij: its best rank is what counts
    mean_log          mean_i of log2(1 / r_ij)
    mean_reciprocal   mean_i of 1 / r_ij

For ``max`` no ranking need go on to its end: if the k first documents of all examples together are
as many as are wanted, nobody behind place k can be among them. The paper does not say who comes
first of documents with the same best rank; here the one that is more similar to its example, then
the one with the lower number.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.gpu import Device
from tamis.gpu.ranks import sum_over_ranks, top_vectors

Aggregation = Literal["max", "mean_log", "mean_reciprocal"]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class BestRanks(NamedTuple):
    """The best rank of each document over all examples."""

    rank: Int64
    """From 1; ``depth`` + 1 for documents behind place ``depth`` of every example."""
    similarity: Float64
    """To the example that gave the rank (the most similar of those); -inf where none did."""
    example: Int64
    """Its number, -1 where none did."""
    depth: int
    """Up to which place the rankings were looked at."""
    ladders: Float64
    """The similarities of each example to its first documents, descending, (examples, depth)."""

    def order(self) -> Int64:
        """The documents that have a rank, best first."""
        ranked = np.flatnonzero(self.example >= 0)
        # The sort is stable: documents that are equal in both stay in the order of their number.
        return ranked[np.lexsort((-self.similarity[ranked], self.rank[ranked]))]

    def scores(self) -> Float64:
        """log2 of 1 / rank: 0 for a document that is an example's first."""
        scores: Float64 = -np.log2(self.rank)
        return scores


def best_ranks(examples: Float32, documents: Any, wanted: int, device: Device = "cpu") -> BestRanks:
    """The best ranks of documents, exact for the ``wanted`` best and maybe more.

    Args:
        examples: unit vectors of shape (n, d), n at least 1.
        documents: unit vectors of shape (m, d), an array or a memory map.
        wanted: how many documents are to have a rank; at most m.
        device: where to compute; the result is the same, bit for bit.

    Raises:
        ValueError: if vectors are not of unit length.
        GpuUnavailableError: if ``cuda`` cannot be used here.
    """
    most = len(documents)
    depth = min(most, max(1, math.ceil(2 * wanted / len(examples))))
    while True:
        found = top_vectors(examples, documents, depth, device)
        covered = _covered(found.which, most)
        if covered[-1] >= wanted:
            return _gathered(found.which, found.similarity, most)
        depth = min(most, _deeper(covered, wanted))


def _covered(which: Int64, count: int) -> Int64:
    """How many documents are among the first 1, 2, ... of any example."""
    first = np.full(count, which.shape[1])
    places = np.broadcast_to(np.arange(which.shape[1]), which.shape)
    np.minimum.at(first, which.ravel(), places.ravel())
    covered: Int64 = np.cumsum(np.bincount(first, minlength=which.shape[1] + 1)[:-1])
    return covered


def _deeper(covered: Int64, wanted: int) -> int:
    """How deep to look next: the number of documents is taken to go on growing as a power of the
    depth, as it did from half of it.
    """
    depth = len(covered)
    half, whole = float(covered[max(0, depth // 2 - 1)]), float(covered[-1])
    growth = math.log2(whole / half) if depth > 1 else 0.0
    factor = float((1.1 * wanted / whole) ** (1 / max(growth, 0.25)))
    return math.ceil(depth * min(max(factor, 1.5), 16.0))


def _gathered(which: Int64, similarity: Float64, count: int) -> BestRanks:
    examples, depth = which.shape
    rank = np.broadcast_to(np.arange(1, depth + 1), which.shape).ravel()
    example = np.repeat(np.arange(examples), depth)
    document, score = which.ravel(), similarity.ravel()
    order = np.lexsort((example, -score, rank, document))
    order = order[np.diff(document[order], prepend=-1) != 0]
    best = BestRanks(
        np.full(count, depth + 1),
        np.full(count, -np.inf),
        np.full(count, -1),
        depth,
        similarity,
    )
    best.rank[document[order]] = rank[order]
    best.similarity[document[order]] = score[order]
    best.example[document[order]] = example[order]
    return best


def mean_scores(
    examples: Float32, documents: Any, aggregation: Aggregation, device: Device = "cpu"
) -> Float64:
    """The score of each document by a mean over all examples, shape (m,). Every example's ranking
    of all documents is needed: n sorts of m numbers.

    Args:
        examples: unit vectors of shape (n, d), n at least 1.
        documents: unit vectors of shape (m, d), an array or a memory map.
        aggregation: mean_log or mean_reciprocal.
        device: where to compute.

    Raises:
        ValueError: for ``max``, or if vectors are not of unit length.
        GpuUnavailableError: if ``cuda`` cannot be used here.
    """
    ranks = np.arange(1.0, len(documents) + 1)
    if aggregation == "max":
        raise ValueError("max is no mean: see best_ranks")
    values = -np.log2(ranks) if aggregation == "mean_log" else 1 / ranks
    return sum_over_ranks(examples, documents, values, device) / len(examples)
