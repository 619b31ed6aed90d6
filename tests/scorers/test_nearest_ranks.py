"""Best ranks against all ranks, and the planted design of the specification."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.gpu import ranks as gpu_ranks
from tamis.scorers.betr import rank_vectors
from tamis.scorers.nearest_ranks import best_ranks, mean_scores
from tests.gpu.test_cosine import exact_similarities, unit_vectors


def all_ranks(examples, documents):
    """(ranks, similarities) of shape (examples, documents), by brute force."""
    scores = exact_similarities(examples, documents)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argsort(order, axis=1) + 1, scores


def brute_order(examples, documents):
    """The documents by best rank, similarity to the example that gives it, and number."""
    rank, scores = all_ranks(examples, documents)
    best = rank.min(axis=0)
    similarity = np.where(rank == best, scores, -2).max(axis=0)
    count = range(len(documents))
    return sorted(count, key=lambda j: (best[j], -similarity[j], j)), best, similarity


@pytest.mark.parametrize("wanted", [1, 5, 37, 120])
@pytest.mark.parametrize("blocks", [(1024, 4096), (2, 7)])
def test_the_best_of_the_union_are_the_best_of_all(monkeypatch, wanted, blocks):
    monkeypatch.setattr(gpu_ranks, "ROWS", blocks[0])
    monkeypatch.setattr(gpu_ranks, "COLUMNS", blocks[1])
    examples, documents = unit_vectors(9, 6, seed=1, copies=5), unit_vectors(120, 6, copies=60)
    found = best_ranks(examples, documents, wanted)
    order, rank, similarity = brute_order(examples, documents)
    assert found.order()[:wanted].tolist() == order[:wanted]
    ranked = np.flatnonzero(found.example >= 0)
    assert len(ranked) >= wanted
    assert (rank[ranked] <= found.depth).all()
    np.testing.assert_array_equal(found.rank, np.minimum(rank, found.depth + 1))
    np.testing.assert_array_equal(found.similarity[ranked], similarity[ranked])
    by = all_ranks(examples, documents)[0][found.example[ranked], ranked]
    np.testing.assert_array_equal(by, rank[ranked])
    np.testing.assert_allclose(found.scores(), np.log2(1 / found.rank))


def test_it_looks_no_deeper_than_it_must():
    """A hundred examples at one place have the same few documents."""
    examples = np.repeat(unit_vectors(1, 8), 100, axis=0)
    found = best_ranks(examples, unit_vectors(3000, 8, seed=5), 300)
    assert 300 <= found.depth <= 700
    assert (found.example >= 0).sum() == found.depth
    apart = best_ranks(unit_vectors(100, 32, seed=2), unit_vectors(3000, 32, seed=5), 300)
    assert apart.depth <= 10


def test_the_order_of_documents_and_examples_does_not_matter():
    examples, documents = unit_vectors(20, 8, seed=1), unit_vectors(200, 8, seed=2)
    shuffle = np.random.default_rng(0).permutation(200)
    one = best_ranks(examples, documents, 50)
    two = best_ranks(examples[::-1].copy(), documents[shuffle], 50)
    np.testing.assert_array_equal(one.rank[shuffle], two.rank)
    np.testing.assert_array_equal(one.order()[:50], shuffle[two.order()[:50]])
    # A rotation of the whole space changes no ranking.
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0].astype(np.float32)
    turned = best_ranks(examples @ turn, documents @ turn, 50)
    np.testing.assert_array_equal(one.order()[:50], turned.order()[:50])


def test_means_over_all_ranks():
    examples, documents = unit_vectors(7, 5, seed=1), unit_vectors(40, 5, seed=2, copies=10)
    rank, _ = all_ranks(examples, documents)
    logs = mean_scores(examples, documents, "mean_log")
    np.testing.assert_allclose(logs, np.log2(1 / rank).mean(axis=0), rtol=1e-12)
    reciprocals = mean_scores(examples, documents, "mean_reciprocal")
    np.testing.assert_allclose(reciprocals, (1 / rank).mean(axis=0), rtol=1e-12)
    with pytest.raises(ValueError, match="max is no mean"):
        mean_scores(examples, documents, "max")


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def planted():
    """(examples by benchmark, documents, kinds): 20,000 documents of 64 dimensions, of which 8 %
    lie near the centre of one of 10 benchmarks (its number), 20 % near the mean of all (10), and
    the rest anywhere (-1). The specification does not say how far from their centres documents and
    examples lie; here at a cosine of about 0.78.
    """
    random = np.random.default_rng(0)
    common = unit(random.normal(size=64))
    centres = unit(common + unit(random.normal(size=(10, 64))))
    examples = unit(centres[:, None] + 0.8 * random.normal(size=(10, 50, 64)) / 8)
    documents = random.normal(size=(20_000, 64))
    kinds = np.full(20_000, -1)
    kinds[:1600] = random.integers(0, 10, 1600)
    kinds[1600:5600] = 10
    documents[:1600] = centres[kinds[:1600]] + 0.8 * random.normal(size=(1600, 64)) / 8
    documents[1600:5600] = unit(centres.mean(0)) + 0.8 * random.normal(size=(4000, 64)) / 8
    return {str(number): one for number, one in enumerate(examples)}, unit(documents), kinds


@pytest.mark.parametrize(
    ("targets", "aggregation", "recall", "worst", "tolerance"),
    [
        ("examples", "max", 0.897, 0.863, 0.02),
        ("examples", "mean_reciprocal", 0.858, 0.762, 0.06),
        ("benchmark_centroids", "max", 0.933, 0.794, 0.1),
        ("examples", "mean_log", 0.004, 0.0, 0.01),
        ("global_centroid", "max", 0.001, 0.0, 0.01),
    ],
)
def test_planted_documents_are_found(planted, targets, aggregation, recall, worst, tolerance):
    """The share of the planted documents in the top tenth, of all and of the benchmark that has the
    smallest, as in the specification (selection.md 2, X part b).
    """
    examples, documents, kinds = planted
    found = rank_vectors(documents, examples, 0.1, aggregation, targets)
    top = np.isin(np.arange(20_000), found.positive)
    assert top.sum() == 2000
    shares = [top[kinds == number].mean() for number in range(10)]
    assert top[(kinds >= 0) & (kinds < 10)].mean() == pytest.approx(recall, abs=tolerance)
    assert min(shares) == pytest.approx(worst, abs=tolerance)
    if recall < 0.1:
        assert (kinds[top] == 10).mean() > 0.99


def test_every_benchmark_gets_its_part(planted):
    examples, documents, _ = planted
    contributions = rank_vectors(documents, examples).contributions
    assert sum(contributions.values()) == pytest.approx(1)
    assert all(0.06 < part < 0.15 for part in contributions.values())
