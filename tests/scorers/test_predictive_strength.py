from __future__ import annotations

from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest

import tamis
from tamis.pipeline.errors import TamisError
from tamis.scorers.predictive_strength import (
    chance_counts,
    predictive_strength,
    reliability,
)

# Of the reference implementation.
NULL_6 = [1, 5, 14, 29, 49, 71, 90, 101, 101, 90, 71, 49, 29, 14, 5, 1]


def all_orders(n: int) -> np.ndarray:
    return np.array(list(permutations(range(n))), np.float64).T


def test_all_orders_of_six_models_have_the_strengths_of_the_null_distribution() -> None:
    strength = predictive_strength(all_orders(6), [1, 2, 3, 4, 5, 6])
    assert np.bincount(np.rint(strength * 15).astype(int), minlength=16).tolist() == NULL_6
    assert chance_counts(6) == NULL_6


@pytest.mark.parametrize("n", [3, 4, 5])
def test_chance_is_counted_as_it_is_for_every_number_of_models(n: int) -> None:
    strength = predictive_strength(all_orders(n), list(range(n)))
    counts = np.bincount(np.rint(strength * n * (n - 1) / 2).astype(int)).tolist()
    assert counts == chance_counts(n)


def test_losses_by_hand() -> None:
    # Benchmarks say that b is the worst, then c, then a.
    benchmarks = [0.9, 0.1, 0.5]
    losses = [
        [1.0, 3.0, 2.0, 2.0, np.nan],
        [3.0, 1.0, 2.0, 3.0, 1.0],
        [2.0, 2.0, 2.0, 3.0, 1.0],
    ]
    strength = predictive_strength(np.array(losses), benchmarks)
    # The third has equal losses; in the fourth a is better than both, b and c are equal.
    np.testing.assert_array_equal(strength, [1, 0, 0, 2 / 3, np.nan])


def test_models_that_are_equally_good_order_nothing() -> None:
    losses = np.array([[3.0], [2.0], [1.0]])
    assert predictive_strength(losses, [0.1, 0.1, 0.2]) == [2 / 3]


@pytest.mark.parametrize(
    ("losses", "benchmarks", "message"),
    [
        (np.zeros((2, 4)), [1, 2], "2 models: .* at least 3"),
        (np.zeros((4, 3)), [1, 2, 3], "a row for each of the 3 models"),
        (np.zeros((3, 4)), [1, 2, np.nan], "no number"),
    ],
)
def test_numbers_that_tell_no_strength(losses, benchmarks, message) -> None:
    with pytest.raises(TamisError, match=message):
        predictive_strength(losses, benchmarks)


def test_by_chance_nothing_looks_reliable() -> None:
    """All orders equally often: what each figure is under chance."""
    sizes = np.tile(np.arange(1, 1001), 72)[:7200]
    found = reliability(np.tile(all_orders(6), 10), range(6), sizes, list("abcdef"))
    assert found.levels == tuple(10 * one for one in NULL_6)
    np.testing.assert_allclose(np.array(found.levels) / 7200, found.chance)
    np.testing.assert_allclose(found.left_out, 1 / 6)
    np.testing.assert_allclose(found.neighbours, 0.5)
    assert abs(found.length_correlation) < 0.05
    assert "0.1% order them rightly (S = 1), 0.14% would by chance" in found.format()


def test_what_is_reliable_looks_so_and_the_shuffled_model_is_seen() -> None:
    choose = np.random.default_rng(0)
    sizes = choose.integers(100, 1000, 2000)
    losses = np.array([10.0, 8, 6, 4, 2, 1])[:, None] * sizes
    losses[2] = choose.uniform(0, 12, 2000) * sizes
    found = reliability(losses, [1, 2, 3, 4, 5, 6], sizes, list("abcdef"))
    # It stands where it should by accident, when it lies between 4 and 8; those that are not its
    # neighbours are in their place whenever the rest is.
    assert [found.left_out[one] for one in (0, 4, 5)] == [1, 1, 1]
    assert found.left_out[2] == found.predictive == pytest.approx(4 / 12, abs=0.04)
    assert found.left_out[1] == pytest.approx(4 / 6, abs=0.05)
    assert found.neighbours[0] == found.neighbours[4] == 1
    assert found.mean_loss[0] == pytest.approx(10)


def test_noise_in_short_documents_shows_as_dependence_on_length() -> None:
    choose = np.random.default_rng(0)
    sizes = np.sort(choose.integers(1, 400, 4000))
    ability = np.arange(6, 0, -1)[:, None] * 0.1
    losses = ability * sizes + choose.normal(0, 1, (6, 4000)) * np.sqrt(sizes)
    found = reliability(losses, range(6), sizes, list("abcdef"))
    assert found.length_correlation > 0.3
    assert found.by_length == tuple(sorted(found.by_length))


def test_the_stage_takes_columns_of_losses() -> None:
    stage = tamis.PredictiveStrength(losses={"a": 0.1, "b": 0.2, "c": 0.3})
    table = pa.table(
        {"text": ["x", "y", "z"], "a": [3, 1, 1], "b": [2.0, 2.0, None], "c": [1.0, 3.0, 3.0]}
    )
    found = stage(table).column("predictive_strength.score").to_numpy()
    np.testing.assert_array_equal(found, [1, 0, np.nan])


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"a": 1.0, "b": 2.0}, "at least 3"),
        ({"a": 1.0, "b": 2.0, "c": 1.0}, "a and c have the same benchmark result, 1,"),
    ],
)
def test_settings_that_order_nothing(losses, message) -> None:
    with pytest.raises(ValueError, match=message):
        tamis.PredictiveStrength(losses=losses)
