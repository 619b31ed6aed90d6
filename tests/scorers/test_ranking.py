"""Thresholds and ranks: by hand, and against what a loop over the documents says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.pipeline.errors import TamisError
from tamis.scorers.ranking import (
    Scale,
    coarse_scales,
    exact_scale,
    gumbel_noise,
    places_within,
    sort_keys,
    top_fraction_threshold,
    values_of,
)

NUMBERS = st.floats(allow_nan=False, width=64)
DOCUMENTS = st.lists(st.tuples(NUMBERS, st.integers(0, 50)), min_size=1, max_size=60)


def loop_threshold(scores: list[float], sizes: list[int], fraction: float) -> float:
    """The sentence of the papers, word for word."""
    order = sorted(range(len(scores)), key=lambda one: -scores[one])
    total, cumulative = sum(sizes), 0
    for one in order:
        cumulative += sizes[one]
        if cumulative / max(total, 1) > fraction:
            return scores[one]
    return min(scores)


@given(st.lists(NUMBERS, min_size=2, max_size=30))
def test_keys_order_as_the_values_do(values: list[float]) -> None:
    keys = sort_keys(np.array(values))
    for one, key in zip(values, keys, strict=True):
        for other, other_key in zip(values, keys, strict=True):
            assert (one < other) == (key < other_key)
    assert values_of(keys).tolist() == values
    assert values_of(sort_keys(np.array(values), False), False).tolist() == values


def test_the_threshold_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    sizes = np.array([10, 20, 30, 20, 20])
    # 30 of 100 do not exceed 30 %: the third document is the one that does.
    assert top_fraction_threshold(scores, 0.30, sizes) == 0.7
    assert top_fraction_threshold(scores, 0.29, sizes) == 0.8
    assert top_fraction_threshold(scores, 0.0, sizes) == 0.9
    assert top_fraction_threshold(scores, 1.0, sizes) == 0.5
    assert top_fraction_threshold(scores, 0.2, sizes, highest=False) == 0.6
    assert top_fraction_threshold(scores, 0.2) == 0.8
    saturated = np.array([1.0, 1.0, 1.0, 0.2])
    assert top_fraction_threshold(saturated, 0.1) == 1.0
    # A document without a score counts for the total, and is never the threshold.
    with_nan = np.array([np.nan, 0.9, 0.8])
    assert top_fraction_threshold(with_nan, 0.3) == 0.9
    assert top_fraction_threshold(with_nan, 0.34) == 0.8
    with pytest.raises(TamisError, match="no document has a score"):
        top_fraction_threshold(np.array([np.nan]), 0.1)


@given(DOCUMENTS, st.floats(0, 1))
def test_the_threshold_is_that_of_a_loop(
    documents: list[tuple[float, int]], fraction: float
) -> None:
    scores, sizes = zip(*documents, strict=True)
    found = top_fraction_threshold(np.array(scores), fraction, np.array(sizes))
    assert found == loop_threshold(list(scores), list(sizes), fraction)


@given(DOCUMENTS, st.sampled_from([0.3, 0.1, 0.02]), st.randoms())
@settings(max_examples=60)
def test_coarse_ranks_are_within_their_bound(
    documents: list[tuple[float, int]], error: float, random: object
) -> None:
    scores = np.array([one for one, _ in documents])
    sizes = np.array([size for _, size in documents], np.int64)
    keys = sort_keys(scores)
    total = int(sizes.sum())
    exact = exact_scale(keys, sizes)
    half = len(keys) // 2
    parts = [("", keys[:half], sizes[:half]), ("", keys[half:], sizes[half:])]
    coarse = coarse_scales(lambda: parts, {"": total}, error)[""]
    again = coarse_scales(lambda: parts[::-1], {"": total}, error)[""]
    assert np.array_equal(coarse.start, again.start)
    assert np.array_equal(coarse.ahead, again.ahead)
    assert coarse.rank_error <= error
    true = exact.ahead[exact.steps_of(keys)]
    found = coarse.ahead[coarse.steps_of(keys)]
    assert (found <= true).all()
    assert ((true - found) <= coarse.rank_error * total + 1e-9).all()


def test_coarse_ranks_of_a_saturated_score_are_exact_where_it_counts() -> None:
    generator = np.random.default_rng(0)
    scores = np.where(generator.random(20_000) < 0.5, 1.0, generator.random(20_000))
    keys, sizes = sort_keys(scores), np.ones(20_000, np.int64)
    coarse = coarse_scales(lambda: [("", keys, sizes)], {"": 20_000}, 1e-3)[""]
    exact = exact_scale(keys, sizes)
    assert isinstance(coarse, Scale)
    assert len(coarse.start) < len(exact.start)
    assert 0 < coarse.rank_error <= 1e-3
    # Half of the documents are one tie: that is a step of its own, and no error.
    assert coarse.ahead[-1] == exact.ahead[-1] == 0
    assert coarse.ahead[-2] == exact.ahead[-2] == np.count_nonzero(scores == 1.0)


def test_groups_are_cut_each_by_itself() -> None:
    one, other = sort_keys(np.arange(100.0)), sort_keys(np.arange(-50.0, 0.0))
    ones = np.ones(100, np.int64)
    parts = [("a", one, ones), ("b", other, ones[:50])]
    found = coarse_scales(lambda: parts, {"a": 100, "b": 50, "none": 0}, 0.05)
    assert (found["a"].scored, found["b"].scored, found["none"].scored) == (100, 50, 0)
    assert all(scale.rank_error <= 0.05 for scale in found.values())


def test_places_within_clusters() -> None:
    groups = np.array([1, 0, 1, 1, 0])
    order = np.array([3, 4, 0, 1, 2])
    assert places_within(groups, order).tolist() == [1, 1, 2, 0, 0]


def test_gumbel_noise_is_standard() -> None:
    hashes = np.random.default_rng(1).integers(0, 1 << 63, 200_000, np.uint64) * np.uint64(2)
    noise = gumbel_noise(hashes)
    # Mean and variance of the standard Gumbel distribution.
    assert noise.mean() == pytest.approx(0.5772156649, abs=0.01)
    assert noise.var() == pytest.approx(math.pi**2 / 6, abs=0.03)
    ends = gumbel_noise(np.array([0, (1 << 64) - 1], np.uint64))
    assert np.isfinite(ends).all()
