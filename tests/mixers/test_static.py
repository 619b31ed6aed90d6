"""Proportions that follow from sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.mixers.cooldown import Cooldown, variance_factor
from tamis.mixers.mixer import Mixer, Observation
from tamis.mixers.problem import Problem, Source
from tamis.mixers.static import (
    Equitable,
    Fixed,
    Natural,
    Temperature,
    Uniform,
    UniMax,
    equitable,
    tempered,
    unimax,
)
from tamis.pipeline.errors import TamisError
from tests.mixers.vectors import VECTORS

SIZES = np.array([800.0, 150.0, 50.0])


def problem(sizes: Any = SIZES, **settings: Any) -> Problem:
    sources = tuple(Source(name=f"s{i}", tokens=float(n)) for i, n in enumerate(sizes))
    return Problem(sources=sources, **settings)


def shares(mixer: Mixer, given: Problem) -> np.ndarray:
    return np.array(list(mixer.start(given).proportions().values()))


def test_temperature() -> None:
    expected = VECTORS["temperature_tau5_n800_150_50"]
    np.testing.assert_allclose(shares(Temperature(temperature=5), problem()), expected, atol=1e-6)
    natural = shares(Natural(), problem())
    np.testing.assert_allclose(natural, [0.8, 0.15, 0.05])
    np.testing.assert_allclose(shares(Temperature(temperature=1), problem()), natural)
    np.testing.assert_allclose(tempered(SIZES, 1e9), np.full(3, 1 / 3), atol=1e-6)
    np.testing.assert_allclose(shares(Uniform(), problem()), np.full(3, 1 / 3))


@pytest.mark.parametrize(("epochs", "key"), [(1, "N1"), (4, "N4")])
def test_unimax(epochs: float, key: str) -> None:
    sizes = np.array([100.0, 20.0, 5.0, 1.0])
    tokens, proportions = VECTORS[f"unimax_c100_20_5_1_C60_{key}"]
    np.testing.assert_allclose(unimax(sizes * epochs, 60), tokens, atol=1e-6)
    found = shares(UniMax(max_epochs=epochs), problem(sizes, budget=60))
    np.testing.assert_allclose(found, proportions, atol=1e-6)


def test_unimax_of_the_buckets() -> None:
    # selection.md's example of attribute buckets.
    found = unimax(2 * np.array([1.0, 5.0, 20.0, 100.0]), 60)
    np.testing.assert_allclose(found, [2, 10, 24, 24])


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=8), st.floats(1, 1e6))
def test_unimax_spends_the_budget_if_it_can(sizes: list[float], budget: float) -> None:
    capacities = np.array(sizes)
    found = unimax(capacities, budget)
    assert (found <= capacities * (1 + 1e-9)).all()
    np.testing.assert_allclose(found.sum(), min(budget, capacities.sum()), rtol=1e-9)
    np.testing.assert_allclose(np.sort(found), np.sort(unimax(capacities[::-1], budget)))
    assert (unimax(capacities, 2 * budget) >= found * (1 - 1e-9)).all()


def test_unimax_without_enough_data() -> None:
    with pytest.raises(TamisError, match="raise max_epochs or lower the budget"):
        UniMax().start(problem(budget=5000)).proportions()


def test_equitable() -> None:
    one = np.ones(2)
    found = equitable(np.array([2.0, 0.5]), one, one, 90)
    np.testing.assert_allclose(found, VECTORS["equitable_n"])
    found = equitable(0.5 * one, one, np.array([1.0, 4.0]), 90)
    np.testing.assert_allclose(found, VECTORS["equitable_cost"])
    given = problem([1, 1], budget=90)
    mixer = Equitable(scale={"s0": 4, "s1": 1}, exponent={"s0": 1, "s1": 1})
    np.testing.assert_allclose(shares(mixer, given), [2 / 3, 1 / 3])


def test_equitable_is_the_optimum() -> None:
    scale, exponent = np.array([3.0, 1.0, 2.0]), np.array([0.3, 0.9, 0.5])
    cost, budget = np.array([1.0, 2.0, 0.5]), 1000.0
    found = equitable(scale, exponent, cost, budget)
    np.testing.assert_allclose(cost @ found, budget)
    loss = (scale * found**-exponent).sum()
    random = np.random.default_rng(0)
    for _ in range(200):
        other = found * np.exp(random.normal(scale=0.1, size=3))
        other *= budget / (cost @ other)
        assert (scale * other**-exponent).sum() >= loss


def test_cooldown() -> None:
    mixer = Cooldown().start(problem())
    first = mixer.propose()
    assert first is not None
    assert first.share == 0.5
    expected = VECTORS["temperature_tau5_n800_150_50"]
    np.testing.assert_allclose(list(first.mixture.values()), expected, atol=1e-6)
    mixer.observe(Observation(first.id, {}))
    second = mixer.propose()
    assert second is not None
    np.testing.assert_allclose(list(second.mixture.values()), [0.8, 0.15, 0.05])
    mixer.observe(Observation(second.id, {}))
    assert mixer.propose() is None
    factors = [variance_factor(SIZES, t) for t in (1, 5, 100)]
    np.testing.assert_allclose(factors, VECTORS["cooldown_var_tau1_5_100"], atol=1e-6)


def test_floors_and_caps_hold_for_every_method() -> None:
    bounded = problem(budget=1000, floor={"s2": 0.2}, cap={"s0": 0.5})
    for mixer in (Natural(), Uniform(), Temperature(), UniMax(max_epochs=9)):
        found = mixer.start(bounded).proportions()
        assert found["s0"] <= 0.5 + 1e-9
        assert found["s2"] >= 0.2 - 1e-9
        assert sum(found.values()) == pytest.approx(1)
    np.testing.assert_allclose(shares(Natural(), bounded), [0.5, 0.3, 0.2])


def test_epochs_are_caps() -> None:
    sources = (Source(name="a", tokens=10, max_epochs=4), Source(name="b", tokens=1000))
    given = Problem(sources=sources, budget=100)
    np.testing.assert_allclose(shares(Fixed(mixture={"a": 0.9, "b": 0.1}), given), [0.4, 0.6])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"floor": {"s9": 0.1}}, "floor: no source s9; there is s0, s1, s2"),
        ({"floor": {"s0": 0.6}, "cap": {"s0": 0.5}}, "s0: its floor 0.6 is above its cap 0.5"),
        ({"floor": {"s0": 0.6, "s1": 0.6}}, "the floors sum to 1.2"),
        ({"cap": {"s0": 0.1, "s1": 0.1, "s2": 0.1}}, "the caps allow 30.0% of the budget"),
        ({"cap": {"s0": 1.5}}, "a share is from 0 to 1"),
        ({"targets": {"x": -1}}, "weights are not negative"),
    ],
)
def test_contradictions(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TamisError, match=sentence):
        problem(**settings)


@pytest.mark.parametrize(
    ("mixture", "sentence"),
    [
        ({"s0": 0.5, "s1": 0.2}, "proportions sum to 1, these to 0.7"),
        ({"s0": 1.5, "s1": -0.5}, "proportions are not negative"),
        ({"s0": 0.5, "t": 0.5}, "there is no source t"),
    ],
)
def test_mixtures_that_are_none(mixture: dict[str, float], sentence: str) -> None:
    with pytest.raises(TamisError, match=sentence):
        Fixed(mixture=mixture).start(problem()).proportions()


def test_unknown_sizes() -> None:
    with pytest.raises(TamisError, match="source a: natural needs to know its tokens"):
        Natural().start(Problem(sources=(Source(name="a"),))).proportions()
