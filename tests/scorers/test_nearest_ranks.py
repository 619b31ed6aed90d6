"""Best ranks against all ranks, and the planted design of the specification."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.gpu import ranks as gpu_ranks
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


def normal(random, *shape):
    vectors = random.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def planted(seed=0, count=20_000, near=0.9, spread=1.0, generic=0.9):
    """64 dimensions: 10 benchmarks of 50 examples around centres of their own, 8 % of the documents
    near one of the centres, 20 % near the mean of all, the rest anywhere.
    """
    random = np.random.default_rng(seed)
    centres = normal(random, 10, 64)
    noise = random.normal(size=(10, 50, 64)) / 8
    examples = centres[:, None] + spread * noise
    documents = normal(random, count, 64)
    kind = np.full(count, -1)
    kind[: count * 8 // 100] = np.arange(count * 8 // 100) % 10
    which = kind >= 0
    documents[which] = centres[kind[which]] + near * random.normal(size=(which.sum(), 64)) / 8
    middle = centres.mean(axis=0) / np.linalg.norm(centres.mean(axis=0))
    some = slice(count * 8 // 100, count * 28 // 100)
    documents[some] = middle + generic * random.normal(size=(count // 5, 64)) / 8
    shuffle = random.permutation(count)
    unit = (documents / np.linalg.norm(documents, axis=1, keepdims=True))[shuffle]
    examples = examples / np.linalg.norm(examples, axis=2, keepdims=True)
    return examples.astype(np.float32), unit.astype(np.float32), kind[shuffle]
