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
from tamis.trainers.config import TrainConfig
from tamis.trainers.run import train
from tamis.trainers.view import View

_NONE = 1e-12
"""The proportion of a source that is not trained on, and still measured."""


class Proxies:
    """Trains what a phase asks for; what was trained before is not trained again.

    Losses are in bits per byte of the documents that were held out of each source (or of the files
    that ``data.held_out`` names).
    """

    def __init__(self, config: MixConfig, problem: Problem) -> None:
        """Raises RecipeError if the sources of the training are not those of the mixture."""
        assert config.train is not None
        assert config.output is not None
        self.settings, self.folder, self.problem = config.train, config.output, problem
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
        if phase.purpose != "proxy" or phase.share != 1.0:
            raise TamisError(
                "this method changes proportions while a model trains: name it under methods in "
                "the configuration of tamis train"
            )
        folder = train(self._config(phase), View(quiet=True))
        return Observation(phase.id, final_losses(folder))

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
            return TrainConfig.model_validate(settings)
        except ValidationError as error:
            one = error.errors(include_url=False)[0]
            raise RecipeError(f"train.{'.'.join(map(str, one['loc']))}: {one['msg']}") from None


def final_losses(folder: Path) -> dict[str, float]:
    """The bits per byte of each source at the end of a training."""
    table = pl.read_parquet(folder / "evaluations.parquet")
    last = table.filter(pl.col("step") == pl.col("step").max())
    return dict(zip(last["source"].to_list(), last["bits_per_byte"].to_list(), strict=True))
