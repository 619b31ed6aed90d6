"""A mixer at work while a model trains: proportions change as it learns what helps.

    methods: [{mix: {method: {aioli: {rounds: 20, ema: null, eta: 1.0}}, targets: {books: 1}}}]

The phases that the mixer proposes are parts of the budget; between them it is told the losses on
held-out text, or those of training, as it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import PrivateAttr

from tamis.mixers.mix import make_mixer
from tamis.mixers.mixer import Mixer, Observation, Phase
from tamis.mixers.problem import Problem, Source
from tamis.pipeline.errors import RecipeError
from tamis.trainers.hooks import Hook

_ROUNDING = 1e-9


class Mix(Hook):
    """Aioli, Skill-It with a graph, ODM, Cooldown, and proportions that do not change.

    A phase is at least a step: with very short ones the training is over before the mixer is. What
    it costs are the measurements, of ``held_out_bytes`` of each source between two phases.
    """

    held_out_bytes: ClassVar[int] = 50_000

    method: str | dict[str, dict[str, Any] | None]
    """As in ``tamis mix``."""
    targets: Mapping[str, float] = {}
    floor: Mapping[str, float] = {}
    cap: Mapping[str, float] = {}
    seed: int = 0

    _mixer: Mixer | None = PrivateAttr(default=None)
    _sources: dict[str, int] = PrivateAttr(default_factory=dict)
    _phase: Phase | None = PrivateAttr(default=None)
    _ends: float = PrivateAttr(default=0.0)
    _before: dict[str, float] = PrivateAttr(default_factory=dict)
    _train: dict[str, list[float]] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        make_mixer(self.method)

    def asks(self, progress: float) -> bool:
        """Between two phases, and before the first."""
        return self._mixer is None or (
            self._phase is not None and progress >= self._ends - _ROUNDING
        )

    def told(self, progress: float, losses: Mapping[str, float]) -> None:
        """The phase has ended: the mixer learns of it, and the next one begins."""
        if self._mixer is None:
            # The mixer begins when the sources are known, in ``proportions``.
            self._before = dict(losses)
            return
        assert self._phase is not None
        means = {name: sum(some) / len(some) for name, some in self._train.items() if some}
        self._mixer.observe(Observation(self._phase.id, dict(losses), self._before, means))
        self._before, self._train = dict(losses), {}
        self._next(progress)

    def proportions(self, progress: float, sources: Mapping[str, int]) -> Sequence[float] | None:
        if self._mixer is None:
            self._begin(sources)
            self._next(progress)
        assert self._mixer is not None
        mixture = self._mixer.proportions() if self._phase is None else self._phase.mixture
        return [mixture[name] for name in sources]

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        for name, loss in losses.items():
            self._train.setdefault(name, []).append(loss)

    def _begin(self, sources: Mapping[str, int]) -> None:
        self._sources = dict(sources)
        known = tuple(Source(name=name, tokens=tokens) for name, tokens in sources.items())
        problem = Problem(
            sources=known, targets=self.targets, floor=self.floor, cap=self.cap, seed=self.seed
        )
        self._mixer = make_mixer(self.method).start(problem)

    def _next(self, progress: float) -> None:
        """What the mixer proposes next; a phase may run over the end of the last by part of a step,
        which is not made up for.
        """
        assert self._mixer is not None
        self._phase = self._mixer.propose()
        if self._phase is None:
            return
        if self._phase.purpose == "proxy":
            raise RecipeError(
                f"methods.mix: {self._mixer.kind} needs runs of its own before the training; find "
                "the proportions with tamis mix, or name another method"
            )
        self._ends = max(self._ends, progress) + self._phase.share

    def state(self) -> dict[str, Any]:
        if self._mixer is None:
            return {}
        return {
            "mixer": self._mixer.state(),
            "sources": self._sources,
            "ends": self._ends,
            "before": self._before,
            "train": self._train,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        self._begin(state["sources"])
        assert self._mixer is not None
        self._mixer.load(self._mixer.problem, state["mixer"])
        self._phase = self._mixer.propose()
        self._ends, self._before = state["ends"], dict(state["before"])
        self._train = {name: list(some) for name, some in state["train"].items()}
