"""Which vectors of a large set are most similar to each of some queries, in one pass over the set.

Similarities are those of ``cosine``: exact, with real ties, which go to the lowest index. Products
of float32 go first and keep somewhat more vectors than are wanted; these are scored exactly, and
where the largest possible error of the cheap product could have hidden one, the query is scored
exactly against everything. So no result depends on blocks, threads or device.

The set may be a memory map. In memory are a block of it (``COLUMNS`` vectors), a block of products
(``ROWS`` x ``COLUMNS``, 16 MiB in float32, and about as much again for what is chosen from them),
and about 28 bytes for each of the k best of each query.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.gpu import Device, array_module, on_host
from tamis.gpu.cosine import UNSCALE, Nearest, checked_vectors, fixed_point, top_cosine
from tamis.gpu.screens import float32_error

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

ROWS = 1024
COLUMNS = 4096
# Numbers of float64 that are held at a time beside the blocks: 64 MiB.
_HELD = 1 << 23


def top_vectors(queries: Float32, vectors: Any, k: int, device: Device = "cpu") -> Nearest:
    """The ``k`` vectors that are most similar to each query, most similar first, ties by index:
    what ``top_cosine`` gives, for large k and sets that do not fit into memory.

    Args:
        queries: unit vectors of shape (n, d).
        vectors: unit vectors of shape (m, d) in float32, an array or a memory map.
        k: how many; at least 1. Where m < k the last columns are NaN and -1.
        device: where to compute; the result is the same, bit for bit.

    Raises:
        ValueError: if vectors are not of unit length or not as wide as each other, or k is below 1.
        GpuUnavailableError: if ``cuda`` cannot be used here.
    """
    queries = checked_vectors(queries)
    if vectors.ndim != 2 or vectors.shape[1] != queries.shape[1]:
        raise ValueError(f"queries of shape {queries.shape} and vectors of {vectors.shape}")
    if k < 1:
        raise ValueError(f"k is {k}, but must be at least 1")
    found = Nearest(np.full((len(queries), k), np.nan), np.full((len(queries), k), -1, np.int64))
    wanted = min(k, len(vectors))
    if not wanted or not len(queries):
        return found
    which, floor = _screened(queries, vectors, min(len(vectors), k + k // 8 + 16), device)
    for begin in range(0, len(queries), step := max(1, _HELD // which[0].size // queries.shape[1])):
        rows = slice(begin, begin + step)
        best = _rescored(queries[rows], vectors, which[rows])
        found.similarity[rows, :wanted] = best.similarity[:, :wanted]
        found.which[rows, :wanted] = best.which[:, :wanted]
    if which.shape[1] < len(vectors):
        error = float32_error(queries.shape[1])
        unsure = np.flatnonzero(found.similarity[:, -1] <= floor + error)
        if len(unsure):
            again = top_cosine(queries[unsure], np.asarray(vectors), k, device)
            found.similarity[unsure], found.which[unsure] = again
    return found


def sum_over_ranks(
    queries: Float32, vectors: Any, values: Float64, device: Device = "cpu"
) -> Float64:
    """For each vector the sum over the queries of ``values[r - 1]``, where r is its rank among all
    vectors by similarity to the query: 1 for the most similar, ties by index. Shape (m,).

    The sums are made query by query, in order: they have the same bits whatever the blocks. A query
    is a sort of all vectors, and a block of queries takes up to 64 MiB, or a row if that is more.

    Args:
        queries: unit vectors of shape (n, d).
        vectors: unit vectors of shape (m, d), an array or a memory map.
        values: shape (m,).
        device: where to compute.

    Raises:
        ValueError: if vectors are not of unit length.
        GpuUnavailableError: if ``cuda`` cannot be used here.
    """
    xp = array_module(device)
    queries = checked_vectors(queries)
    total, table = xp.zeros(len(vectors)), xp.asarray(values)
    step = max(1, _HELD // max(1, len(vectors)))
    for begin in range(0, len(queries), step):
        scaled = fixed_point(xp.asarray(queries[begin : begin + step]), xp)
        scores = xp.empty((len(scaled), len(vectors)))
        for first in range(0, len(vectors), COLUMNS):
            part = xp.asarray(checked_vectors(vectors[first : first + COLUMNS]))
            scores[:, first : first + len(part)] = scaled @ fixed_point(part, xp).T
        for row in scores:
            # The sort is stable: equal scores stay in the order of their index.
            total[xp.argsort(-row, kind="stable")] += table
    sums: Float64 = on_host(total)
    return sums


class Placed(NamedTuple):
    """The best rank of each vector, of all queries."""

    rank: Int64
    query: Int64
    """The query that gives it: of several the most similar, then the first."""
    similarity: Float64
    """To this query."""


def ranks_on_ladders(
    ladders: Float64, queries: Float32, vectors: Float32, device: Device = "cpu"
) -> Placed:
    """The best rank that each vector would have among the vectors that the ladders were made of;
    k + 1, -1 and NaN where it is among the best k of no query.

    A rank is 1 + the number of similarities of the query's ladder that are larger.

    Args:
        ladders: the k largest similarities to each query, descending, shape (n, k).
        queries: unit vectors of shape (n, d).
        vectors: unit vectors of shape (m, d).
        device: where to compute; the result is the same, bit for bit.

    Raises:
        ValueError: if vectors are not of unit length.
        GpuUnavailableError: if ``cuda`` cannot be used here.
    """
    xp = array_module(device)
    queries, vectors = checked_vectors(queries), checked_vectors(vectors)
    depth = ladders.shape[1]
    placed = Placed(
        np.full(len(vectors), depth + 1),
        np.full(len(vectors), -1),
        np.full(len(vectors), np.nan),
    )
    resident = fixed_point(xp.asarray(queries), xp).T
    steps = xp.asarray(ladders / UNSCALE)
    for begin in range(0, len(vectors), step := max(1, _HELD // max(1, len(queries)))):
        scores = fixed_point(xp.asarray(vectors[begin : begin + step]), xp) @ resident
        row, column = xp.nonzero(scores >= steps[:, -1])
        score = scores[row, column]
        place = on_host(_count_larger(steps, column, score, xp))
        row, column, score = on_host(row), on_host(column), on_host(score)
        order = np.lexsort((column, -score, place, row))
        order = order[np.diff(row[order], prepend=-1) != 0]
        placed.rank[begin + row[order]] = place[order] + 1
        placed.query[begin + row[order]] = column[order]
        placed.similarity[begin + row[order]] = score[order] * UNSCALE
    return placed


def _count_larger(ladders: Any, row: Any, score: Any, xp: ModuleType) -> Any:
    """How many steps of the ladder of each row are above the score: by bisection."""
    low, high = xp.zeros_like(row), xp.full_like(row, ladders.shape[1])
    for _ in range(int(ladders.shape[1]).bit_length()):
        middle = (low + high) // 2
        above = (ladders[row, xp.minimum(middle, ladders.shape[1] - 1)] > score) & (low < high)
        low, high = xp.where(above, middle + 1, low), xp.where(above, high, middle)
    return low


def _screened(queries: Float32, vectors: Any, width: int, device: Device) -> tuple[Int64, Float32]:
    """(which, floor): ``width`` vectors of the largest products with each query in float32, and the
    smallest of their products, which no other vector exceeds.
    """
    xp = array_module(device)
    resident = xp.asarray(queries)
    score = xp.full((len(queries), width), -xp.inf, xp.float32)
    index = xp.full((len(queries), width), -1, xp.int64)
    for first in range(0, len(vectors), COLUMNS):
        part = xp.asarray(checked_vectors(vectors[first : first + COLUMNS]))
        for begin in range(0, len(queries), ROWS):
            rows = slice(begin, begin + ROWS)
            _keep_largest(score[rows], index[rows], resident[rows] @ part.T, first, xp)
    return on_host(index), on_host(score.min(axis=1))


def _keep_largest(score: Any, index: Any, products: Any, first: int, xp: ModuleType) -> None:
    """Merge the products with the vectors from ``first`` on into the best so far, in place."""
    larger = products > score.min(axis=1)[:, None]
    count = larger.sum(axis=1)
    most = int(count.max())
    if not most:
        return
    if most * 4 > products.shape[1]:
        more = products
        where = xp.broadcast_to(xp.arange(first, first + products.shape[1]), products.shape)
    else:
        row, column = xp.nonzero(larger)
        place = xp.arange(len(row)) - (xp.cumsum(count) - count)[row]
        more = xp.full((len(score), most), -xp.inf, xp.float32)
        where = xp.full((len(score), most), -1, xp.int64)
        more[row, place] = products[row, column]
        where[row, place] = column + first
    more = xp.concatenate([score, more], axis=1)
    best = xp.argpartition(-more, score.shape[1] - 1, axis=1)[:, : score.shape[1]]
    index[:] = xp.take_along_axis(xp.concatenate([index, where], axis=1), best, axis=1)
    score[:] = xp.take_along_axis(more, best, axis=1)


def _rescored(queries: Float32, vectors: Any, which: Int64) -> Nearest:
    """The chosen vectors of each query with their exact similarities, most similar first."""
    which = np.sort(which, axis=1)
    chosen = fixed_point(np.asarray(vectors[which.ravel()]), np)
    chosen = chosen.reshape(*which.shape, queries.shape[1])
    exact = np.matmul(chosen, fixed_point(queries, np)[:, :, None])[:, :, 0] * UNSCALE
    order = np.argsort(-exact, axis=1, kind="stable")
    return Nearest(
        np.take_along_axis(exact, order, axis=1), np.take_along_axis(which, order, axis=1)
    )
