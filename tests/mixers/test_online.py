"""Methods that learn while training: known answers, and worlds whose best proportions are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tamis.mixers.aioli import Aioli, normalized, solve_effects
from tamis.mixers.doge import DoGE
from tamis.mixers.doremi import DoReMi, doremi_step
from tamis.mixers.from_runs import MixingLaw
from tamis.mixers.mixer import Mixer, Observation, solve
from tamis.mixers.odm import ODM, exploration, odm_shares
from tamis.mixers.problem import Problem, Source
from tamis.mixers.skill_it import SkillIt
from tamis.pipeline.errors import TamisError
from tests.mixers import markov
from tests.mixers.vectors import VECTORS


def problem(count: int, **settings: Any) -> Problem:
    return Problem(sources=tuple(Source(name=f"s{i}") for i in range(count)), **settings)


def named(values: Any) -> dict[str, float]:
    return {f"s{i}": float(value) for i, value in enumerate(values)}


def values(mixture: dict[str, float]) -> np.ndarray:
    return np.array(list(mixture.values()))


# Aioli


def test_effects_are_solved_for() -> None:
    mixer = Aioli(one_hot=0.5).start(problem(3))
    np.testing.assert_allclose(mixer.probes(), VECTORS["learnparams_P_ohf.5"])
    beta, expected = (np.array(VECTORS[f"learnparams_{key}"]) for key in ("beta", "A"))
    np.testing.assert_allclose(solve_effects(beta, mixer.probes()), expected, atol=1e-9)
    transposed = np.linalg.solve(mixer.probes(), beta)
    assert np.abs(transposed - expected).max() > 0.01
    np.testing.assert_allclose(
        np.diag(solve_effects(beta, mixer.probes(), diagonal=True)), np.diag(beta) / 0.5
    )
    scaled = normalized(expected, "official")
    np.testing.assert_allclose(scaled, VECTORS["aioli_norm"], atol=1e-6)
    np.testing.assert_allclose(scaled.sum(0), VECTORS["aioli_colsum"], atol=1e-6)
    negative = expected.copy()
    negative[1, 2] = -0.05
    official = normalized(negative, "official")
    np.testing.assert_allclose(official, VECTORS["aioli_norm_with_negative"], atol=1e-5)
    assert normalized(negative, "positive")[1, 2] == 0


@pytest.mark.parametrize(("eta", "key"), [(0.2, "eta.2"), (1.0, "eta1")])
def test_one_round_of_aioli(eta: float, key: str) -> None:
    given = problem(3)
    mixer = Aioli(rounds=2, sweeps=2, one_hot=0.5, eta=eta, ema=None).start(given)
    effects = np.array(VECTORS["learnparams_A"])
    loss = np.array([3.0, 2.0, 4.0])
    for _ in range(6):
        phase = mixer.propose()
        assert phase is not None
        assert phase.purpose == "probe"
        fallen = effects @ given.vector(phase.mixture)
        mixer.observe(Observation(phase.id, named(loss - fallen), named(loss)))
        loss = loss - fallen
    phase = mixer.propose()
    assert phase is not None
    assert phase.purpose == "train"
    expected = VECTORS[f"aioli_step_from_uniform_{key}"]
    np.testing.assert_allclose(values(dict(phase.mixture)), expected, atol=1e-6)
    np.testing.assert_allclose(mixer.report()["effects"][0], effects, atol=1e-9)


def test_the_phases_of_aioli_are_one_training() -> None:
    given = problem(3)
    mixer = Aioli(rounds=4, sweeps=2, probe_share=0.2).start(given)
    shares = {"probe": 0.0, "train": 0.0}
    while phase := mixer.propose():
        shares[phase.purpose] += phase.share
        mixer.observe(Observation(phase.id, named([1, 1, 1]), named([1.1, 1.2, 1.3])))
    assert shares == pytest.approx({"probe": 0.2, "train": 0.8})


def test_with_ema_proportions_stay_near_uniform() -> None:
    mixer = Aioli(rounds=3, sweeps=1, eta=0.2, ema=0.1).start(problem(3))
    while phase := mixer.propose():
        before = np.array([5.0, 1.0, 1.0])
        after = before - np.array([2.0, 0, 0]) * (phase.mixture["s0"] > 0.5)
        mixer.observe(Observation(phase.id, named(after), named(before)))
    found = values(mixer.proportions())
    assert found.max() / found.min() <= np.exp(0.2) + 1e-9


def test_what_aioli_refuses() -> None:
    with pytest.raises(TamisError, match="two sources or more"):
        Aioli().start(problem(1))
    with pytest.raises(TamisError, match="too alike"):
        Aioli(one_hot=0.35).start(problem(3))
    with pytest.raises(TamisError, match="diagonal needs a loss for each"):
        Aioli(diagonal=True).start(problem(3, targets={"x": 1}))
    mixer = Aioli().start(problem(2))
    phase = mixer.propose()
    assert phase is not None
    with pytest.raises(TamisError, match="losses before a probe"):
        mixer.observe(Observation(phase.id, named([1, 1])))


# Skill-It

GRAPH = {"s0": {"s0": 1, "s1": 0.5}, "s1": {"s1": 1, "s2": 0.5}, "s2": {"s2": 1}}


@pytest.mark.parametrize(("window", "last"), [(3, "skillit_after_h1h2"), (1, "skillit_w1")])
def test_skill_it(window: int, last: str) -> None:
    mixer = SkillIt(graph=GRAPH, eta=0.5, window=window).start(problem(3))
    expected = [VECTORS["skillit_p1_eta.5"], VECTORS["skillit_after_h1"], VECTORS[last]]
    for losses, shares in zip([[1.0, 1.2, 1.4], [0.6, 0.9, 1.3], None], expected, strict=True):
        phase = mixer.propose()
        assert phase is not None
        np.testing.assert_allclose(values(dict(phase.mixture)), shares, atol=1e-6)
        if losses:
            mixer.observe(Observation(phase.id, named(losses)))


def test_a_graph_is_learned_from_single_skills() -> None:
    falls = np.array([[0.5, 0.2, 0.0], [0.0, 0.4, -0.1], [0.0, 0.0, 0.3]])
    mixer = SkillIt(rounds=1).start(problem(3))
    for row in falls:
        phase = mixer.propose()
        assert phase is not None
        assert phase.purpose == "proxy"
        mixer.observe(Observation(phase.id, named(2 - row), named([2, 2, 2])))
    np.testing.assert_allclose(mixer.report()["graph"], np.maximum(falls, 0))
    with pytest.raises(TamisError, match="there is no skill s9"):
        SkillIt(graph={"s9": {}}).start(problem(3))


def nested_skills() -> tuple[np.ndarray, np.ndarray]:
    """(contexts of each skill (5, 30), the one table (30, 16)); skill j is of blocks 0 to j."""
    random = np.random.default_rng(0)
    table = random.dirichlet(np.full(16, 0.15), 30)
    sizes = 6 * np.arange(1, 6)
    contexts = (np.arange(30) < sizes[:, None]) / sizes[:, None]
    return contexts, table


def test_the_graph_of_nested_skills_has_the_right_direction() -> None:
    contexts, table = nested_skills()

    def loss(logits: np.ndarray) -> np.ndarray:
        predicted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        each = -(table * np.log(predicted)).sum(1)
        return contexts @ each

    def run(phase: Any) -> Observation:
        weights = values(dict(phase.mixture)) @ contexts
        logits = np.zeros((30, 16))
        before = loss(logits)
        for _ in range(30):
            predicted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            logits -= 12 * weights[:, None] * (predicted - table)
        return Observation(phase.id, named(loss(logits)), named(before))

    mixer = SkillIt(rounds=1, graph_share=0.1)
    solve(mixer, problem(5), run)
    graph = np.array(mixer.report()["graph"])
    # Training on the innermost skill helps skill j exactly on the shared blocks: 1/(j + 1).
    np.testing.assert_allclose(graph[0] / graph[0, 0], 1 / np.arange(1, 6), rtol=1e-6)
    assert graph[0, 4] < graph[4, 0]


# DoGE, DoReMi, ODM


def test_doge() -> None:
    mixer = DoGE(steps=1, mu=0.01, rate=5e-4).start(problem(3, targets={"t": 1}))
    mixer._shares = np.array([0.5, 0.3, 0.2])
    gradients = {"t": named([2.0, -1.0, 0.5])}
    observation = Observation("step 1", {}, gradients=gradients, norms=named([1.0, 1.5, 0.5]))
    mixer.observe(observation)
    np.testing.assert_allclose(values(mixer.proportions()), VECTORS["doge"], atol=1e-6)
    with pytest.raises(TamisError, match="doge needs the gradient of s0"):
        DoGE().start(problem(2)).observe(Observation("step 1", named([1, 1])))


def test_doremi() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    found = doremi_step(shares, np.array([0.1, -0.05, 0.4]), 1.0, 1e-3)
    np.testing.assert_allclose(found, VECTORS["doremi"], atol=1e-6)
    found = doremi_step(shares, np.array([-0.1, -0.05, -0.4]), 1.0, 1e-3)
    np.testing.assert_allclose(found, VECTORS["doremi_excess_clip_all_neg"], atol=1e-6)
    mixer = DoReMi(steps=2).start(problem(2))
    mixer.observe(Observation("reference", named([1, 1])))
    mixer.observe(Observation("step 1", {}, train={"s0": 0.2, "s1": 0.0}))
    first = mixer._shares
    mixer.observe(Observation("step 2", {}, train={"s1": 0.1}))
    second = doremi_step(first, np.array([0.2, 0.1]), 1.0, 1e-3)
    np.testing.assert_allclose(values(mixer.proportions()), (first + second) / 2)


def test_odm() -> None:
    losses = np.array([2.0, 3.0, 4.0])
    rewards, shares, explored = VECTORS["odm_sm_t1"]
    mixer = ODM(steps=200).start(problem(3))
    mixer.observe(Observation("step 1", {}, train=named(losses)))
    np.testing.assert_allclose(mixer._rewards, rewards, atol=1e-6)
    np.testing.assert_allclose(mixer.shares(), shares, atol=1e-6)
    assert exploration(3, 1) == pytest.approx(explored, abs=1e-6)
    rewards, shares, explored = VECTORS["odm_sm_t100"]
    found = 0.9 * mixer._rewards + 0.1 * np.exp(losses)
    np.testing.assert_allclose(found, rewards, atol=1e-6)
    np.testing.assert_allclose(odm_shares(found, explored, 0.0), shares, atol=1e-6)
    assert exploration(3, 100) == pytest.approx(explored, abs=1e-6)
    rewards, shares, explored = VECTORS["odm_exp3_t50"]
    # The exploration before is that of a sampler that has just begun, 1/K.
    found = odm_shares(np.array(rewards), explored, 1 / 3, "exp3")
    np.testing.assert_allclose(found, shares, atol=1e-6)
    assert exploration(3, 50) == pytest.approx(explored, abs=1e-6)


# Worlds


def gap_closed(mixers: list[Mixer], targets: tuple[float, ...], seed: int) -> float:
    """The part of the way from uniform to the best that the mean of the recommendations goes.

    Online methods recommend the mean of what they trained on; the others their answer.
    """
    given = problem(len(targets), targets=named(targets))
    matrices = markov.sources(len(targets), seed)
    found = []
    for number, mixer in enumerate(mixers):
        trained: list[np.ndarray] = []
        world = markov.World(given, matrices, seed=number)

        def run(phase: Any, world: Any = world, trained: Any = trained) -> Observation:
            if phase.purpose == "train":
                trained.append(given.vector(phase.mixture))
            return world(phase)

        answer = solve(mixer, given, run)
        found.append(trained[-1] if trained else values(answer))
    uniform, best = np.full(len(targets), 1 / len(targets)), np.array(targets)
    mean = np.mean(found, 0)
    worst, reached, oracle = (
        markov.final_loss(given, matrices, one) for one in (uniform, mean, best)
    )
    return (worst - reached) / (worst - oracle)


CUMULATIVE = {"rounds": 10, "sweeps": 2, "probe_share": 0.3, "one_hot": 5 / 6, "eta": 1.0}


@pytest.mark.parametrize(("seed", "targets"), [(11, (0.6, 0.3, 0.1)), (14, (0.25, 0.05, 0.7))])
def test_aioli_finds_most_of_what_there_is(seed: int, targets: tuple[float, ...]) -> None:
    cumulative = [Aioli(**CUMULATIVE, ema=None) for _ in range(2)]
    assert gap_closed(cumulative, targets, seed) >= 0.75
    published = [Aioli(**{**CUMULATIVE, "eta": 0.2}, ema=0.1)]
    assert gap_closed(published, targets, seed) <= 0.15


def test_with_equal_targets_uniform_is_best_and_found() -> None:
    given = problem(3)
    world = markov.World(given, markov.sources(3, 5))
    mixer = Aioli(**CUMULATIVE, ema=None)
    found = values(solve(mixer, given, world))
    assert np.abs(found - 1 / 3).sum() <= 0.12


@pytest.mark.slow
def test_laws_fitted_on_worlds() -> None:
    targets, seed = (0.6, 0.3, 0.1), 11
    assert gap_closed([MixingLaw(runs=32, form="offset_power", bootstraps=0)], targets, seed) >= 0.9
    assert gap_closed([MixingLaw(runs=32, form="log_linear", bootstraps=0)], targets, seed) >= 0.5


def test_gradients_show_doge_the_targets() -> None:
    given = problem(3, targets=named([0.5, 0.5, 0.0]))
    matrices = markov.sources(3, 3, noise=2)
    world = markov.World(given, matrices, gradients=True)
    mixer = DoGE(steps=300, mu=0.01, rate=0.05, most=5.0)
    found = solve(mixer, given, world)
    assert found["s2"] < 0.1


def test_odm_follows_what_cannot_be_learned() -> None:
    given = problem(3)
    world = markov.World(given, markov.sources(3, 3, noise=2))
    assert solve(ODM(steps=100), given, world)["s2"] > 0.4


@pytest.mark.parametrize(
    "mixer",
    [
        Aioli(rounds=2, sweeps=2, probe_share=0.3, ema=None),
        Aioli(rounds=2, sweeps=1, probe_share=0.3, one_hot=0.7),
        SkillIt(rounds=3),
        DoGE(steps=4),
        ODM(steps=4),
        ODM(steps=4, variant="exp3"),
        MixingLaw(runs=6, form="log_linear", bootstraps=0),
    ],
    ids=lambda mixer: mixer.kind,
)
def test_interrupted_anywhere_they_go_on_the_same(mixer: Mixer) -> None:
    given = problem(3, floor={"s1": 0.05}, cap={"s0": 0.6})
    matrices = markov.sources(3, 1)
    world = markov.World(given, matrices, steps=60, gradients=True)
    mixer.start(given)
    low, high = given.bounds()
    while phase := mixer.propose():
        copy = type(mixer).model_validate(mixer.model_dump()).load(given, mixer.state())
        assert copy.propose() == phase
        found = values(copy.proportions()) if phase.purpose == "train" else (low + high) / 2
        assert (found >= low - 1e-9).all()
        assert (found <= high + 1e-9).all()
        mixer.observe(world(phase))
    copy = type(mixer).model_validate(mixer.model_dump()).load(given, mixer.state())
    assert copy.proportions() == mixer.proportions()
