"""A temperature that falls while training (Li et al. 2024, arXiv 2410.04579)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from tamis.mixers.mixer import Mixer, Observation, Phase
from tamis.mixers.simplex import Float64
from tamis.mixers.static import tempered


class Cooldown(Mixer):
    """Small sources more often at first, and natural proportions at the end: temperature 5 in the
    first half, 1 in the second.

    A high temperature all the way overfits small sources; with full gradients it equals weights of
    p(t) / p(1) on the losses (theorem 1), but weights have a variance that grows with
    ``variance_factor``.
    """

    kind: ClassVar[str] = "cooldown"

    temperatures: tuple[float, ...] = Field(default=(5.0, 1.0), min_length=1)
    """Each for an equal part of the training."""

    def propose(self) -> Phase | None:
        number = len(self._observed)
        if number == len(self.temperatures):
            return None
        mixture = self.proportions()
        return Phase(f"temperature {number + 1}", mixture, 1 / len(self.temperatures))

    def shares(self) -> Float64:
        number = min(len(self._observed), len(self.temperatures) - 1)
        return tempered(self.problem.sizes(self.kind), self.temperatures[number])

    def _check(self, observation: Observation) -> None:
        """It does not look at losses."""


def variance_factor(sizes: Float64, temperature: float) -> float:
    """sum_i p(i; t)^2 / p(i; 1), which drives the variance of weighted losses over that of sampled
    ones (theorems 2 and 3); 1 at t = 1.
    """
    return float((tempered(sizes, temperature) ** 2 / tempered(np.asarray(sizes), 1.0)).sum())
