"""The protocol of all mixers: phases to train are proposed, what came of them is observed.

    mixer.start(problem)
    while phase := mixer.propose():
        mixer.observe(run(phase))
    mixer.proportions()

A runner that trains, one that looks the answer up in a table, and one that computes it from a known
law are the same to a mixer. ``state`` is JSON and holds all that later proposals depend on.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

from tamis.mixers.problem import Problem
from tamis.mixers.simplex import Float64
from tamis.pipeline.errors import TamisError


@dataclass(frozen=True)
class Phase:
    """What is trained next."""

    id: str
    mixture: Mapping[str, float]
    """The proportion of each source."""
    share: float
    """Of the tokens of the run it belongs to."""
    purpose: Literal["train", "probe", "proxy"] = "train"
    """A probe is part of the real training, too; a proxy is a run of its own, thrown away."""
    run: str = "main"
    """Phases of a run go on from each other."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of a proxy: what differs from the others, say its size."""


@dataclass(frozen=True)
class Observation:
    """What came of a phase. Losses are in nats per token (or all of them in bits per byte)."""

    phase: str
    after: Mapping[str, float]
    """The loss of each evaluation when it had ended."""
    before: Mapping[str, float] = field(default_factory=dict)
    """And when it began."""
    train: Mapping[str, float] = field(default_factory=dict)
    """The mean training loss of each source."""
    gradients: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Inner products: of the gradient of an evaluation with that of a source."""
    norms: Mapping[str, float] = field(default_factory=dict)
    """Of the gradients of the sources."""


@dataclass(frozen=True)
class Prediction:
    """What a law expects of a mixture."""

    losses: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    """A 95 % interval."""
    in_hull: bool
    """Whether the mixture lies between those that were run."""


@dataclass(frozen=True)
class LeftOut:
    """Runs, and what is expected of each by laws that were fitted without it."""

    mixtures: Float64
    """(n, m)"""
    measured: Float64
    """Losses, (n, evaluations)."""
    predicted: Float64
    """The same; NaN for runs that were only learned from."""


class Mixer(BaseModel):
    """A method. Its fields are its settings; what it learns is its state."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    in_steps: ClassVar[bool] = False
    """Whether its proxy is one run that it changes step by step, from more than losses."""
    _problem: Problem | None = PrivateAttr(default=None)
    _observed: list[Observation] = PrivateAttr(default_factory=list)

    @property
    def problem(self) -> Problem:
        """What it was started with."""
        if self._problem is None:
            raise TamisError(f"{self.kind}: there is no problem yet; call start first")
        return self._problem

    @property
    def observed(self) -> tuple[Observation, ...]:
        """Everything so far."""
        return tuple(self._observed)

    def start(self, problem: Problem) -> Self:
        """Begin with a problem.

        Raises:
            RecipeError: if the method cannot work on it.
        """
        self._problem = problem
        self._observed = []
        return self

    @abstractmethod
    def propose(self) -> Phase | None:
        """What to train next; None when nothing more is needed. The same until it is observed."""

    @abstractmethod
    def shares(self) -> Float64:
        """What the method recommends now, (m,), before floors and caps."""

    def learn(self, phase: Phase, observation: Observation) -> None:
        """Take in what came of a phase."""

    def proportions(self) -> dict[str, float]:
        """What to train on, within floors and caps."""
        return self.problem.by_name(self.problem.allowed(self.shares()))

    def observe(self, observation: Observation) -> None:
        """What came of the phase that was proposed last.

        Raises:
            TamisError: if it is of another phase, or a loss is missing or no number.
        """
        phase = self.propose()
        if phase is None or phase.id != observation.phase:
            asked = "nothing" if phase is None else phase.id
            raise TamisError(f"{self.kind} asked for {asked}, and was told of {observation.phase}")
        self._check(observation)
        self.learn(phase, observation)
        self._observed.append(observation)

    def predict(self, mixture: Mapping[str, float]) -> Prediction | None:
        """What the method expects of a mixture; None if it does not say."""
        return None

    def expected(self, mixtures: Float64) -> Float64 | None:
        """Losses (n, evaluations) of mixtures (n, m), as in ``predict``, without intervals."""
        return None

    def left_out(self) -> LeftOut | None:
        """How well runs are predicted that were left out; None if the method does not predict."""
        return None

    def report(self) -> dict[str, Any]:
        """How good a fit is, warnings, and what else is worth knowing."""
        return {}

    def state(self) -> dict[str, Any]:
        """JSON: the method, the problem, and all that was observed."""
        return {
            "mixer": self.kind,
            "settings": self.model_dump(mode="json"),
            "problem": self.problem.fingerprint(),
            "observed": [asdict(one) for one in self._observed],
        }

    def load(self, problem: Problem, state: Mapping[str, Any]) -> Self:
        """Go on from a state: everything that was observed is learned again.

        Raises:
            TamisError: if it is that of another problem or method.
        """
        if state["problem"] != problem.fingerprint():
            raise TamisError(f"the state of {self.kind} is that of another problem")
        if (state["mixer"], state["settings"]) != (self.kind, self.model_dump(mode="json")):
            raise TamisError(f"the state is that of {state['mixer']} with other settings")
        self.start(problem)
        for one in state["observed"]:
            self.observe(Observation(**one))
        return self

    def _check(self, observation: Observation) -> None:
        for name, losses in (("after", observation.after), ("before", observation.before)):
            missing = [one for one in self.problem.evaluations if one not in losses]
            if missing and (name == "after" or losses):
                raise TamisError(f"{observation.phase}: there is no loss of {', '.join(missing)}")
            for evaluation, loss in losses.items():
                if not math.isfinite(loss):
                    raise TamisError(f"{observation.phase}: the loss of {evaluation} is {loss}")


Run = Callable[[Phase], Observation]


def solve(
    mixer: Mixer, problem: Problem, run: Run, journal: Path | None = None, proxies: bool = False
) -> dict[str, float]:
    """Propose and observe to the end; the proportions that are recommended. With ``proxies`` the
    end is where the real training would begin.

    With a ``journal`` (JSONL) every observation is written down before the next proposal, and what
    stands in it is not run again.

    Raises:
        TamisError: if the journal is that of another problem, or an observation is refused.
    """
    mixer.start(problem)
    if journal is not None:
        _replay(mixer, journal)
    while phase := mixer.propose():
        if proxies and phase.purpose != "proxy":
            break
        observation = run(phase)
        mixer.observe(observation)
        if journal is not None:
            line = {"problem": problem.fingerprint(), "mixer": mixer.kind, **asdict(observation)}
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")
    return mixer.proportions()


def _replay(mixer: Mixer, journal: Path) -> None:
    """Observe what stands in a journal; a last line that was cut off is as if it were not there."""
    if not journal.exists():
        return
    content = journal.read_text(encoding="utf-8")
    whole, _, cut = content.rpartition("\n")
    if cut:
        journal.write_text(whole + "\n" if whole else "", encoding="utf-8")
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            record = json.loads(line)
            origin = record.pop("problem"), record.pop("mixer")
            observation = Observation(**record)
        except (ValueError, KeyError, TypeError) as error:
            raise TamisError(f"{journal}, line {number}: it is no observation: {error}") from None
        if origin != (mixer.problem.fingerprint(), mixer.kind):
            raise TamisError(f"{journal} is of another problem or mixer; remove it to begin again")
        mixer.observe(observation)
