"""One score of several: the minimum, mean or maximum of their ranks, z-scores or values.

Scores of different methods are of different kinds, so by default it is ranks that are put together:
the rank of a value is the fraction of documents below it, half of those that are equal included,
from 0 for the worst to 1 for the best; documents with equal values have equal ranks, and NaN has
none and counts nowhere. The least of the ranks wants a document to be good by every score, the
greatest by any.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from tamis.filters.dedup.duplicates import documents_of
from tamis.filters.dedup.summary_columns import TableSummaries, read_column
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.stages import Fitted, Measure, Measures, Quantity, Summaries
from tamis.scorers.columns import missing_scores, numbers_of, score_columns

_FACTS = "combine.json"


class Part(BaseModel):
    """How a column takes part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    better: Literal["higher", "lower"] = "higher"
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


def _by_name(columns: Any) -> Any:
    """A list of columns as a mapping, each taking part as by default."""
    if isinstance(columns, str):
        return {columns: {}}
    if isinstance(columns, list | tuple):
        if len(set(columns)) < len(columns):
            raise ValueError("a column stands there twice; give it a weight instead")
        return {name: {} for name in columns}
    if isinstance(columns, dict):
        return {name: {} if part is None else part for name, part in columns.items()}
    return columns


Columns = Annotated[dict[str, Part], Field(min_length=1), BeforeValidator(_by_name)]


class Scale(NamedTuple):
    """What the values of a column are among, before direction."""

    values: NDArray[np.float64]
    """Different values, ascending."""
    below: NDArray[np.int64]
    """How many documents have a smaller value; behind the last, how many have any."""
    mean: float
    deviation: float

    @classmethod
    def of(cls, column: NDArray[np.float64]) -> Scale:
        """The scale of all values; the array is sorted in place."""
        column.sort()
        known = column[: int(np.searchsorted(column, np.nan))]
        differs = np.ones(len(known), np.bool_)
        differs[1:] = known[1:] != known[:-1]
        below = np.append(np.flatnonzero(differs), len(known))
        if not (len(known) and np.isfinite(known[[0, -1]]).all()):
            return cls(known[differs], below, float("nan"), float("nan"))
        with np.errstate(over="ignore"):
            return cls(known[differs], below, float(known.mean()), float(known.std()))

    def ranks(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """From 0 to 1; NaN for NaN. A value that was not among them is between its neighbours."""
        if not len(self.values):
            return np.full(len(values), np.nan)
        place = np.searchsorted(self.values, values)
        at = np.minimum(place, len(self.values) - 1)
        smaller = self.below[place]
        equal = np.where(self.values[at] == values, self.below[at + 1] - self.below[at], 0)
        return np.where(np.isnan(values), np.nan, (smaller + equal / 2) / self.below[-1])

    def z_scores(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviations above the mean; 0 where all values are equal."""
        return (values - self.mean) / (self.deviation or 1.0)


class Combine(Fitted, Measure):
    """Adds one score of several: the minimum, mean or maximum of their ranks among all documents,
    of their z-scores, or of their values.
    """

    kind: ClassVar[str] = "combine"

    columns: Columns
    """Columns, or stages whose ``score`` is meant: ``[edu, betr]``, or ``{edu: {weight: 2},
    perplexity: {better: lower}}``.
    """
    of: Literal["ranks", "z_scores", "values"] = "ranks"
    """What is put together. The values of a column where lower is better are negated."""
    by: Literal["min", "mean", "max"] = "mean"
    """How; the weights are those of the mean."""
    incomplete: Literal["no_score", "others"] = "no_score"
    """A document that lacks one of the scores has none; ``others``: it has that of the others."""

    _scales: tuple[Scale, ...] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _weights_are_of_a_mean(self) -> Self:
        if self.by != "mean" and any(part.weight != 1 for part in self.columns.values()):
            raise RecipeError(f"{self.name}: weights are for by: mean, not for by: {self.by}")
        return self

    def requires(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def missing(self, available: Sequence[str]) -> list[str]:
        return missing_scores(self.columns, available)

    def provides(self) -> tuple[Quantity, ...]:
        low, high = (0.0, 1.0) if self.of == "ranks" else (float("-inf"), float("inf"))
        what = {"ranks": "ranks", "z_scores": "z-scores", "values": "values"}[self.of]
        meaning = f"{self.by} of the {what} of {', '.join(self.columns)}"
        return (Quantity("score", "score", meaning, low, high),)

    def summarize(self, documents: Documents) -> pa.RecordBatch:
        """The values of the columns, one row a document that is alive."""
        alive = documents.alive
        arrays = [pa.array(numbers_of(documents, one, self.name)[alive]) for one in self.columns]
        return pa.RecordBatch.from_arrays(arrays, list(self.columns))

    def fit(self, summaries: Summaries, folder: Path) -> dict[str, Any]:
        """Write the scale of each column; gives their means, deviations and numbers of values.

        One column is in memory at a time, 8 bytes a document.
        """
        facts: dict[str, Any] = {}
        for number, scale in enumerate(self._fit(summaries)):
            np.save(folder / f"values-{number}.npy", scale.values)
            np.save(folder / f"below-{number}.npy", scale.below)
            known = bool(np.isfinite(scale.deviation))
            facts[list(self.columns)[number]] = {
                "documents": int(scale.below[-1]),
                "different": len(scale.values),
                "mean": scale.mean if known else None,
                "deviation": scale.deviation if known else None,
            }
        (folder / _FACTS).write_text(json.dumps(list(facts.values())), encoding="utf-8")
        return {"columns": facts}

    def load(self, folder: Path) -> Self:
        """This stage with the scales that ``fit`` wrote, memory-mapped.

        Raises:
            TamisError: if the folder does not hold them.
        """
        try:
            facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
            scales = [
                Scale(
                    np.load(folder / f"values-{number}.npy", mmap_mode="r", allow_pickle=False),
                    np.load(folder / f"below-{number}.npy", mmap_mode="r", allow_pickle=False),
                    *(_number(one["mean"]), _number(one["deviation"])),
                )
                for number, one in enumerate(facts)
            ]
        except (OSError, ValueError, KeyError) as error:
            raise TamisError(f"{folder} cannot be read ({error}): fit {self.name} again") from error
        return self._with(scales)

    def fit_table(self, table: pa.Table) -> Self:
        """This stage fitted on a table in memory.

        Raises:
            TamisError: if a column is missing or does not hold numbers.
        """
        summaries = [self.summarize(one) for one in documents_of(table, self._columns_in(table))]
        return self._with(list(self._fit(TableSummaries(summaries))))

    def measure(self, documents: Documents) -> Measures:
        """``score``.

        Raises:
            TamisError: if the stage was not fitted, or a column is missing or no number.
        """
        if self._scales is None:
            raise TamisError(
                f"Stage {self.name} has to see all documents first: use fit and load, or fit_table."
            )
        parts = []
        for (name, part), scale in zip(self.columns.items(), self._scales, strict=True):
            values = numbers_of(documents, name, self.name)
            parts.append(self._comparable(values, scale, part.better == "higher"))
        return {"score": self._together(np.array(parts))}

    def _fit(self, summaries: Summaries) -> Any:
        """The scale of each column by turns."""
        for name in self.columns:
            scale = Scale.of(np.array(read_column(summaries, name, np.float64)))
            if self.of == "z_scores" and len(scale.values) and not np.isfinite(scale.deviation):
                raise TamisError(
                    f"{self.name}: of the column {name} there are no z-scores, it has infinite "
                    "or huge values; take of: ranks"
                )
            yield scale

    def _comparable(
        self, values: NDArray[np.float64], scale: Scale, higher: bool
    ) -> NDArray[np.float64]:
        """The values such that higher is better."""
        if self.of == "ranks":
            ranks = scale.ranks(values)
            return ranks if higher else 1.0 - ranks
        found = scale.z_scores(values) if self.of == "z_scores" else values
        return found if higher else -found

    def _together(self, parts: NDArray[np.float64]) -> NDArray[np.float64]:
        """One value of those of the columns (columns, documents)."""
        lacking = np.isnan(parts)
        never = lacking.all(axis=0) if self.incomplete == "others" else lacking.any(axis=0)
        if self.by == "mean":
            weights = np.array([part.weight for part in self.columns.values()])[:, None] * ~lacking
            total = (np.where(lacking, 0.0, parts) * weights).sum(axis=0)
            found = total / np.where(never, 1.0, weights.sum(axis=0))
        elif self.by == "min":
            found = np.where(lacking, np.inf, parts).min(axis=0)
        else:
            found = np.where(lacking, -np.inf, parts).max(axis=0)
        return np.where(never, np.nan, found)

    def _columns_in(self, table: pa.Table) -> tuple[str, ...]:
        return score_columns(table, self.requires(), self.name)

    def _with(self, scales: Sequence[Scale]) -> Self:
        fitted = self.model_copy()
        fitted._scales = tuple(scales)
        return fitted


def combine(table: pa.Table, stage: Combine) -> pa.Table:
    """The table, in memory, with the column ``<stage>.score`` more.

    Raises:
        TamisError: if a column is missing or does not hold numbers.
    """
    fitted = stage.fit_table(table)
    scores = [fitted.measure(one)["score"] for one in documents_of(table, stage._columns_in(table))]
    return table.append_column(
        f"{stage.name}.score", pa.array(np.concatenate([np.zeros(0), *scores]))
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
