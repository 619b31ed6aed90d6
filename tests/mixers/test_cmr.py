"""The critical ratio: the paper's tables refitted, and other published runs."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.mixers.cmr import (
    CriticalRatio,
    PowerLaw,
    ReplayLaw,
    critical_ratio,
    fit_power_law,
    fit_ratio_law,
    fit_replay_law,
    largest_ratio,
    turning_point,
)
from tamis.mixers.mixer import Observation, Phase, solve
from tamis.mixers.problem import Problem, Source
from tamis.pipeline.errors import TamisError
from tests.mixers.vectors import VECTORS

# Gu et al. 2024, table 2: domain loss at R = 100, 75, 50, 33 and 25 %.
TABLE_2 = {
    "460M": ([1.4628, 1.4844, 1.5122, 1.5387], 1.5561),
    "940M": ([1.3723, 1.3910, 1.4155, 1.4385], 1.4538),
    "1.6B": ([1.3242, 1.3416, 1.3643, 1.3854], 1.3994),
    "3.1B": ([1.2585, 1.2750, 1.2965, 1.3170], 1.3305),
}
RATIOS = np.array([1, 0.75, 0.5, 1 / 3])
# Table 5: (alpha_4, s_4, beta_3).
TABLE_5 = {
    "460M": (0.22524761, 0.26944345, -0.48139982),
    "940M": (0.7520627, 0.13720245, -1.06581937),
    "1.6B": (-2.36384831, -0.15125569, 1.59223649),
    "3.1B": (-2.5368197, -0.42071423, 0.84375368),
}
# Data Mixing Laws, continued training of Pythia-70M: share of the Pile, its loss, Python's loss.
PILE_AND_PYTHON = [
    (0.125, 2.926166, 1.367859),
    (0.25, 2.880493, 1.386261),
    (0.375, 2.857072, 1.408447),
    (0.5, 2.838757, 1.430862),
]
BASE = 2.8733676


@pytest.mark.parametrize("size", TABLE_2)
def test_table_2_predicts_its_fifth_column(size: str) -> None:
    losses, expected = TABLE_2[size]
    law = fit_power_law(RATIOS, np.array(losses))
    assert float(law(0.25)) == pytest.approx(expected, rel=1e-4)


def test_table_2_constants() -> None:
    law = fit_power_law(RATIOS, np.array(TABLE_2["460M"][0]))
    assert (law.scale, law.exponent, law.constant) == pytest.approx(
        (-0.42613, 0.17815, 1.88902), abs=2e-3
    )


@pytest.mark.parametrize("size", TABLE_5)
def test_table_5_gives_its_critical_ratios(size: str) -> None:
    law = PowerLaw(*TABLE_5[size])
    found = [critical_ratio(law, tokens) for tokens in (25, 50, 100, 250)]
    assert found == pytest.approx(VECTORS["cmr_T25_50_100_250"][size], abs=1e-6)
    assert critical_ratio(law, 1e-3) == 0 or size == "1.6B"
    assert critical_ratio(law, 1e9) <= 1


def test_the_turning_point_of_the_lagrangian() -> None:
    domain, general = (-0.12, 0.3), (0.03, 0.5, -0.012, 0.7)
    assert turning_point(domain, general, 100) == pytest.approx(16.953864, rel=1e-6)
    assert turning_point(domain, general, 1e12) == pytest.approx(18.157659, rel=1e-6)
    assert pytest.approx(18.157659, rel=1e-6) == (0.015 / 0.0084) ** 5
    assert turning_point((-0.1, 0.5), (-0.1, 0.5, -0.1, 0.6), 100) is None


def test_a_law_over_tokens_is_recovered() -> None:
    law = PowerLaw(*TABLE_5["940M"])
    tokens = np.array([30.0, 60, 100, 150])
    noise = np.random.default_rng(0).normal(scale=1e-3, size=4)
    found = fit_power_law(tokens, law(tokens) + noise)
    for one in (40.0, 80.0, 200.0):
        assert float(found(one)) == pytest.approx(float(law(one)), rel=0.02)


def runs() -> tuple[np.ndarray, list[dict[str, float]]]:
    ratios = np.array([1 - share for share, _, _ in PILE_AND_PYTHON])
    return ratios, [{"pile": pile, "python": python} for _, pile, python in PILE_AND_PYTHON]


def pile_and_python() -> Problem:
    return Problem(sources=(Source(name="pile"), Source(name="python")))


@pytest.mark.parametrize("form", ["power", "replay", "best"])
def test_continued_training_on_python(form: str) -> None:
    mixer = CriticalRatio(domain="python", base=BASE, tolerance=0, form=form)
    mixer.start(pile_and_python()).use(*runs())
    proportions = mixer.proportions()
    # The paper: .2862; the held-out run at .28515625 has a loss of 2.872070.
    assert 0.28 <= proportions["pile"] <= 0.29
    law, _ = fit_ratio_law(runs()[0], np.array([pile for _, pile, _ in PILE_AND_PYTHON]), form)
    assert float(law(1 - 0.28515625)) == pytest.approx(2.872070, abs=0.0015)
    low, high = mixer.interval()
    assert low <= proportions["python"] <= high
    assert high - low < 0.15


def test_replay_under_a_strong_shift_needs_the_other_form() -> None:
    # Ibrahim et al. 2024 (arXiv 2403.08763), 405M, Pile then German: loss on the Pile by replay.
    replay = np.array([0.01, 0.05, 0.10, 0.25, 0.50])
    losses = np.array([2.83, 2.57, 2.46, 2.33, 2.24])
    power, replayed = fit_power_law(1 - replay, losses), fit_replay_law(1 - replay, losses)
    assert np.abs(replayed(1 - replay) - losses).max() <= 0.005
    assert np.abs(power(1 - replay) - losses).max() >= 0.03
    law, _ = fit_ratio_law(1 - replay, losses)
    assert isinstance(law, ReplayLaw)


def test_chemistry_of_dcpt() -> None:
    # Que et al. 2024, table 5: 1.8B parameters, 10B tokens, the general loss may rise by 3 %.
    ratio = np.array([0.9, 0.92, 0.94, 1.0])
    losses = np.array([2.9052, 2.9376, 2.9848, 3.4667])
    law = fit_replay_law(ratio, losses)
    found = largest_ratio(law, 1.03 * 2.8602)
    assert found == pytest.approx(0.924, abs=0.002)
    assert float(law(0.91)) == pytest.approx(2.9193, abs=0.002)
    assert float(law(0.924)) == pytest.approx(2.9445, abs=0.002)


def test_the_largest_ratio() -> None:
    law = PowerLaw(1.0, 2.0, 2.0)
    assert largest_ratio(law, 2.25) == pytest.approx(0.5)
    assert largest_ratio(law, 9) == 1.0
    assert largest_ratio(law, 1.9) is None


def test_runs_are_asked_for() -> None:
    truth = PowerLaw(0.3, 2.5, 2.0)

    def run(phase: Phase) -> Observation:
        return Observation(phase.id, {"new": 1.0, "old": float(truth(phase.mixture["new"]))})

    problem = Problem(sources=(Source(name="old"), Source(name="new")))
    mixer = CriticalRatio(domain="new", base=2.0, tolerance=0.05)
    found = solve(mixer, problem, run)
    assert found["new"] == pytest.approx((0.05 / 0.3) ** 0.4, rel=1e-3)
    assert mixer.report()["warnings"] == []
    capped = Problem(sources=problem.sources, cap={"new": 0.3})
    assert solve(CriticalRatio(domain="new", base=2.0), capped, run)["new"] == pytest.approx(0.3)
    with pytest.raises(TamisError, match="no share of new keeps the loss on old"):
        solve(CriticalRatio(domain="new", base=1.0), problem, run)


def test_what_it_cannot_decide() -> None:
    three = Problem(sources=tuple(Source(name=name) for name in "abc"))
    with pytest.raises(TamisError, match="cmr decides between two sources"):
        CriticalRatio(domain="a", base=2).start(three)
    two = Problem(sources=(Source(name="a"), Source(name="b")), targets={"a": 1})
    with pytest.raises(TamisError, match="targets: cmr decides by the loss on b"):
        CriticalRatio(domain="a", base=2).start(two)
    with pytest.raises(TamisError, match="needs runs at 4 ratios or more, there are 2"):
        fit_ratio_law(np.array([0.1, 0.5]), np.array([2.0, 2.1]))
