"""D-CPT recovered from its own runs."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.mixers.dcpt import (
    DCPT,
    _gradient,
    best_share,
    best_share_of_fixed_data,
    best_size,
    fit_dcpt,
    loss,
)
from tamis.pipeline.errors import TamisError
from tests.mixers.vectors import VECTORS

TRUE = np.array([1.55, 0.55, 0.30, 0.14, 0.35, 0.28, 0.55, 0.35, 0.08])
SIZES = (0.5, 1.8, 4.0)
TOKENS = np.linspace(1.3, 26, 20)
SHARES = (0, 0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1)


def grid(sizes: tuple[float, ...] = SIZES, left_out: float | None = None) -> tuple[np.ndarray, ...]:
    rows = [(n, d, r) for n in sizes for d in TOKENS for r in SHARES if r != left_out]
    return tuple(np.array(rows).T)


def test_the_law() -> None:
    one = np.ones(4)
    found = loss(TRUE, 1.8 * one, 10 * one, np.array([0, 0.1, 0.5, 1]))
    np.testing.assert_allclose(found, VECTORS["dcpt_sample"], atol=1e-6)


def test_the_gradient() -> None:
    size, tokens, share = grid()
    found = _gradient(TRUE, size, tokens, share)
    for number in range(9):
        step = np.zeros(9)
        step[number] = 1e-6
        up = loss(TRUE * np.exp(step), size, tokens, share)
        down = loss(TRUE * np.exp(-step), size, tokens, share)
        np.testing.assert_allclose(found[:, number], (up - down) / 2e-6, atol=1e-7)


@pytest.mark.parametrize(("noise", "most"), [(0.0, 1e-4), (0.002, 0.0015), (0.005, 0.004)])
def test_a_ratio_that_was_left_out(noise: float, most: float) -> None:
    size, tokens, share = grid(left_out=0.33)
    random = np.random.default_rng(0)
    losses = loss(TRUE, size, tokens, share) + random.normal(scale=noise, size=len(size))
    law = fit_dcpt(size, tokens, share, losses, starts=6)
    rows = np.array([(n, d, 0.33) for n in SIZES for d in TOKENS]).T
    np.testing.assert_allclose(law.predict(*rows), loss(TRUE, *rows), atol=most)


def test_two_sizes_do_not_tell_a_third_and_that_is_said() -> None:
    size, tokens, share = grid(sizes=(0.5, 1.8))
    random = np.random.default_rng(1)
    losses = loss(TRUE, size, tokens, share) + random.normal(scale=0.002, size=len(size))
    law = fit_dcpt(size, tokens, share, losses, starts=6)
    assert any("2 model sizes do not tell E" in one for one in law.warnings)
    rows = np.array([(4.0, d, r) for d in TOKENS for r in SHARES]).T
    missed = np.abs(law.predict(*rows) - loss(TRUE, *rows)).max()
    assert missed < 0.2


def test_the_best_share_under_a_limit() -> None:
    size, tokens, share = grid()
    domain = fit_dcpt(size, tokens, share, loss(TRUE, size, tokens, share), starts=3)
    general_true = TRUE.copy()
    general_true[3] = 0.2
    general = DCPT(general_true, 0.0)
    most = 1.03 * float(loss(general_true, *np.array([1.8, 10, 0.5])[:, None])[0])
    found = best_share(domain, general, 1.8, 10, most)
    exact = best_share(DCPT(TRUE, 0.0), general, 1.8, 10, most)
    assert found == pytest.approx(exact, abs=0.01)
    assert 0.5 < exact < 1
    with pytest.raises(TamisError, match="no share keeps the general loss at 1"):
        best_share(domain, general, 1.8, 10, 1.0)


def test_the_best_share_of_fixed_data_trades_share_for_length() -> None:
    law = DCPT(TRUE, 0.0)
    found = best_share_of_fixed_data(law, 1.8, 5.0)
    shares = np.array([found * 0.8, found, min(1.0, found * 1.2)])
    losses = law.predict(np.full(3, 1.8), 5.0 / shares, shares)
    assert losses.argmin() == 1 or found == 1.0


def test_the_best_size_spends_the_budget() -> None:
    size, tokens = best_size(DCPT(TRUE, 0.0), 1e21, 0.5)
    assert 6 * size * tokens * 1e18 == pytest.approx(1e21)
    law = DCPT(TRUE, 0.0)
    ours = law.predict(np.array([size]), np.array([tokens]), np.array([0.5]))[0]
    for factor in (0.7, 1.4):
        other = law.predict(
            np.array([size * factor]), np.array([tokens / factor]), np.array([0.5])
        )[0]
        assert ours <= other


def test_too_few_runs() -> None:
    one = np.ones(9)
    with pytest.raises(TamisError, match="9 parameters and there are 9 runs"):
        fit_dcpt(one, one, one, one)
