"""What a mixer decides about: sources, what counts, how much is trained on, and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from tamis.mixers.simplex import Float64, project
from tamis.pipeline.errors import RecipeError, nearest

_CLOSE = 1e-6


class Source(BaseModel):
    """Data of one kind to train on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    tokens: float | None = Field(default=None, gt=0)
    """How many there are."""
    max_epochs: float | None = Field(default=None, gt=0)
    """How often each may be trained on."""


class Problem(BaseModel):
    """A choice of proportions. The order of the sources is that of every vector (m,)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[Source, ...] = Field(min_length=1)
    targets: Mapping[str, float] = {}
    """How much the loss on each evaluation counts; scaled to sum 1. By default those on the sources
    count equally.
    """
    budget: float | None = Field(default=None, gt=0)
    """Tokens that are trained on; needed for ``max_epochs``."""
    floor: Mapping[str, float] = {}
    """The smallest share of a source."""
    cap: Mapping[str, float] = {}
    """The largest."""
    seed: int = 0

    def model_post_init(self, context: object, /) -> None:
        names = self.names
        if len(set(names)) < len(names):
            raise RecipeError("sources: each has a name of its own")
        for setting in ("floor", "cap"):
            for name, share in getattr(self, setting).items():
                if name not in names:
                    raise RecipeError(f"{setting}: no source {name}{nearest(name, names)}")
                if not 0 <= share <= 1:
                    raise RecipeError(f"{setting}.{name} = {share}: a share is from 0 to 1")
        if self.targets and not (
            all(np.isfinite(one) and one >= 0 for one in self.targets.values())
            and sum(self.targets.values()) > 0
        ):
            raise RecipeError("targets: weights are not negative, and one is above 0")
        self.bounds()

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the sources."""
        return tuple(one.name for one in self.sources)

    @property
    def evaluations(self) -> tuple[str, ...]:
        """Those of the losses that count."""
        return tuple(self.targets) or self.names

    def target_weights(self) -> Float64:
        """(evaluations,), of sum 1."""
        weights = np.array([self.targets.get(name, 1.0) for name in self.evaluations], np.float64)
        return np.asarray(weights / weights.sum())

    def sizes(self, why: str) -> Float64:
        """The tokens of the sources, (m,); RecipeError if one is not known."""
        for one in self.sources:
            if one.tokens is None:
                raise RecipeError(f"source {one.name}: {why} needs to know its tokens")
        return np.array([one.tokens for one in self.sources], np.float64)

    def bounds(self) -> tuple[Float64, Float64]:
        """The floors and caps, (m,) each; a cap is also the share that ``max_epochs`` allows.

        Raises:
            RecipeError: if they contradict each other.
        """
        low = np.array([self.floor.get(name, 0.0) for name in self.names])
        high = np.array([self.cap.get(name, 1.0) for name in self.names])
        for index, one in enumerate(self.sources):
            if one.max_epochs is not None:
                if one.tokens is None or self.budget is None:
                    raise RecipeError(
                        f"source {one.name}: max_epochs needs its tokens and the budget"
                    )
                high[index] = min(high[index], one.tokens * one.max_epochs / self.budget)
            if low[index] > high[index]:
                raise RecipeError(
                    f"source {one.name}: its floor {low[index]:.4g} is above its cap "
                    f"{high[index]:.4g}"
                )
        if low.sum() > 1 + _CLOSE:
            raise RecipeError(f"the floors sum to {low.sum():.4g}; proportions sum to 1")
        if high.sum() < 1 - _CLOSE:
            raise RecipeError(
                f"the caps allow {high.sum():.1%} of the budget: there is too little data for "
                "this budget and these epochs; lower budget, or raise max_epochs or cap"
            )
        return low, np.minimum(high, 1.0)

    def allowed(self, shares: Float64) -> Float64:
        """The proportions within the bounds that are nearest to the shares, (m,)."""
        low, high = self.bounds()
        return project(shares, low, high)

    def by_name(self, shares: Float64) -> dict[str, float]:
        """The shares with the names of the sources."""
        return {name: float(one) for name, one in zip(self.names, shares, strict=True)}

    def vector(self, mixture: Mapping[str, float]) -> Float64:
        """The proportions (m,) of a mixture by name.

        Raises:
            RecipeError: if a source is unknown, or they do not sum to 1.
        """
        for name in mixture:
            if name not in self.names:
                raise RecipeError(f"there is no source {name}{nearest(name, self.names)}")
        shares = np.array([mixture.get(name, 0.0) for name in self.names], np.float64)
        if not np.isfinite(shares).all() or (shares < 0).any():
            raise RecipeError(f"proportions are not negative: {dict(mixture)}")
        if abs(shares.sum() - 1) > 1e-3:
            raise RecipeError(f"proportions sum to 1, these to {shares.sum():.4g}: {dict(mixture)}")
        return np.asarray(shares / shares.sum())

    def fingerprint(self) -> str:
        """Changes with the problem."""
        return xxhash.xxh3_64_hexdigest(self.model_dump_json().encode())
