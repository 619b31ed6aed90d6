"""The sources of a training, mixed: which rows a step sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.trainers.batch import Batch
from tamis.trainers.packing import Rows, gather
from tamis.trainers.sampler import Sampler

Ids = tuple[NDArray[np.int32], NDArray[np.int64]]
"""(sources, rows) of some rows."""


class Mixture:
    """Sources in rows, and the order in which they come.

    ``proportions`` are the shares of the rows of each source; they add up to 1.
    """

    def __init__(
        self, sources: Mapping[str, Rows], proportions: Sequence[float] | None, seed: int
    ) -> None:
        self.names = tuple(sources)
        self.rows = tuple(sources.values())
        sizes = [len(one) for one in self.rows]
        # Rows of concatenated text have equal numbers of tokens: in proportion to them, each
        # source is seen equally often.
        shares = np.array(sizes if proportions is None else proportions, np.float64)
        self.proportions: list[float] = (shares / shares.sum()).tolist()
        self.sampler = Sampler(sizes, seed)
        self.context = self.rows[0].context
        self.tokens = {
            name: int(rows.source.facts["tokens"])
            for name, rows in zip(self.names, self.rows, strict=True)
        }
        """Of each source."""

    def draw(self, count: int, proportions: Sequence[float] | None = None) -> Ids:
        """The next rows; the same whatever the number of processes."""
        return self.sampler.next(count, proportions or self.proportions)

    def take(self, ids: Ids) -> Batch:
        """The rows, in this order."""
        return gather(self.rows, *ids)

    def epochs(self) -> dict[str, float]:
        """How often each source was seen."""
        return dict(zip(self.names, self.sampler.epochs.tolist(), strict=True))

    def facts(self) -> dict[str, dict[str, Any]]:
        """What each source is, what packing it costs, and its share of the rows."""
        return {
            name: {**rows.source.facts, **rows.facts(), "proportion": share}
            for name, rows, share in zip(self.names, self.rows, self.proportions, strict=True)
        }
