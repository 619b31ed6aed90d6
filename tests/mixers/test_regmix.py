"""RegMix on the runs that its authors published (tests/vectors/regmix, MIT)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from tamis.mixers import designs
from tamis.mixers.problem import Problem, Source
from tamis.mixers.regmix import RegMix, fit_regressor
from tamis.mixers.runs import Runs, read_runs
from tamis.pipeline.errors import TamisError

DATA = Path(__file__).parents[1] / "vectors" / "regmix"
SOURCES = (
    "arxiv freelaw nih_exporter pubmed_central wikipedia_en dm_mathematics github philpapers "
    "stackexchange enron_emails gutenberg_pg_19 pile_cc ubuntu_irc europarl hackernews "
    "pubmed_abstracts uspto_backgrounds"
).split()
# Spearman x 100 of LightGBM on the 1M runs: recomputed for the spec from the same files.
PUBLISHED = {
    "arxiv": 99.6, "freelaw": 99.71, "pubmed_central": 99.08, "wikipedia_en": 99.45,
    "dm_mathematics": 97.2, "github": 99.77, "stackexchange": 99.73, "gutenberg_pg_19": 99.18,
    "pile_cc": 98.92, "ubuntu_irc": 96.87, "hackernews": 98.51, "pubmed_abstracts": 99.19,
    "uspto_backgrounds": 99.12,
}  # fmt: skip


def given(**settings: object) -> Problem:
    sources = tuple(Source(name=name) for name in SOURCES)
    targets = settings.pop("targets", dict.fromkeys(PUBLISHED, 1.0))
    return Problem(sources=sources, targets=targets, **settings)


def runs(kind: str, size: str, problem: Problem) -> Runs:
    mixture, loss = (f"{kind}_{what}_{size}.csv.gz" for what in ("mixture", "pile_loss"))
    return read_runs(problem, DATA / mixture, DATA / loss)


def ranks(regressor: str, training: Runs, tests: Sequence[Runs]) -> np.ndarray:
    """Spearman x 100 of what is predicted with the losses of the tests, (tests, losses)."""
    order = np.random.default_rng(42).permutation(len(training))
    found = np.zeros((len(tests), len(PUBLISHED)))
    for number in range(len(PUBLISHED)):
        # A tenth of the runs is held out to stop early; the authors stop on the test runs.
        model = fit_regressor(
            regressor, training.proportions, training.losses[:, number], order[51:], order[:51], 42
        )
        for row, test in enumerate(tests):
            predicted = model(test.proportions)
            found[row, number] = 100 * spearmanr(predicted, test.losses[:, number])[0]
    return found


def test_published_rank_correlations() -> None:
    problem = given()
    training = runs("train", "1m", problem)
    assert len(training) == 512
    tests = [runs("test", size, problem) for size in ("1m", "60m", "1B")]
    boosted, linear = (ranks(kind, training, tests) for kind in ("lightgbm", "linear"))
    np.testing.assert_allclose(boosted[0], list(PUBLISHED.values()), atol=0.4)
    np.testing.assert_allclose(boosted.mean(1), [98.95, 98.39, 94.98], atol=0.3)
    np.testing.assert_allclose(linear.mean(1), [83.1, 83.0, 70.9], atol=2.0)


def test_the_proportions_for_pile_cc_are_mostly_pile_cc() -> None:
    problem = given(targets={"pile_cc": 1.0})
    mixer = RegMix(draws=20_000).start(problem).use(runs("train", "1m", problem))
    found = mixer.proportions()
    # The authors' are .8701, around natural proportions of the Pile.
    assert max(found, key=lambda name: found[name]) == "pile_cc"
    assert found["pile_cc"] > 0.4
    prediction = mixer.predict(found)
    assert prediction.low["pile_cc"] < prediction.losses["pile_cc"] < prediction.high["pile_cc"]
    capped = given(targets={"pile_cc": 1.0}, cap={"pile_cc": 0.25})
    mixer = RegMix(draws=20_000).start(capped).use(runs("train", "1m", capped))
    assert mixer.proportions()["pile_cc"] <= 0.25 + 1e-9


def test_the_swarm_is_that_of_the_method() -> None:
    sources = tuple(Source(name=f"s{i}", tokens=n) for i, n in enumerate([1e9, 3e8, 5e7, 1e7]))
    problem = Problem(sources=sources, seed=42)
    sizes = problem.sizes("swarm")
    mixtures = designs.swarm(problem, 200, sizes)
    prior = np.sqrt(sizes) / np.sqrt(sizes).sum()
    assert mixtures.shape == (200, 4)
    np.testing.assert_allclose(mixtures.sum(1), 1)
    assert (mixtures <= np.maximum(15 * prior, 1e-9) / 0.9).all()
    assert not ((mixtures > 0) & (mixtures < 2e-4)).any()
    assert len(np.unique(np.round(mixtures, 6), axis=0)) == 200
    np.testing.assert_allclose(mixtures.mean(0), prior, atol=0.1)
    # Weak strengths give corners.
    assert (mixtures.max(1) > 0.99).mean() > 0.1


def test_too_few_runs() -> None:
    problem = given()
    few = runs("train", "1m", problem).take(range(10))
    with pytest.raises(TamisError, match="at least 16 runs, there are 10"):
        RegMix().start(Problem(sources=problem.sources, targets=problem.targets)).use(few)


def test_a_budget_is_shared_by_its_runs() -> None:
    # 20 tokens a parameter: 6 N D = 120 N^2 of one in ten parts.
    size, tokens = designs.budget_plan(1.2e18, 1e9, 10)
    assert size == pytest.approx((1.2e17 / 120) ** 0.5)
    assert 10 * 6 * size * tokens == pytest.approx(1.2e18)
    size, tokens = designs.budget_plan(1.2e18, 1e6, 10)
    assert size == 1e6
    assert 10 * 6 * size * tokens == pytest.approx(1.2e18)
