"""Verification: clusters in which every document is as similar as asked to the one that is kept.

Banding finds candidates; some are less similar than the threshold, and a chain of similar pairs may
join documents that have little in common. Here each cluster of candidates is split, by the exact
Jaccard similarity of their sets of shingles: in the order of the keep rule, a document joins the
first kept document of its cluster that it is similar enough to, else it is kept itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.filters.dedup.types import Int64, UInt32
from tamis.kernel import kernel

Floats = NDArray[np.float64]

# Shingles of whole clusters that are in memory at once (256 MB), unless one cluster has more.
_MOST_SHINGLES = 1 << 26


class Stars(NamedTuple):
    """For each document, by its position: the one that is kept for it (itself if it is kept), and
    its Jaccard similarity to that one (NaN for itself).
    """

    keeper: Int64
    similarity: Floats


def groups_of_clusters(cluster_first: Int64, sizes: Int64) -> Iterator[tuple[int, int]]:
    """Ranges of clusters (low, high) with not too many shingles together; ``sizes`` are the numbers
    of shingles of the documents, cluster by cluster.
    """
    before = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=before[1:])
    bounds = before[cluster_first]
    low = 0
    while low < len(cluster_first) - 1:
        limit = int(np.searchsorted(bounds, bounds[low] + _MOST_SHINGLES, side="right")) - 1
        high = max(limit, low + 1)
        yield low, high
        low = high


def split_clusters(
    cluster_first: Int64,
    sets: tuple[Int64, UInt32],
    always_kept: NDArray[np.bool_],
    threshold: float,
) -> Stars:
    """Split clusters of documents in keep order; see the module.

    Args:
        cluster_first: the documents of cluster c are ``cluster_first[c]:cluster_first[c + 1]``.
        sets: (first, value): the shingles of document d are ``value[first[d]:first[d + 1]]``,
            ascending and distinct.
        always_kept: documents that are kept whatever they resemble.
        threshold: the smallest Jaccard similarity of duplicates.
    """
    count = len(always_kept)
    stars = Stars(np.arange(count), np.full(count, np.nan))
    _split(cluster_first, *sets, always_kept, threshold, *stars)
    return stars


@kernel
def jaccard(value: UInt32, one: tuple[int, int], other: tuple[int, int], threshold: float) -> float:
    """The Jaccard similarity of two ascending sets, given by their ranges of ``value``; 0 if it
    turns out below the threshold.
    """
    i, j = one[0], other[0]
    total = one[1] - one[0] + other[1] - other[0]
    # common / (total - common) >= threshold needs so many; one less guards against rounding.
    needed = np.int64(threshold / (1.0 + threshold) * total) - 1
    common = 0
    while i < one[1] and j < other[1]:
        if common + min(one[1] - i, other[1] - j) < needed:
            return 0.0
        a, b = value[i], value[j]
        common += int(a == b)
        i += int(a <= b)
        j += int(b <= a)
    return common / (total - common)


@kernel
def _split(
    cluster_first: Int64,
    first: Int64,
    value: UInt32,
    always_kept: NDArray[np.bool_],
    threshold: float,
    keeper: Int64,
    similarity: Floats,
) -> None:
    for cluster in range(cluster_first.size - 1):
        low, high = cluster_first[cluster], cluster_first[cluster + 1]
        kept = np.empty(high - low, np.int64)
        count = 0
        for document in range(low, high):
            mine = (first[document], first[document + 1])
            found = -1
            if not always_kept[document]:
                for k in range(count):
                    theirs = (first[kept[k]], first[kept[k] + 1])
                    small = min(mine[1] - mine[0], theirs[1] - theirs[0])
                    large = max(mine[1] - mine[0], theirs[1] - theirs[0])
                    if small < threshold * large * 0.999999:
                        continue
                    found_similarity = jaccard(value, mine, theirs, threshold)
                    if found_similarity >= threshold:
                        found = kept[k]
                        keeper[document] = found
                        similarity[document] = found_similarity
                        break
            if found < 0:
                kept[count] = document
                count += 1
