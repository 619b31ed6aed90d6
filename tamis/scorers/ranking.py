"""Ranks of documents by a score, and the threshold above which a share of the text lies.

A score is compared as a ``key``: a 64-bit number that orders as the scores do. Ranks are amounts
(documents, bytes, tokens...), not places: a document's rank is the amount of those that are better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.pipeline.errors import TamisError

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]

_SIGN = np.uint64(1 << 63)
_CHILDREN = 256
_LEVELS = 8
_LEVEL_BITS = 8


class Scale(NamedTuple):
    """The scores of a group of documents, cut into steps; within a step all rank alike."""

    start: UInt64
    """The lowest key of each step, ascending."""
    ahead: Int64
    """The amount above each step."""
    scored: int
    """The amount of all documents that have a score."""
    rank_error: float = 0.0
    """The largest share of ``scored`` in a step that holds different keys."""

    def steps_of(self, keys: UInt64) -> Int64:
        """The step that each key lies in; that of a key below all is the lowest."""
        places = np.searchsorted(self.start, keys, side="right") - 1
        return np.maximum(places, 0).astype(np.int64)


def sort_keys(values: Float64, highest_first: bool = True) -> UInt64:
    """64-bit numbers that order as the values do (IEEE 754 totalOrder, with -0 equal to 0), the
    best one highest. NaN has no meaningful key.
    """
    signed = np.asarray(values if highest_first else -values, np.float64) + 0.0
    bits = signed.view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def values_of(keys: UInt64, highest_first: bool = True) -> Float64:
    """The values that have these keys."""
    bits = np.where(keys & _SIGN, keys & ~_SIGN, ~keys)
    values = bits.view(np.float64)
    return values if highest_first else -values + 0.0


def top_fraction_threshold(
    scores: Float64, fraction: float, sizes: Int64 | None = None, highest: bool = True
) -> float:
    """The score at which the best documents together exceed ``fraction`` of the total size.

    Documents are taken from the best on; the threshold is the score of the one with which the sum
    of ``sizes`` (n,) exceeds ``fraction`` times the total (NaN scores count for the total). All
    documents at least as good as the threshold are kept, so ties may make it more. This is how
    PreSelect (arXiv:2503.00808) and BETR (arXiv:2507.12466) cut; sizes of None are 1 each.

    Raises:
        TamisError: if no document has a score.
    """
    scores = np.asarray(scores, np.float64)
    amounts = np.ones(len(scores), np.int64) if sizes is None else np.asarray(sizes, np.int64)
    known = ~np.isnan(scores)
    if not known.any():
        raise TamisError("no document has a score: there is no threshold")
    scale = exact_scale(sort_keys(scores[known], highest), amounts[known])
    kept = scale.ahead / max(int(amounts.sum()), 1) <= fraction
    return float(values_of(scale.start[kept][:1], highest)[0])


def exact_scale(keys: UInt64, sizes: Int64) -> Scale:
    """A step for every key that occurs."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.flatnonzero(np.concatenate([np.ones(len(ordered[:1]), bool), np.diff(ordered) > 0]))
    amounts = np.add.reduceat(sizes[order], first) if len(first) else np.zeros(0, np.int64)
    return _scale(ordered[first], amounts, 0.0)


def _scale(start: UInt64, amounts: Int64, rank_error: float) -> Scale:
    through = np.cumsum(amounts, dtype=np.int64)
    total = int(through[-1]) if len(through) else 0
    return Scale(start, total - through, total, rank_error)


Part = tuple[Any, UInt64, Int64]
"""A group, and the keys and sizes of some documents of it."""


def coarse_scales(
    parts: Callable[[], Iterable[Part]], totals: Mapping[Any, int], error: float
) -> dict[Any, Scale]:
    """The scales of groups in steps of at most ``error`` times the group's total, in memory that
    does not grow with the number of documents.

    Counts over the leading bits of the keys: a step that holds too much is cut into 256 by its next
    eight bits, with one more pass over ``parts()``, until it is small enough or holds a single key
    (which is a tie, and no error). The counts are sums: neither the order of the documents nor how
    they are split into parts matters. At most ``256 / error`` counters a group, and eight passes.
    """
    grown = {group: _Growing(error * total) for group, total in totals.items()}
    for level in range(_LEVELS):
        if not any(len(one.open) for one in grown.values()):
            break
        for one in grown.values():
            one.begin()
        for group, keys, sizes in parts():
            grown[group].count(level, keys, sizes)
        for one in grown.values():
            one.split(level)
    return {group: one.scale() for group, one in grown.items()}


class _Growing:
    """The steps of one group while they are cut."""

    def __init__(self, most: float) -> None:
        self.most = most
        # The steps that are cut next, by their leading bits.
        self.open = np.zeros(1, np.uint64)
        self.amounts = self.documents = np.zeros(0, np.int64)
        self.done: list[tuple[UInt64, Int64, bool]] = []

    def begin(self) -> None:
        self.amounts = np.zeros(len(self.open) * _CHILDREN, np.int64)
        self.documents = np.zeros(len(self.open) * _CHILDREN, np.int64)

    def count(self, level: int, keys: UInt64, sizes: Int64) -> None:
        if not len(self.open) or not len(keys):
            return
        children = keys >> np.uint64(64 - _LEVEL_BITS * (level + 1))
        parents = children >> np.uint64(_LEVEL_BITS)
        place = np.searchsorted(self.open, parents)
        place = np.minimum(place, len(self.open) - 1)
        hit = self.open[place] == parents
        slot = place[hit] * _CHILDREN + (children[hit] & np.uint64(_CHILDREN - 1)).astype(np.int64)
        # Sums of whole numbers are exact in float64 below 2^53.
        weighted = np.bincount(slot, sizes[hit], minlength=len(self.amounts))
        self.amounts += weighted.astype(np.int64)
        self.documents += np.bincount(slot, minlength=len(self.amounts))

    def split(self, level: int) -> None:
        present = np.flatnonzero(self.documents)
        prefixes = (self.open[present // _CHILDREN] << np.uint64(_LEVEL_BITS)) | (
            present % _CHILDREN
        ).astype(np.uint64)
        single = level == _LEVELS - 1
        further = (self.amounts[present] > self.most) & (not single)
        shift = np.uint64(64 - _LEVEL_BITS * (level + 1))
        self.done.append((prefixes[~further] << shift, self.amounts[present][~further], single))
        self.open = prefixes[further]

    def scale(self) -> Scale:
        start = np.concatenate([one for one, _, _ in self.done])
        amounts = np.concatenate([one for _, one, _ in self.done])
        order = np.argsort(start)
        # What lies below minus infinity is no number.
        lowest = sort_keys(np.array([-np.inf]))[0]
        mixed = [int(one.max()) for _, one, single in self.done if len(one) and not single]
        scale = _scale(np.maximum(start[order], lowest), amounts[order], 0.0)
        return scale._replace(rank_error=max(mixed, default=0) / max(scale.scored, 1))


def ranks_of_rows(order: Int64, tie_groups: NDArray[np.bool_], sizes: Int64) -> Int64:
    """The amount ahead of each document when they are taken in ``order``, best first.

    Args:
        order: (n,) documents, best first.
        tie_groups: (n,) in that order, True where a document is worse than the one before it; those
            between rank alike.
        sizes: (n,) by document.
    """
    ahead = np.cumsum(sizes[order], dtype=np.int64) - sizes[order]
    first = np.flatnonzero(tie_groups)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.repeat(ahead[first], np.diff(first, append=len(order)))
    return ranks


def places_within(groups: Int64, order: Int64) -> Int64:
    """The place (from 0) of each document among those of its group, when taken in ``order``."""
    by_group = order[np.argsort(groups[order], kind="stable")]
    labels = groups[by_group]
    first = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    places = np.empty(len(order), np.int64)
    places[by_group] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return places


def gumbel_noise(hashes: UInt64) -> Float64:
    """Standard Gumbel noise from uniformly distributed hashes: -log(-log u), u in (0, 1).

    Documents in the order of ``score / temperature + noise`` are a sample without replacement with
    probabilities proportional to exp(score / temperature) (Kool et al. 2019, arXiv:1903.06059).
    """
    uniform = ((hashes >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return np.asarray(-np.log(-np.log(uniform)), np.float64)
