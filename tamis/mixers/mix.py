"""``tamis mix CONFIG``: proportions from sizes, from a table of runs, or from runs that it starts.

sources:
  web: {tokens: 9e9}
  books: {tokens: 4e8, max_epochs: 4}
targets: {books: 1, web: 1}
budget: 2e9
method: {mixing_law: {kl: 0.05}}
runs: runs.csv                    # or {proportions: a.csv, losses: b.csv}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tamis.mixers.cmr import CriticalRatio
from tamis.mixers.from_runs import FromRuns, MixingLaw
from tamis.mixers.mixer import Mixer, Prediction, Run, solve
from tamis.mixers.page import render
from tamis.mixers.problem import Problem, Source
from tamis.mixers.runs import read_runs
from tamis.mixers.skill_it import SkillIt
from tamis.pipeline.errors import RecipeError, TamisError, nearest
from tamis.pipeline.report.html import write_page

METHODS = {
    "aioli": "tamis.mixers.aioli:Aioli",
    "cmr": "tamis.mixers.cmr:CriticalRatio",
    "cooldown": "tamis.mixers.cooldown:Cooldown",
    "doge": "tamis.mixers.doge:DoGE",
    "doremi": "tamis.mixers.doremi:DoReMi",
    "equitable": "tamis.mixers.static:Equitable",
    "fixed": "tamis.mixers.static:Fixed",
    "mixing_law": "tamis.mixers.from_runs:MixingLaw",
    "natural": "tamis.mixers.static:Natural",
    "odm": "tamis.mixers.odm:ODM",
    "regmix": "tamis.mixers.regmix:RegMix",
    "skill_it": "tamis.mixers.skill_it:SkillIt",
    "temperature": "tamis.mixers.static:Temperature",
    "uniform": "tamis.mixers.static:Uniform",
    "unimax": "tamis.mixers.static:UniMax",
}


class SourceSettings(BaseModel):
    """What is known about a source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: float | None = Field(default=None, gt=0)
    max_epochs: float | None = Field(default=None, gt=0)


class TwoTables(BaseModel):
    """Proportions and losses in files of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    proportions: Path
    losses: Path


class MixConfig(BaseModel):
    """What ``tamis mix`` is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: dict[str, SourceSettings] = Field(min_length=1)
    targets: dict[str, float] = {}
    budget: float | None = Field(default=None, gt=0)
    floor: dict[str, float] = {}
    cap: dict[str, float] = {}
    seed: int = 0
    method: str | dict[str, dict[str, Any] | None]
    """A name, or ``{name: {settings}}``."""
    runs: Path | TwoTables | None = None
    """A table of runs, CSV or Parquet."""
    train: dict[str, Any] | None = None
    """The configuration of ``tamis train`` for the runs that the method asks for; their proportions
    are filled in.
    """
    output: Path | None = None
    """Where runs are kept that are started, and the answer is written."""

    @field_validator("sources", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        """A list of names, or names without settings."""
        if isinstance(value, list):
            value = dict.fromkeys(value)
        if isinstance(value, Mapping):
            return {name: {} if one is None else one for name, one in value.items()}
        return value

    def problem(self) -> Problem:
        """What is to be decided."""
        sources = tuple(
            Source(name=name, tokens=one.tokens, max_epochs=one.max_epochs)
            for name, one in self.sources.items()
        )
        return Problem(
            sources=sources, targets=self.targets, budget=self.budget, floor=self.floor,
            cap=self.cap, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class Mixed:
    """The answer."""

    problem: Problem
    mixer: Mixer
    proportions: dict[str, float]
    intervals: dict[str, tuple[float, float]] | None
    """95 %, of methods that have them."""
    prediction: Prediction | None
    natural: Prediction | None
    """What is expected of natural proportions (uniform ones if sizes are not known)."""
    warnings: tuple[str, ...]

    def format(self) -> str:
        """As a table to read."""
        lines = [f"{'source':<24} {'share':>7}  {'95 %':>15}"]
        for name, share in self.proportions.items():
            around = ""
            if self.intervals is not None:
                around = "{:.3f} to {:.3f}".format(*self.intervals[name])
            lines.append(f"{name:<24} {share:>7.3f}  {around:>15}".rstrip())
        if self.prediction is not None and self.natural is not None:
            lines += ["", f"{'loss':<24} {'expected':>8}  {'95 %':>15}  {'else':>8}"]
            for name, loss in self.prediction.losses.items():
                low, high = self.prediction.low[name], self.prediction.high[name]
                other = self.natural.losses[name]
                lines.append(
                    f"{name:<24} {loss:>8.4f}  {f'{low:.3f} to {high:.3f}':>15}  {other:>8.4f}"
                )
            lines.append("else: with natural proportions, or uniform ones if sizes are not known")
        return "\n".join([*lines, *(f"warning: {one}" for one in self.warnings)])


def make_mixer(method: str | Mapping[str, Mapping[str, Any] | None]) -> Mixer:
    """The method of a setting: a name, or ``{name: {settings}}``.

    Raises:
        RecipeError: if there is no such method, or a setting is wrong.
    """
    if isinstance(method, str):
        method = {method: None}
    if len(method) != 1:
        raise RecipeError(f"method: one, by name, not {', '.join(method) or 'none'}")
    ((name, settings),) = method.items()
    if name not in METHODS:
        raise RecipeError(f"there is no method {name}{nearest(name, METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    cls: type[Mixer] = getattr(import_module(module), attribute)
    try:
        return cls(**(settings or {}))
    except ValidationError as error:
        one = error.errors(include_url=False)[0]
        key = ".".join(map(str, one["loc"]))
        if one["type"] == "extra_forbidden":
            fields = [field for field in cls.model_fields if not field.startswith("_")]
            raise RecipeError(f"{name} has no setting {key}{nearest(key, fields)}") from None
        raise RecipeError(f"{name}.{key}: {one['msg']}") from None


def mix(config: MixConfig, runner: Callable[[MixConfig, Problem], Run] | None = None) -> Mixed:
    """The proportions that a method recommends.

    ``runner`` makes what runs the phases that the method asks for, if there is no table.

    Raises:
        RecipeError: for a setting that is wrong, or a method that needs runs and has none.
        TamisError: if the runs do not allow an answer.
    """
    problem, mixer = config.problem(), make_mixer(config.method)
    _needs_scipy(mixer)
    mixer.start(problem)
    if config.runs is not None:
        _take_runs(mixer, problem, config.runs)
        proportions = mixer.proportions()
    elif (first := mixer.propose()) is None:
        proportions = mixer.proportions()
    elif mixer.in_steps:
        raise RecipeError(
            f"{mixer.kind} looks into the steps of a training, at more than losses: tamis train "
            "cannot tell it yet; drive it from Python, or name another method"
        )
    elif first.purpose != "proxy":
        raise RecipeError(
            f"{mixer.kind} changes proportions while a model trains: name it under methods in the "
            "configuration of tamis train"
        )
    elif config.train is None or config.output is None or runner is None:
        raise RecipeError(
            f"{mixer.kind} learns from runs: name a table of them (runs), or how to train them "
            "(train) and where (output)"
        )
    else:
        config.output.mkdir(parents=True, exist_ok=True)
        run = runner(config, problem)
        journal = config.output / "observations.jsonl"
        proportions = solve(mixer, problem, run, journal, proxies=True)
    mixed = _with_predictions(problem, mixer, proportions)
    if config.output is not None:
        _write(mixed, config, config.output)
    return mixed


def _write(mixed: Mixed, config: MixConfig, output: Path) -> None:
    """The proportions for a program, the page for a reader."""
    output.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"proportions": mixed.proportions}, sort_keys=False)
    (output / "proportions.yaml").write_text(text, encoding="utf-8")
    if isinstance(mixed.mixer, SkillIt):
        setting = {**mixed.mixer.model_dump(mode="json"), "graph": mixed.mixer.graph_by_name()}
        methods = {"methods": [{"mix": {"method": {"skill_it": setting}}}]}
        text = yaml.safe_dump(methods, sort_keys=False)
        (output / "methods.yaml").write_text(text, encoding="utf-8")
    settings = config.model_dump(mode="json", exclude_defaults=True)
    write_page(render(mixed, settings), output / "report.html")


def _take_runs(mixer: Mixer, problem: Problem, tables: Path | TwoTables) -> None:
    paths = (tables, None) if isinstance(tables, Path) else (tables.proportions, tables.losses)
    runs = read_runs(problem, *paths)
    if isinstance(mixer, FromRuns):
        mixer.use(runs)
    elif isinstance(mixer, CriticalRatio):
        ratios = runs.proportions[:, problem.names.index(mixer.domain)]
        losses = [dict(zip(problem.evaluations, row.tolist(), strict=True)) for row in runs.losses]
        mixer.use(ratios, losses)
    else:
        raise RecipeError(
            f"{mixer.kind} does not learn from a table of runs; mixing_law, regmix and cmr do"
        )


def _with_predictions(problem: Problem, mixer: Mixer, proportions: dict[str, float]) -> Mixed:
    known = all(one.tokens is not None for one in problem.sources)
    sizes = problem.sizes("natural") if known else np.ones(len(problem.sources))
    intervals = None
    if isinstance(mixer, MixingLaw) and mixer.bootstraps:
        intervals = mixer.intervals()
    elif isinstance(mixer, CriticalRatio):
        low, high = mixer.interval()
        intervals = {mixer.domain: (low, high), mixer.general: (1 - high, 1 - low)}
    return Mixed(
        problem,
        mixer,
        proportions,
        intervals,
        mixer.predict(proportions),
        mixer.predict(problem.by_name(sizes / sizes.sum())),
        tuple(mixer.report().get("warnings", ())),
    )


def _needs_scipy(mixer: Mixer) -> None:
    if not isinstance(mixer, FromRuns | CriticalRatio):
        return
    try:
        import_module("scipy")
    except ImportError:
        raise TamisError(f"{mixer.kind} needs scipy: pip install 'tamis[mix]'") from None
