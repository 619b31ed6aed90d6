"""Proportions within bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from tamis.mixers.simplex import exponentiated_gradient, project
from tests.mixers.vectors import VECTORS


def test_what_hits_no_bound_keeps_its_ratios() -> None:
    low, high = np.array([0.0, 0.3, 0.0, 0.0]), np.array([0.4, 1.0, 1.0, 1.0])
    found = project(np.array([6.0, 1.0, 2.0, 1.0]), low, high)
    np.testing.assert_allclose(found, [0.4, 0.3, 0.2, 0.1])


def test_no_bounds_only_scale() -> None:
    found = project(np.array([1.0, 3.0]), np.zeros(2), np.ones(2))
    np.testing.assert_allclose(found, [0.25, 0.75])


def test_what_is_left_goes_to_sources_without_a_share() -> None:
    found = project(np.array([1.0, 0.0, 0.0]), np.zeros(3), np.array([0.4, 0.2, 1.0]))
    np.testing.assert_allclose(found, [0.4, 0.1, 0.5])


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = draw(st.integers(1, 6))
    numbers = st.floats(0, 1, width=32)
    shares = np.array(draw(st.lists(numbers, min_size=count, max_size=count)))
    shares[draw(st.integers(0, count - 1))] += 0.5
    point = np.array(draw(st.lists(numbers, min_size=count, max_size=count))) + 1e-3
    point /= point.sum()
    down = np.array(draw(st.lists(numbers, min_size=count, max_size=count)))
    up = np.array(draw(st.lists(numbers, min_size=count, max_size=count)))
    return shares, point * down, point + (1 - point) * up


@settings(max_examples=300, deadline=None)
@given(problems())
def test_the_bounds_hold_and_the_sum_is_one(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    shares, low, high = problem
    found = project(shares, low, high)
    assert abs(found.sum() - 1) < 1e-9
    assert (found >= low - 1e-9).all()
    assert (found <= high + 1e-9).all()


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_nearest_in_divergence(seed: int) -> None:
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(4))
    low, high = np.array([0, 0.1, 0, 0.05]), np.array([0.3, 0.6, 0.35, 1])
    best = minimize(
        lambda p: float((p * np.log(p / shares)).sum()),
        np.full(4, 0.25),
        bounds=list(zip(low + 1e-12, high, strict=True)),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = project(shares, low, high)
    assert (found * np.log(found / shares)).sum() <= best.fun + 1e-8


@pytest.mark.parametrize(
    ("shares", "low", "high"),
    [
        ([0.0, 0.0], [0, 0], [1, 1]),
        ([np.nan, 1.0], [0, 0], [1, 1]),
        ([-1.0, 2.0], [0, 0], [1, 1]),
        ([1.0, 1.0], [0.7, 0.7], [1, 1]),
        ([1.0, 1.0], [0, 0], [0.4, 0.4]),
    ],
)
def test_what_cannot_be(shares: list[float], low: list[float], high: list[float]) -> None:
    with pytest.raises(ValueError, match=r"shares are|no proportions"):
        project(np.array(shares), np.array(low), np.array(high))


def test_exponentiated_gradient() -> None:
    start = np.array([0.5, 0.3, 0.2])
    found = exponentiated_gradient(start, np.array([1.0, 0.0, -1.0]), 0.5)
    np.testing.assert_allclose(found, VECTORS["egd_p.5.3.2_g1.0.-1_eta.5"], atol=1e-6)
    same = exponentiated_gradient(start, np.array([11.0, 10.0, 9.0]), 0.5)
    np.testing.assert_allclose(found, same)
    np.testing.assert_allclose(exponentiated_gradient(start, np.full(3, 7.0), 3.0), start)
    extreme = exponentiated_gradient(start, np.array([1e4, -1e4, 0.0]), 1.0)
    np.testing.assert_allclose(extreme, [1, 0, 0])
