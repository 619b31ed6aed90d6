"""Runs that a mixer asks for, as trainings: one folder each, on the proportions that are asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from tamis.mixers.mix import MixConfig
from tamis.mixers.mixer import Observation, Phase
from tamis.mixers.problem import Problem
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.storage import RunFolder
from tamis.trainers.config import TrainConfig
from tamis.trainers.distributed import open_world
from tamis.trainers.evaluation.bits_per_byte import bits_per_byte, by_source
from tamis.trainers.evaluation.scorer import DecoderScorer
from tamis.trainers.run import Training, train
from tamis.trainers.view import View

_NONE = 1e-12
"""The proportion of a source that is not trained on, and still measured."""


class Proxies:
    """Trains what a phase asks for; what was trained before is not trained again.

    Losses are in bits per byte of the documents that were held out of each source (or of the files
    that ``data.held_out`` names). A phase that is a part of a training (the runs for the graph of
    Skill-It) is a training of that part of the tokens, and its losses before are measured, too:
    those of the untrained model, or of the one that ``start_from`` names.
    """

    def __init__(self, config: MixConfig, problem: Problem) -> None:
        """Raises RecipeError if the sources of the training are not those of the mixture."""
        assert config.train is not None
        assert config.output is not None
        self.settings, self.folder, self.problem = config.train, config.output, problem
        self._before: dict[str, float] | None = None
        sources = self.settings.get("data", {}).get("sources", {})
        missing = [name for name in problem.names if name not in sources]
        if missing or len(sources) > len(problem.names):
            raise RecipeError(
                f"train.data.sources are those of the mixture, {', '.join(problem.names)}; they "
                f"are {', '.join(sources) or 'none'}"
            )

    def __call__(self, phase: Phase) -> Observation:
        """Train and measure.

        Raises:
            TamisError: for a phase that goes on from another one, or a training that fails.
        """
        if phase.purpose != "proxy":
            raise TamisError(
                "this method changes proportions while a model trains: name it under methods in "
                "the configuration of tamis train"
            )
        config = self._config(phase)
        folder = train(config, View(quiet=True))
        if phase.share < 1 and self._before is None:
            self._before = first_losses(config)
        return Observation(phase.id, final_losses(folder), self._before or {})

    def _config(self, phase: Phase) -> TrainConfig:
        data: Mapping[str, Any] = self.settings["data"]
        sources = {}
        for name, one in data["sources"].items():
            known = dict(one) if isinstance(one, Mapping) else {"path": one}
            sources[name] = {**known, "proportion": max(phase.mixture[name], _NONE)}
        settings = {
            **self.settings,
            "data": {"tokens": self.folder / "tokens", **data, "sources": sources},
            "output": self.folder / phase.run.replace(" ", "-"),
        }
        try:
            config = TrainConfig.model_validate(settings)
            tokens = max(1, round(config.tokens * phase.share))
            return config.model_copy(update={"tokens": tokens})
        except ValidationError as error:
            one = error.errors(include_url=False)[0]
            raise RecipeError(f"train.{'.'.join(map(str, one['loc']))}: {one['msg']}") from None


def first_losses(config: TrainConfig) -> dict[str, float]:
    """The bits per byte of each source before a training whose data is there."""
    with open_world(config.device) as world:
        training = Training(config, RunFolder(config.output), world, View(quiet=True))
        scorer = DecoderScorer(training.model, training.tokenizer)
        held_out, context = training.held_out, config.evaluation.context
        totals = by_source(bits_per_byte(scorer, training.tokenizer, held_out, context))
    return {name: one.bits_per_byte for name, one in totals.items()}


def final_losses(folder: Path) -> dict[str, float]:
    """The bits per byte of each source at the end of a training."""
    table = pl.read_parquet(folder / "evaluations.parquet")
    last = table.filter(pl.col("step") == pl.col("step").max())
    return dict(zip(last["source"].to_list(), last["bits_per_byte"].to_list(), strict=True))
