"""Laws recovered from their own noisy runs, and on published ones: those of Data Mixing Laws (Ye et
al. 2024) with 410M parameters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.mixers import designs
from tamis.mixers.from_runs import MixingLaw
from tamis.mixers.mixer import Observation, Phase, solve
from tamis.mixers.mixing_laws import (
    LogLinear,
    fit_law,
    fit_log_linear,
    fit_offset_power,
    fit_quadratic_log,
    optimum_of_two,
)
from tamis.mixers.optimum import minimise
from tamis.mixers.problem import Problem, Source
from tamis.mixers.runs import Runs, read_runs
from tamis.pipeline.errors import TamisError
from tests.mixers.vectors import VECTORS

TABLES = Path(__file__).parents[1] / "vectors"


def problem(count: int, **settings: object) -> Problem:
    return Problem(sources=tuple(Source(name=f"s{i}") for i in range(count)), **settings)


def true_laws(count: int, seed: int) -> list[LogLinear]:
    """As spec'd: c in [1.5, 3], k in [.3, 1.5], t_own in [-4, -1], others in [-.5, .3]."""
    random = np.random.default_rng(seed)
    laws = []
    for own in range(count):
        slopes = random.uniform(-0.5, 0.3, count)
        slopes[own] = random.uniform(-4, -1)
        slopes += np.log(random.uniform(0.3, 1.5))
        laws.append(LogLinear(float(random.uniform(1.5, 3)), slopes))
    return laws


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (3, 1), (5, 2), (5, 3)])
def test_log_linear_laws_are_recovered(count: int, seed: int) -> None:
    given, laws = problem(count, seed=seed), true_laws(count, seed)
    random = np.random.default_rng(seed)
    mixtures = random.dirichlet(np.ones(count), 20)
    tests = random.dirichlet(np.ones(count), 200)
    noise = 0.002
    losses = np.stack([law.predict(mixtures) for law in laws], 1)
    runs = Runs(mixtures, losses + random.normal(scale=noise, size=losses.shape))
    mixer = MixingLaw(form="log_linear", bootstraps=0).start(given).use(runs)
    missed = [
        np.abs(found.predict(tests) - law.predict(tests)).mean()
        for found, law in zip(mixer._laws, laws, strict=True)
    ]
    assert np.mean(missed) <= 2 * noise

    def total(p: np.ndarray) -> tuple[float, np.ndarray]:
        value = np.mean([law.predict(p[None])[0] for law in laws])
        return float(value), np.mean([law.gradient(p) for law in laws], 0)

    best = minimise(given, total)
    assert total(mixer.shares())[0] <= total(best)[0] + 0.005


def test_gradients_are_those_of_the_laws() -> None:
    random = np.random.default_rng(0)
    mixtures = random.dirichlet(np.ones(3), 60)
    losses = true_laws(3, 0)[0].predict(mixtures)
    point = np.array([0.3, 0.5, 0.2])
    for law in (
        fit_log_linear(mixtures, losses),
        fit_offset_power(mixtures, losses, 0),
        fit_quadratic_log(mixtures, losses),
    ):
        for axis in range(3):
            step = np.eye(3)[axis] * 1e-6
            numeric = (law.predict((point + step)[None]) - law.predict((point - step)[None])) / 2e-6
            assert law.gradient(point)[axis] == pytest.approx(numeric[0], rel=1e-4, abs=1e-6)


def test_leave_one_out_of_the_linear_laws_is_exact() -> None:
    random = np.random.default_rng(1)
    mixtures = random.dirichlet(np.ones(3), 12)
    losses = true_laws(3, 1)[1].predict(mixtures) + random.normal(scale=0.01, size=12)
    law = fit_offset_power(mixtures, losses, 1)
    errors = []
    for row in range(12):
        curve = (np.delete(mixtures, row, 0)[:, 1] + law.offset) ** -law.power
        features = np.column_stack([np.ones(11), curve, np.delete(mixtures, row, 0)[:, 0]])
        gram = features.T @ features + 1e-6 * np.eye(3)
        weights = np.linalg.solve(gram, features.T @ np.delete(losses, row))
        left = np.array([1, (mixtures[row, 1] + law.offset) ** -law.power, mixtures[row, 0]])
        errors.append(abs(losses[row] - left @ weights))
    assert law.error == pytest.approx(np.mean(errors), rel=1e-3)


def test_the_closed_form_of_two_sources() -> None:
    # Aioli's fitted parameters of arXiv and StackExchange, seed 0.
    share = optimum_of_two((-0.6192, -0.1286), (2.9998, 2.6462))
    assert share == pytest.approx(VECTORS["dml2_p1"], abs=1e-6)
    given = problem(2)
    mixtures = designs.dirichlet(given, 12)
    first = 2.6356 + np.exp(-0.6192 - 2.9998 * mixtures[:, 0])
    second = 3.0332 + np.exp(-0.1286 - 2.6462 * mixtures[:, 1])
    runs = Runs(mixtures, np.column_stack([first, second]))
    mixer = MixingLaw(form="log_linear", bootstraps=0).start(given).use(runs)
    assert mixer.proportions()["s0"] == pytest.approx(share, abs=0.01)


def test_a_single_loss_has_its_minimum_at_a_corner_and_that_is_said() -> None:
    given = problem(3, targets={"s0": 1})
    mixtures = designs.dirichlet(given, 20)
    law = true_laws(3, 5)[0]
    runs = Runs(mixtures, law.predict(mixtures)[:, None])
    mixer = MixingLaw(form="log_linear", bootstraps=0).start(given).use(runs)
    assert mixer.proportions()["s0"] > 0.99
    warnings = mixer.report()["warnings"]
    assert any("at a corner" in one for one in warnings)
    assert any("extrapolates" in one for one in warnings)
    near = MixingLaw(form="log_linear", kl=0.5, bootstraps=0).start(given).use(runs)
    assert 0.4 < near.proportions()["s0"] < 0.99
    assert not any("at a corner" in one for one in near.report()["warnings"])


def test_kl_caps_and_limits_hold() -> None:
    laws = true_laws(3, 7)
    given = problem(3, cap={"s0": 0.3}, targets={"s0": 1})
    mixtures = designs.dirichlet(problem(3), 30)
    runs = Runs(mixtures, laws[0].predict(mixtures)[:, None])
    capped = MixingLaw(form="log_linear", bootstraps=0).start(given).use(runs).proportions()
    assert capped["s0"] == pytest.approx(0.3, abs=1e-6)
    both = problem(3, targets={"s0": 1, "s1": 0})
    losses = np.stack([laws[0].predict(mixtures), laws[1].predict(mixtures)], 1)
    most = float(np.quantile(losses[:, 1], 0.3))
    mixer = MixingLaw(form="log_linear", limits={"s1": most}, bootstraps=0).start(both)
    mixer.use(Runs(mixtures, losses))
    found = np.array(list(mixer.proportions().values()))
    assert laws[1].predict(found[None])[0] == pytest.approx(most, abs=0.02)
    impossible = MixingLaw(form="log_linear", limits={"s1": 0.1}, bootstraps=0).start(both)
    with pytest.raises(TamisError, match="no mixture keeps the limits"):
        impossible.use(Runs(mixtures, losses))


def test_too_few_runs() -> None:
    mixtures = designs.dirichlet(problem(4), 5)
    with pytest.raises(TamisError, match="5 runs are too few for 4 sources"):
        fit_law(mixtures, np.ones(5))


def splits(count: int, held: int, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    orders = [random.permutation(count) for _ in range(number)]
    return [(order[held:], order[:held]) for order in orders]


def test_published_runs_of_three_sources() -> None:
    names = ("github", "books3", "pile_cc")
    given = Problem(sources=tuple(Source(name=name) for name in names))
    runs = read_runs(given, TABLES / "mixing_laws_3mix.csv")
    assert len(runs) == 32
    for number in range(3):
        losses = runs.losses[:, number]
        ours, mean = [], []
        for learned, held in splits(32, 8, 8):
            law = fit_log_linear(runs.proportions[learned], losses[learned])
            ours.append(np.abs(law.predict(runs.proportions[held]) - losses[held]).mean())
            mean.append(np.abs(losses[learned].mean() - losses[held]).mean())
        # The spec's bar: at most 40 % of what the mean misses.
        assert np.mean(ours) <= 0.4 * np.mean(mean), names[number]


def test_published_runs_of_five_sources_are_better_fitted_with_a_power() -> None:
    names = ("academic", "prose", "dialogue", "symbolic", "internet")
    given = Problem(sources=tuple(Source(name=name) for name in names))
    runs = read_runs(given, TABLES / "mixing_laws_5mix.csv")
    power, linear = np.zeros((2, 5))
    for number in range(5):
        losses = runs.losses[:, number]
        for learned, held in splits(26, 6, 4):
            one = fit_offset_power(runs.proportions[learned], losses[learned], number)
            other = fit_log_linear(runs.proportions[learned], losses[learned])
            power[number] += np.abs(one.predict(runs.proportions[held]) - losses[held]).mean() / 4
            linear[number] += (
                np.abs(other.predict(runs.proportions[held]) - losses[held]).mean() / 4
            )
    # Measured for the spec over 8 splits: .0106 .0161 .0189 .0103 .0127, and worse without it.
    np.testing.assert_allclose(power, [0.0106, 0.0161, 0.0189, 0.0103, 0.0127], atol=0.008)
    assert (power[[0, 2, 3]] < linear[[0, 2, 3]]).all()


def test_intervals_cover_what_the_truth_says() -> None:
    given, laws = problem(3), true_laws(3, 11)
    random = np.random.default_rng(11)
    mixtures = designs.dirichlet(given, 24)
    losses = np.stack([law.predict(mixtures) for law in laws], 1)
    runs = Runs(mixtures, losses + random.normal(scale=0.01, size=losses.shape))
    mixer = MixingLaw(form="log_linear", bootstraps=40).start(given).use(runs)
    inside = 0
    points = random.dirichlet(np.full(3, 3.0), 20)
    for point in points:
        prediction = mixer.predict(given.by_name(point))
        for name, law in zip(given.evaluations, laws, strict=True):
            truth = law.predict(point[None])[0]
            inside += prediction.low[name] <= truth <= prediction.high[name]
    assert inside >= 0.7 * 60
    low, high = zip(*mixer.intervals().values(), strict=True)
    best = np.array(list(mixer.proportions().values()))
    assert (np.array(low) <= best + 0.05).all()
    assert (best - 0.05 <= np.array(high)).all()


def test_runs_are_asked_for_and_a_killed_search_goes_on(tmp_path: Path) -> None:
    given, laws = problem(3), true_laws(3, 2)
    asked: list[str] = []

    def run(phase: Phase) -> Observation:
        asked.append(phase.id)
        point = given.vector(phase.mixture)
        losses = {
            name: float(law.predict(point[None])[0])
            for name, law in zip(given.names, laws, strict=True)
        }
        return Observation(phase.id, losses)

    whole = solve(MixingLaw(runs=12, bootstraps=0), given, run)
    assert len(asked) == 12
    journal = tmp_path / "journal.jsonl"

    def killed(phase: Phase) -> Observation:
        if phase.id == "run 6":
            raise KeyboardInterrupt
        return run(phase)

    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        solve(MixingLaw(runs=12, bootstraps=0), given, killed, journal)
    with journal.open("a") as file:
        file.write('{"phase": "run 6", "aft')
    again = solve(MixingLaw(runs=12, bootstraps=0), given, run, journal)
    assert again == whole
    assert asked == [f"run {number}" for number in range(1, 13)]
    with pytest.raises(TamisError, match="another problem or mixer"):
        solve(MixingLaw(runs=12), problem(3, seed=9), run, journal)


def test_the_state_gives_the_same_proposals() -> None:
    given, laws = problem(2), true_laws(2, 4)
    mixer = MixingLaw(runs=8, bootstraps=0).start(given)
    for _ in range(9):
        copy = MixingLaw(runs=8, bootstraps=0).load(given, mixer.state())
        phase = mixer.propose()
        assert copy.propose() == phase
        if phase is None:
            assert copy.proportions() == mixer.proportions()
            break
        point = given.vector(phase.mixture)
        after = {
            name: float(law.predict(point[None])[0])
            for name, law in zip(given.names, laws, strict=True)
        }
        mixer.observe(Observation(phase.id, after))
    with pytest.raises(TamisError, match="asked for nothing"):
        mixer.observe(Observation("run 1", {}))
    fresh = MixingLaw(runs=8).start(given)
    with pytest.raises(TamisError, match="there is no loss of s1"):
        fresh.observe(Observation("run 1", {"s0": 1.0}))
    with pytest.raises(TamisError, match="the loss of s1 is nan"):
        fresh.observe(Observation("run 1", {"s0": 1.0, "s1": float("nan")}))
