"""The parameters that methods imply, against the true effects in worlds where they are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tamis.mixers.aioli import Aioli
from tamis.mixers.doge import DoGE
from tamis.mixers.doremi import DoReMi
from tamis.mixers.from_runs import MixingLaw
from tamis.mixers.mixer import Mixer, Observation, Phase
from tamis.mixers.odm import ODM
from tamis.mixers.problem import Problem, Source
from tamis.mixers.runs import Runs
from tamis.mixers.skill_it import SkillIt
from tamis.mixers.static import Uniform
from tamis.mixers.unified import agreement, implied_effects
from tamis.pipeline.errors import TamisError
from tests.mixers import markov

NAMES = ("s0", "s1", "s2")


def world(seed: int, **settings: Any) -> tuple[Problem, markov.World]:
    """Two sources that are alike and one that is not, so that effects differ."""
    problem = Problem(sources=tuple(Source(name=name) for name in NAMES))
    matrices = markov.sources(3, seed)
    matrices[1] = 0.7 * matrices[0] + 0.3 * matrices[1]
    return problem, markov.World(problem, matrices, batch=512, **settings)


def true_effects(of: markov.World, share: float) -> np.ndarray:
    """(3, 3): how far each loss falls in a stretch of training on each source alone, scaled to what
    sum 1 would make of a whole training.
    """
    state, fallen = of.predicted().copy(), []
    logits = of.runs["main"].copy()
    before = markov.losses(of.matrices, state)
    for source in range(3):
        of.runs["main"], of.owed = logits.copy(), 0.0
        of(Phase("probe", dict(zip(NAMES, np.eye(3)[source], strict=True)), share))
        fallen.append(before - markov.losses(of.matrices, of.predicted()))
    of.runs["main"], of.owed = logits, 0.0
    return np.array(fallen).T


def drive(mixer: Mixer, problem: Problem, of: Any, phases: int) -> Mixer:
    mixer.start(problem)
    for _ in range(phases):
        phase = mixer.propose()
        assert phase is not None
        mixer.observe(of(phase))
    return mixer


@pytest.mark.parametrize("seed", [1, 2])
def test_aioli_learns_the_true_effects(seed: int) -> None:
    problem, of = world(seed)
    probes = {"rounds": 10, "sweeps": 2, "probe_share": 0.06, "one_hot": 0.8, "ema": None}
    true = true_effects(_warm(of), share=0.001)
    mixer = drive(Aioli(**probes), problem, of, 6)
    fitted = implied_effects(mixer)
    assert fitted.shape == (3, 3)
    assert np.corrcoef(fitted.ravel(), true.ravel())[0, 1] > 0.95
    assert agreement(fitted, true) > 0.9


def _warm(of: markov.World) -> markov.World:
    of(Phase("warm", dict.fromkeys(NAMES, 1 / 3), 0.02))
    return of


def test_what_other_methods_imply_is_another_thing() -> None:
    problem, of = world(1, gradients=True)
    true = true_effects(_warm(of), share=0.001)
    doge = implied_effects(drive(DoGE(steps=200), problem, of, 1))
    # The effects of a step of gradient descent are inner products of gradients, but for the draws.
    assert np.corrcoef(doge.ravel(), true.ravel())[0, 1] > 0.97
    assert agreement(doge, true) > 0.9

    def told(phase: Phase) -> Observation:
        observation = of(phase)
        excess = {name: max(loss - 2.0, 0.0) for name, loss in observation.after.items()}
        return Observation(phase.id, observation.after, train=excess)

    doremi = implied_effects(drive(DoReMi(steps=10), problem, told, 2))
    np.testing.assert_array_equal(doremi, np.diag(np.diag(doremi)))
    assert agreement(doremi, true) < agreement(doge, true)
    uniform = Uniform().start(problem)
    assert not implied_effects(uniform).any()
    assert np.isnan(agreement(implied_effects(uniform), true))


def test_skill_it_weighs_its_graph_with_the_losses() -> None:
    problem = Problem(sources=tuple(Source(name=name) for name in NAMES))
    mixer = SkillIt(rounds=2).start(problem)
    before = np.array([4.0, 3.0, 2.0])
    falls = np.array([[0.5, 0.2, 0.0], [0.1, 0.4, 0.0], [0.0, 0.0, 0.3]])

    def named(values: np.ndarray) -> dict[str, float]:
        return dict(zip(NAMES, values.tolist(), strict=True))

    for row in falls:
        phase = mixer.propose()
        assert phase is not None
        mixer.observe(Observation(phase.id, named(before - row), named(before)))
    np.testing.assert_allclose(implied_effects(mixer), before[:, None] * falls.T)
    after = before / 2
    phase = mixer.propose()
    assert phase is not None
    mixer.observe(Observation(phase.id, named(after)))
    np.testing.assert_allclose(implied_effects(mixer), after[:, None] * falls.T)


def test_a_mixing_law_implies_its_slopes() -> None:
    problem = Problem(sources=tuple(Source(name=name) for name in NAMES))
    slopes = np.array([[-2.0, 0.1, -0.3], [0.2, -1.5, -0.1], [-0.4, 0.0, -1.0]])
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], 20)
    mixer = MixingLaw(form="log_linear", bootstraps=0).start(problem)
    mixer.use(Runs(shares, 2 + np.exp(shares @ slopes.T)))
    np.testing.assert_allclose(implied_effects(mixer), -slopes, atol=0.02)


def test_agreement_and_what_has_none() -> None:
    true = np.diag([3.0, 2.0, 1.0])
    assert agreement(true, 2 * true) == pytest.approx(1)
    # Sums (1, 2, 3) and (3, 2, 1): cosine 10/14, ranks the other way round.
    assert agreement(np.diag([1.0, 2.0, 3.0]), true) == pytest.approx((10 / 14 - 1) / 2)
    assert agreement(true, true, np.array([0.0, 1.0, 2.0])) == pytest.approx(1)
    problem = Problem(sources=(Source(name="a"), Source(name="b")))
    for mixer in (ODM(), Aioli()):
        with pytest.raises(TamisError, match=f"{mixer.kind} implies no effects"):
            implied_effects(mixer.start(problem))
