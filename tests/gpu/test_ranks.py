"""Ranks in one pass against everything sorted, in exact integers."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.gpu import ranks
from tamis.gpu.ranks import ranks_on_ladders, sum_over_ranks, top_vectors
from tests.gpu.test_cosine import exact_similarities, unit_vectors


def sorted_all(queries, vectors):
    """(similarities, order) by brute force."""
    scores = exact_similarities(queries, vectors)
    return scores, np.argsort(-scores, axis=1, kind="stable")


@pytest.mark.parametrize(("rows", "columns"), [(1024, 4096), (7, 50), (1, 1), (3, 300)])
@pytest.mark.parametrize("k", [1, 6, 40, 400])
def test_top_vectors_is_the_sorted_list_whatever_the_blocks(monkeypatch, k, rows, columns):
    monkeypatch.setattr(ranks, "ROWS", rows)
    monkeypatch.setattr(ranks, "COLUMNS", columns)
    queries, vectors = unit_vectors(11, 6, seed=3), unit_vectors(300, 6, seed=4, copies=250)
    found = top_vectors(queries, vectors, k)
    scores, order = sorted_all(queries, vectors)
    np.testing.assert_array_equal(found.which[:, :300], order[:, :k])
    expected = np.take_along_axis(scores, order[:, :k], axis=1)
    np.testing.assert_array_equal(found.similarity[:, :300], expected)
    assert (found.which[:, 300:] == -1).all() and np.isnan(found.similarity[:, 300:]).all()


def test_more_equal_vectors_than_are_kept_go_by_index(monkeypatch, tmp_path):
    """All of the cheap products are equal, so that only the exact pass can tell who is first."""
    monkeypatch.setattr(ranks, "COLUMNS", 64)
    vectors = np.repeat(unit_vectors(2, 8), [3, 500], axis=0)[::-1]
    stored = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float32, vectors.shape)
    stored[:] = vectors
    found = top_vectors(vectors[:1], stored, 5)
    assert found.which.tolist() == [[0, 1, 2, 3, 4]]


def test_vectors_closer_than_float32_can_tell_are_in_their_exact_order():
    """Along a circle similarities to the query fall by less than the error of float32."""
    query = np.array([[1, 0]], np.float32)
    angle = 1 + np.linspace(0, 1e-4, 1000)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    shuffled = np.random.default_rng(0).permutation(1000)
    found = top_vectors(query, circle[shuffled], 100)
    scores, order = sorted_all(query, circle[shuffled])
    np.testing.assert_array_equal(found.which, order[:, :100])
    assert len(np.unique(scores[0, order[0, :100]])) > 10


@pytest.mark.parametrize("columns", [4096, 9])
def test_sums_over_ranks(monkeypatch, columns):
    monkeypatch.setattr(ranks, "COLUMNS", columns)
    monkeypatch.setattr(ranks, "_HELD", 100)
    queries, vectors = unit_vectors(9, 5, seed=3), unit_vectors(30, 5, seed=4, copies=20)
    _, order = sorted_all(queries, vectors)
    rank = np.argsort(order, axis=1) + 1
    found = sum_over_ranks(queries, vectors, 1 / np.arange(1.0, 31.0))
    np.testing.assert_allclose(found, (1 / rank).sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("held", [1 << 23, 10])
def test_ranks_on_ladders_are_those_among_the_sample(monkeypatch, held):
    monkeypatch.setattr(ranks, "_HELD", held)
    queries, sample = unit_vectors(5, 4, seed=3), unit_vectors(60, 4, seed=4, copies=30)
    vectors = np.concatenate([sample[:20], unit_vectors(20, 4, seed=6)])
    found = top_vectors(queries, sample, 8)
    rank, query, similarity = ranks_on_ladders(found.similarity, queries, vectors)
    of_sample, scores = exact_similarities(queries, sample), exact_similarities(queries, vectors)
    larger = 1 + (of_sample[:, :, None] > scores[:, None, :]).sum(axis=1)
    expected = larger.min(axis=0)
    within = expected <= 8
    assert 5 < within.sum() < 35
    np.testing.assert_array_equal(rank, np.where(within, expected, 9))
    nearest = np.where(larger == expected, scores, -2)
    np.testing.assert_array_equal(query, np.where(within, nearest.argmax(axis=0), -1))
    np.testing.assert_array_equal(similarity, np.where(within, nearest.max(axis=0), np.nan))


def test_nothing_gives_nothing():
    nothing, some = np.zeros((0, 4), np.float32), unit_vectors(3, 4)
    assert top_vectors(some, nothing, 2).which.tolist() == [[-1, -1]] * 3
    assert top_vectors(nothing, some, 2).which.shape == (0, 2)
    assert sum_over_ranks(nothing, some, np.ones(3)).tolist() == [0, 0, 0]


def test_mistakes_are_named():
    vectors = unit_vectors(3, 4)
    with pytest.raises(ValueError, match="k is 0"):
        top_vectors(vectors, vectors, 0)
    with pytest.raises(ValueError, match=r"queries of shape \(3, 4\) and vectors of \(2, 8\)"):
        top_vectors(vectors, unit_vectors(2, 8), 1)
    with pytest.raises(ValueError, match="vector 0 has the squared length 4"):
        top_vectors(vectors, vectors * 2, 1)
