"""Predictive strength: how well the losses of models on a document predict how good the models are.

Shum et al. 2025 (arXiv:2503.00808, equation 1). With N models from the worst to the best on
benchmarks, and C_i the loss of model i on document d,

    S(d) = (1 / Z) sum_{i < j} [C_i(d) > C_j(d)],   Z = N (N - 1) / 2

which is 1 if the losses order the models as the benchmarks do, 0 if they order them the other way
round, and 1/2 on average if they have nothing to do with each other. Equal losses, and pairs of
models with equal benchmarks, count as not predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, field_validator

from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.stages import Measure, Measures, Quantity, fraction

FEWEST = 3
ENOUGH = 6
"""Models; with fewer than these many documents are ordered rightly by chance."""

Float64 = NDArray[np.float64]


def predictive_strength(losses: NDArray[Any], benchmarks: Sequence[float]) -> Float64:
    """S of each document, (D,), from ``losses`` (N, D) in any unit that is the same for all models
    (nats of the whole document, or bits per byte; not nats per token, unless the tokenizer is the
    same) and the N benchmark results, higher for better models.

    A document with a NaN loss has the strength NaN.

    Raises:
        TamisError: if there are fewer than three models, or the numbers do not fit.
    """
    losses = np.asarray(losses, np.float64)
    check_models(losses, benchmarks)
    counted = np.zeros(losses.shape[1])
    for weaker, stronger in _pairs(benchmarks):
        counted += losses[weaker] > losses[stronger]
    n = len(benchmarks)
    counted[np.isnan(losses).any(axis=0)] = np.nan
    return counted / (n * (n - 1) / 2)


def check_models(losses: Float64, benchmarks: Sequence[float]) -> None:
    """TamisError if no strength can be told from these numbers."""
    if losses.ndim != 2 or len(losses) != len(benchmarks):
        raise TamisError(
            f"losses are a row for each of the {len(benchmarks)} models, not of shape "
            f"{losses.shape}"
        )
    if len(benchmarks) < FEWEST:
        raise TamisError(
            f"{len(benchmarks)} models: to order models takes at least {FEWEST}, and by chance one "
            f"document in N! has them in order, so better {ENOUGH} or more"
        )
    if not all(math.isfinite(one) for one in benchmarks):
        raise TamisError("a benchmark result is no number")


def _pairs(benchmarks: Sequence[float]) -> list[tuple[int, int]]:
    """(weaker, stronger) of all pairs of models that differ."""
    order = sorted(range(len(benchmarks)), key=lambda one: benchmarks[one])
    return [(i, j) for i, j in combinations(order, 2) if benchmarks[i] < benchmarks[j]]


def chance_counts(models: int) -> list[int]:
    """How many of the N! orders of N models have 0, 1, ... N (N - 1) / 2 pairs right: what S is
    when the losses have nothing to do with the benchmarks (Mahonian numbers).
    """
    counts = [1]
    for size in range(2, models + 1):
        # The next model may stand before 0 to size - 1 of the others.
        counts = [
            sum(counts[max(0, right - size + 1) : right + 1])
            for right in range(len(counts) + size - 1)
        ]
    return counts


class Reliability(NamedTuple):
    """How far an order of documents by predictive strength can be trusted."""

    names: tuple[str, ...]
    """Of the models, from the worst to the best on benchmarks."""
    mean_loss: tuple[float, ...]
    """Of each model over all documents together: losses by sizes (nats a byte)."""
    documents: int
    levels: tuple[int, ...]
    """Documents with S = 0, 1 / Z, ... 1."""
    chance: tuple[float, ...]
    """The share of documents with each of these if losses and benchmarks were independent."""
    neighbours: tuple[float, ...]
    """For each model but the best: the share of documents on which the next one is better."""
    left_out: tuple[float, ...]
    """For each model: of the documents that order all others rightly, the share that put this one
    in its place; 1 / N by chance. NaN if there is no such document.
    """
    rank_stability: tuple[float, ...]
    """For each model: Spearman's correlation of S with the S of the other models."""
    length_correlation: float
    """Spearman's correlation of S with the size of the document."""
    by_length: tuple[float, ...]
    """The share with S = 1 in each quarter of the documents, from the shortest on."""

    @property
    def predictive(self) -> float:
        """The share of documents with S = 1."""
        return self.levels[-1] / max(1, self.documents)

    def facts(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        plain = {
            name: [_plain(one) for one in value] if isinstance(value, tuple) else _plain(value)
            for name, value in self._asdict().items()
        }
        return {**plain, "predictive": self.predictive}

    def format(self) -> str:
        """For people to read."""
        n = len(self.names)
        lines = [
            f"{n} models, {self.documents:,} documents: {self.predictive:.1%} order them rightly "
            f"(S = 1), {self.chance[-1]:.2%} would by chance; "
            f"{self.levels[0] / max(1, self.documents):.1%} the wrong way round (S = 0)",
            "  model, worst first            nats a byte  next one better  left out, put in place "
            f"(chance {1 / n:.0%})",
        ]
        better = (*(f"{one:.0%}" for one in self.neighbours), "-")
        for row in zip(self.names, self.mean_loss, better, self.left_out, strict=True):
            name, loss, next_better, place = row
            shown = "-" if math.isnan(place) else f"{place:.0%}"
            lines.append(f"  {name[-30:]:<30} {loss:>10.4f} {next_better:>16} {shown:>12}")
        quarters = ", ".join(f"{one:.1%}" for one in self.by_length)
        lines.append(
            f"  S = 1 by length, shortest quarter first: {quarters}; "
            f"Spearman of S and length {self.length_correlation:+.2f}"
        )
        if n < ENOUGH:
            lines.append(
                f"  few models: with {n}, one document in {math.factorial(n)} has S = 1 by chance; "
                f"take {ENOUGH} or more"
            )
        return "\n".join(lines)


def reliability(
    losses: NDArray[Any], benchmarks: Sequence[float], sizes: NDArray[Any], names: Sequence[str]
) -> Reliability:
    """How noisy the strengths of documents are; ``losses`` (N, D) of whole documents, ``sizes``
    (D,) in bytes. Documents with a NaN loss are left out.

    Raises:
        TamisError: see ``predictive_strength``.
    """
    check_models(np.asarray(losses), benchmarks)
    order = sorted(range(len(benchmarks)), key=lambda one: benchmarks[one])
    losses = np.asarray(losses, np.float64)
    whole = ~np.isnan(losses).any(axis=0)
    losses, sizes = losses[order][:, whole], np.asarray(sizes)[whole]
    n, results = len(order), [benchmarks[one] for one in order]
    strength = predictive_strength(losses, results)
    levels = n * (n - 1) // 2
    quarter = np.argsort(np.argsort(sizes, kind="stable")) * 4 // max(1, len(sizes))
    counts = chance_counts(n)
    per_unit = losses.sum(axis=1) / max(1, sizes.sum())
    return Reliability(
        tuple(names[one] for one in order),
        tuple(per_unit.tolist()),
        len(sizes),
        tuple(np.bincount(np.rint(strength * levels).astype(int), minlength=levels + 1).tolist()),
        tuple(one / math.factorial(n) for one in counts),
        tuple(_mean(losses[one] > losses[one + 1]) for one in range(n - 1)),
        tuple(_put_in_place(losses, one) for one in range(n)),
        tuple(_stability(losses, results, strength, one) for one in range(n)),
        _spearman(strength, sizes),
        tuple(_mean(strength[quarter == one] == 1) for one in range(4)),
    )


def _put_in_place(losses: Float64, model: int) -> float:
    others = np.delete(losses, model, axis=0)
    ordered = (np.diff(others, axis=0) < 0).all(axis=0)
    right = np.asarray((np.diff(losses, axis=0) < 0).all(axis=0))
    return _mean(right[ordered])


def _stability(losses: Float64, results: list[float], strength: Float64, model: int) -> float:
    others = [one for one in range(len(results)) if one != model]
    if len(others) < FEWEST:
        return math.nan
    without = predictive_strength(losses[others], [results[one] for one in others])
    return _spearman(strength, without)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _spearman(one: NDArray[Any], other: NDArray[Any]) -> float:
    found = pl.DataFrame({"a": one, "b": other}).select(pl.corr("a", "b", method="spearman"))
    value = found.item() if len(one) > 1 else None
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


class PredictiveStrength(Measure):
    """Adds the predictive strength of each document from columns with the losses of models, such as
    those of several ``perplexity`` stages; a document with a loss of NaN has none (NaN).
    """

    kind: ClassVar[str] = "predictive_strength"

    losses: dict[str, float] = Field(min_length=1)
    """The column with the losses of each model (``small.bits_per_byte``, say), and the benchmark
    result of the model, higher for better ones.
    """

    @field_validator("losses")
    @classmethod
    def _orders_models(cls, losses: dict[str, float]) -> dict[str, float]:
        try:
            check_models(np.zeros((len(losses), 0)), tuple(losses.values()))
            check_distinct(tuple(losses), tuple(losses.values()))
        except TamisError as error:
            raise ValueError(str(error)) from None
        return losses

    def requires(self) -> tuple[str, ...]:
        return tuple(self.losses)

    def provides(self) -> tuple[Quantity, ...]:
        return (fraction("score", "pairs of models that the losses order as benchmarks do"),)

    def measure(self, documents: Documents) -> Measures:
        columns = []
        for name in self.losses:
            column = documents.batch.column(name)
            columns.append(np.asarray(column.cast("float64").fill_null(math.nan)))
        strength = predictive_strength(np.array(columns), tuple(self.losses.values()))
        return {"score": strength}


def check_distinct(names: Sequence[str], benchmarks: Sequence[float]) -> None:
    """RecipeError if two models have the same benchmark result: none could then have S = 1."""
    seen: dict[float, str] = {}
    for name, value in zip(names, benchmarks, strict=True):
        if value in seen:
            raise RecipeError(
                f"{seen[value]} and {name} have the same benchmark result, {value:g}, and cannot "
                "be ordered: leave one out, or give more digits"
            )
        seen[value] = name
