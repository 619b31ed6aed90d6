"""Cosine similarity of embeddings, block by block: nearest earlier neighbour, top k, k-means steps.

The similarity of two unit vectors is *defined* here so that it has the same bits on every machine,
whatever the blocks, threads or tensor cores: components are rounded to multiples of 2^-26, and the
sum of their products is exact. It is: with q = rint(x * 2^26), every partial sum of q_i * q_j is an
integer of about 2^52 at most (Cauchy-Schwarz), which float64 holds exactly in any order of
summation. So ordinary matrix products of float64 give it, and ties are real ties; they go to the
lowest index.

Where only the best or what is above a threshold matters, a cheaper product goes first (``screens``)
and everything within its largest possible error is scored exactly: no result depends on it.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.gpu import Device, array_module, on_host
from tamis.gpu.screens import (
    COLUMNS,
    ROWS,
    leaders_in_float32,
    leaders_in_triton,
    nearest_in_float32,
    nearest_in_triton,
    row_blocks,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_SCALE = float(1 << 26)
UNSCALE = 1.0 / _SCALE**2
"""A sum of products of ``fixed_point`` vectors times this is their similarity."""
# Vectors that are on the device at a time while they are assigned.
_RESIDENT = 1 << 18
# A squared length in float32 is off by far less; a vector that is not normalised by far more.
_NORM_TOLERANCE = 1e-3


class Nearest(NamedTuple):
    """For each vector the largest similarity to another, and which one: the lowest index of those
    that reach it. NaN and -1 where there is none.
    """

    similarity: Float64
    which: Int64


def nearest_earlier(
    vectors: Float32, bounds: Int64, above: float | None = None, device: Device = "cpu"
) -> Nearest:
    """For each vector the most similar of the *earlier* vectors of its cluster.

    Args:
        vectors: unit vectors of shape (n, d), cluster by cluster, each in the order in which its
            members are to be kept.
        bounds: cluster c is ``vectors[bounds[c]:bounds[c + 1]]``; shape (clusters + 1,), from 0
            to n.
        above: only similarities of at least this much are wanted; vectors without one count as
            having none, which saves the exact product for most.
        device: where to compute; the result is the same, bit for bit.

    Raises:
        ValueError: if vectors are not of unit length or bounds do not cover them.
        GpuUnavailableError: if ``cuda`` cannot be used here.
    """
    vectors = checked_vectors(vectors)
    bounds = np.asarray(bounds, np.int64)
    ends = bounds[0] == 0 and bounds[-1] == len(vectors) if len(bounds) else False
    if not ends or (np.diff(bounds) < 0).any():
        raise ValueError(f"bounds must rise from 0 to {len(vectors)}, the number of vectors")
    xp = array_module(device)
    similarity, which = np.full(len(vectors), np.nan), np.full(len(vectors), -1, np.int64)
    resident = xp.asarray(vectors)
    later = np.ones(len(vectors) + 1, np.bool_)
    later[bounds] = False
    rows = np.flatnonzero(later)
    if above is not None:
        screen = nearest_in_float32 if device == "cpu" else nearest_in_triton
        about, error = screen(resident, rows, bounds, xp)
        rows = rows[about >= above - error]
    for low, part in row_blocks(rows, bounds):
        earlier, before = resident[low : int(part[-1])], xp.asarray(part - low)
        best, where = _exact_best(resident[xp.asarray(part)], earlier, xp, before)
        wanted = np.ones(len(part), np.bool_) if above is None else best >= above
        similarity[part[wanted]] = best[wanted]
        which[part[wanted]] = where[wanted] + low
    return Nearest(similarity, which)


def assign(vectors: Float32, centroids: Float32, device: Device = "cpu") -> Nearest:
    """The most similar centroid of each vector: the assignment step of spherical k-means.

    Args:
        vectors: unit vectors of shape (n, d).
        centroids: unit vectors of shape (k, d); at least one.
        device: where to compute; the result is the same, bit for bit.

    Raises:
        ValueError: if there is no centroid, or if vectors or centroids are not of unit length or
            not as wide as each other.
        GpuUnavailableError: if ``cuda`` cannot be used here.
    """
    vectors, centroids = _checked_pair(vectors, centroids)
    if not len(centroids):
        raise ValueError("there is no centroid to assign vectors to")
    xp = array_module(device)
    resident = xp.asarray(centroids)
    screen = leaders_in_float32 if device == "cpu" else leaders_in_triton
    similarity, which = np.empty(len(vectors)), np.empty(len(vectors), np.int64)
    for begin in range(0, len(vectors), _RESIDENT):
        part = slice(begin, begin + _RESIDENT)
        here = xp.asarray(vectors[part])
        found = screen(here, resident, xp)
        close = np.flatnonzero(found.lead <= 2 * found.error)
        for first in range(0, len(close), ROWS):
            rows = close[first : first + ROWS]
            found.which[rows] = _exact_best(here[xp.asarray(rows)], resident, xp)[1]
        which[part] = found.which
        similarity[part] = _exact_pairs(here, resident, found.which, xp)
    return Nearest(similarity, which)


def cluster_sums(vectors: Float32, which: Int64, count: int) -> tuple[Float64, Int64]:
    """(sums, sizes): the sum of the vectors of each cluster, shape (count, d), and how many they
    are: the update step of k-means, before the sums are normalised.

    The sums are exact for the rounded vectors, whatever their order, up to 2^26 vectors a cluster.
    """
    vectors = checked_vectors(vectors)
    order = np.argsort(which, kind="stable")
    sizes = np.bincount(which, minlength=count)
    sums = np.zeros((count, vectors.shape[1]))
    for begin in range(0, len(order), ROWS):
        part = order[begin : begin + ROWS]
        clusters, first = np.unique(which[part], return_index=True)
        sums[clusters] += np.add.reduceat(fixed_point(vectors[part], np), first, axis=0)
    return sums / _SCALE, sizes


def top_cosine(queries: Float32, vectors: Float32, k: int, device: Device = "cpu") -> Nearest:
    """The ``k`` vectors that are most similar to each query, most similar first, ties by index.

    Args:
        queries: unit vectors of shape (n, d).
        vectors: unit vectors of shape (m, d); where m < k the last columns are NaN and -1.
        k: how many; at least 1.
        device: where to compute; the result is the same, bit for bit.

    Returns:
        similarity and which, both of shape (n, k).

    Raises:
        ValueError: if vectors are not of unit length or not as wide as each other, or k is below 1.
        GpuUnavailableError: if ``cuda`` cannot be used here.
    """
    queries, vectors = _checked_pair(queries, vectors)
    if k < 1:
        raise ValueError(f"k is {k}, but must be at least 1")
    xp = array_module(device)
    similarity = np.full((len(queries), k), np.nan)
    which = np.full((len(queries), k), -1, np.int64)
    resident = xp.asarray(vectors)
    for begin in range(0, len(queries), ROWS):
        rows = slice(begin, begin + ROWS)
        best, where = _exact_top(xp.asarray(queries[rows]), resident, k, xp)
        similarity[rows, : best.shape[1]] = best
        which[rows, : best.shape[1]] = where
    return Nearest(similarity, which)


def _exact_top(queries: Any, vectors: Any, k: int, xp: ModuleType) -> tuple[Float64, Int64]:
    """(similarity, index) of the best ``min(k, len(vectors))``, with a running selection of k."""
    scaled = fixed_point(queries, xp)
    best = xp.zeros((len(queries), 0))
    where = xp.zeros((len(queries), 0), xp.int64)
    for first in range(0, len(vectors), COLUMNS):
        part = vectors[first : first + COLUMNS]
        scores = xp.concatenate([best, scaled @ fixed_point(part, xp).T], axis=1)
        index = xp.broadcast_to(xp.arange(first, first + len(part)), (len(queries), len(part)))
        index = xp.concatenate([where, index], axis=1)
        # Earlier columns have lower indices, and the sort is stable: ties stay in order.
        order = xp.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = xp.take_along_axis(scores, order, axis=1)
        where = xp.take_along_axis(index, order, axis=1)
    return on_host(best) * UNSCALE, on_host(where)


def _exact_best(
    queries: Any, vectors: Any, xp: ModuleType, before: Any = None
) -> tuple[Float64, Int64]:
    """(similarity, index) of the best vector for each query; of those with an index below
    ``before[query]`` (at least 1 each) where that is given.
    """
    scaled = fixed_point(queries, xp)
    best = xp.full(len(queries), -xp.inf)
    where = xp.full(len(queries), -1, xp.int64)
    for first in range(0, len(vectors), COLUMNS):
        part = vectors[first : first + COLUMNS]
        scores = scaled @ fixed_point(part, xp).T
        if before is not None:
            scores[xp.arange(first, first + len(part))[None, :] >= before[:, None]] = -xp.inf
        leader = scores.argmax(axis=1)
        value = scores[xp.arange(len(queries)), leader]
        better = value > best
        best = xp.where(better, value, best)
        where = xp.where(better, leader + first, where)
    return on_host(best) * UNSCALE, on_host(where)


def _exact_pairs(vectors: Any, others: Any, which: Int64, xp: ModuleType) -> Float64:
    """The similarity of each vector i to ``others[which[i]]``."""
    found = np.empty(len(vectors))
    for begin in range(0, len(vectors), ROWS):
        part = slice(begin, begin + ROWS)
        other = fixed_point(others[xp.asarray(which[part])], xp)
        found[part] = on_host((fixed_point(vectors[part], xp) * other).sum(axis=1)) * UNSCALE
    return found


def fixed_point(vectors: Any, xp: ModuleType) -> Any:
    """The vectors as integers in float64: multiples of 2^-26, rounded."""
    return xp.rint(vectors.astype(xp.float64) * _SCALE)


def _checked_pair(vectors: Any, others: Any) -> tuple[Float32, Float32]:
    vectors, others = checked_vectors(vectors), checked_vectors(others)
    if vectors.shape[1] != others.shape[1]:
        raise ValueError(f"vectors of width {vectors.shape[1]} and of width {others.shape[1]}")
    return vectors, others


def checked_vectors(vectors: Any) -> Float32:
    """The vectors as a contiguous matrix of float32.

    Raises:
        ValueError: if they are no matrix, or one of them is not of unit length.
    """
    array = np.ascontiguousarray(vectors, np.float32)
    if array.ndim != 2:
        raise ValueError(f"vectors must be a matrix, not of shape {array.shape}")
    squares = np.einsum("ij,ij->i", array, array)
    off = np.flatnonzero(~(np.abs(squares - 1) <= _NORM_TOLERANCE))
    if len(off):
        raise ValueError(
            f"vector {off[0]} has the squared length {squares[off[0]]:.6g}: normalise it to 1"
        )
    return array
