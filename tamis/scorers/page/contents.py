"""What the page of scored documents says, from the shards of the run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.pipeline.documents import ID, SOURCE, TEXT
from tamis.pipeline.explain import read_manifest
from tamis.pipeline.report.figures import count, percent
from tamis.pipeline.report.histogram import Histogram, draw
from tamis.pipeline.storage import RunFolder
from tamis.scorers.ranking import Scale, coarse_scales, sort_keys, values_of

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
BINS = 50
COLUMNS = 24
"""Columns of scores that are shown."""
_ERROR = 1e-4
# What lies further out than this share of the documents goes into the outermost bars.
_TAIL = 0.001


class Place(NamedTuple):
    """A document: its score, and where it stands."""

    score: float
    shard: int
    row: int


@dataclass(frozen=True)
class Scored:
    """A column of scores."""

    name: str
    documents: int
    missing: int
    histogram: Histogram | None
    quantiles: list[tuple[str, float]]
    groups: list[tuple[str, str, list[dict[str, Any]]]]
    """(anchor, title, documents)."""


def contents(
    run: str | Path, columns: Sequence[str], top: int, threshold: float | None
) -> dict[str, Any]:
    """The variables of the template; at most ``COLUMNS`` columns are shown."""
    folder, manifest = read_manifest(run)
    shards = [folder.full(one["path"]) for one in manifest["outputs"]]
    data = _Shards(folder, shards)
    shown = list(columns)[:COLUMNS]
    # A threshold means something for the first scorer alone.
    limits = [threshold, *[None] * len(shown)]
    scored = [_column(data, *one, top) for one in zip(shown, limits, strict=False)]
    counts = manifest["counts"]
    missing = sum(one.missing for one in scored[:1])
    return {
        "run": str(run),
        "manifest": manifest,
        "verdict": f"{count(counts['kept'])} document{'s'[: counts['kept'] != 1]} scored.",
        "why": f"{count(missing)} ({percent(missing, counts['kept'])}) have no score."
        if missing
        else "",
        "failed": counts["failed"],
        "scored": scored,
        "hidden": len(columns) - len(shown),
        "threshold": threshold,
        "commands": _commands(str(run), shown),
    }


def _commands(run: str, columns: Sequence[str]) -> list[tuple[str, str]]:
    by = columns[0].removesuffix(".score") if columns else "NAME"
    stage = f"select: {{by: {by}, keep_fraction: 0.1, unit: bytes}}"
    return [
        ("Keep the best tenth of the text: a stage of a recipe over data/", f"- {stage}"),
        ("The report of the run", shlex.join(["tamis", "report", run])),
    ]


class _Shards:
    """The shards of a run, a few columns at a time."""

    def __init__(self, folder: RunFolder, paths: Sequence[str]) -> None:
        self.folder, self.paths = folder, paths

    def values(self, column: str) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
        """(shard, first row, values) of the column, piece by piece; NaN where there is none."""
        for shard, path in enumerate(self.paths):
            with self.folder.fs.open(path, "rb") as file:
                first = 0
                for batch in pq.ParquetFile(file).iter_batches(columns=[column]):
                    values = batch.column(0).cast("float64").fill_null(float("nan"))
                    yield shard, first, values.to_numpy(zero_copy_only=False)
                    first += batch.num_rows

    def documents(self, places: Sequence[Place]) -> dict[Place, Mapping[str, Any]]:
        """The documents at these places."""
        found: dict[Place, Mapping[str, Any]] = {}
        for shard in sorted({place.shard for place in places}):
            with self.folder.fs.open(self.paths[shard], "rb") as file:
                parquet = pq.ParquetFile(file)
                names = [n for n in (ID, TEXT, SOURCE, "url") if n in parquet.schema_arrow.names]
                first = 0
                for group in range(parquet.num_row_groups):
                    rows = parquet.metadata.row_group(group).num_rows
                    inside = [
                        p for p in places if p.shard == shard and first <= p.row < first + rows
                    ]
                    if inside:
                        table = parquet.read_row_group(group, names)
                        for place in inside:
                            found[place] = table.slice(place.row - first, 1).to_pylist()[0]
                    first += rows
        return found


def _column(data: _Shards, name: str, threshold: float | None, top: int) -> Scored:
    documents = missing = 0
    highest, lowest, above, below = (_Best(top) for _ in range(4))
    for shard, first, values in data.values(name):
        known = np.flatnonzero(~np.isnan(values))
        documents += len(values)
        missing += len(values) - len(known)
        highest.add(-values[known], values[known], shard, first + known)
        lowest.add(values[known], values[known], shard, first + known)
        if threshold is not None:
            over = known[values[known] >= threshold]
            under = known[values[known] < threshold]
            above.add(values[over], values[over], shard, first + over)
            below.add(-values[under], values[under], shard, first + under)
    scale = _scale(data, name, documents - missing)
    lists = [("highest", "Highest", highest.places), ("lowest", "Lowest", lowest.places)]
    if threshold is not None:
        lists += [
            ("above", f"Just above {threshold:g}", above.places),
            ("below", f"Just below {threshold:g}", below.places),
        ]
    texts = data.documents([place for _, _, places in lists for place in places])
    limits = [] if threshold is None else [("<", threshold)]
    return Scored(
        name,
        documents,
        missing,
        draw(_histogram(scale), limits) if len(scale.start) else None,
        _quantiles(scale),
        [
            (anchor, title, [{**texts[place], "score": place.score} for place in places])
            for anchor, title, places in lists
            if places
        ],
    )


class _Best:
    """The documents with the smallest order, first come first among equals."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.found: list[tuple[float, Place]] = []

    def add(
        self,
        order: NDArray[np.float64],
        scores: NDArray[np.float64],
        shard: int,
        rows: NDArray[np.int64],
    ) -> None:
        first = np.argsort(order, kind="stable")[: self.most]
        for one in first.tolist():
            place = Place(float(scores[one]), shard, int(rows[one]))
            self.found.append((float(order[one]), place))
        self.found = sorted(self.found, key=lambda pair: (pair[0], pair[1][1:]))[: self.most]

    @property
    def places(self) -> list[Place]:
        return [place for _, place in self.found]


def _scale(data: _Shards, name: str, documents: int) -> Scale:
    """The distribution in steps of a ten-thousandth."""

    def parts() -> Iterator[tuple[str, NDArray[np.uint64], NDArray[np.int64]]]:
        for _, _, values in data.values(name):
            known = values[~np.isnan(values)]
            yield name, sort_keys(known), np.ones(len(known), np.int64)

    return coarse_scales(parts, {name: documents}, _ERROR)[name]


def _quantiles(scale: Scale) -> list[tuple[str, float]]:
    """(percentile, score): so many per cent of the documents score at most so."""
    if not len(scale.start):
        return []
    through = scale.scored - scale.ahead
    steps = np.searchsorted(through, np.array(QUANTILES) * scale.scored)
    values = values_of(scale.start[np.minimum(steps, len(scale.start) - 1)])
    return [
        (f"{100 * one:g}%", value) for one, value in zip(QUANTILES, values.tolist(), strict=True)
    ]


def _histogram(scale: Scale) -> dict[str, Any]:
    """The counts of 50 equal bins between the ends of the tails, as a manifest has them."""
    values = values_of(scale.start)
    amounts = -np.diff(np.concatenate([[scale.scored], scale.ahead]))
    finite = np.isfinite(values)
    values, amounts = values[finite], amounts[finite]
    if not len(values):
        return {}
    through = np.cumsum(amounts) / max(int(amounts.sum()), 1)
    last = len(values) - 1
    low = values[min(int(np.searchsorted(through, _TAIL)), last)]
    high = values[min(int(np.searchsorted(through, 1 - _TAIL)), last)]
    if not low < high:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, BINS + 1)
    counts, _ = np.histogram(np.clip(values, low, high), edges, weights=amounts)
    kept = counts.astype(np.int64).tolist()
    return {"edges": edges.tolist(), "kept": kept, "dropped": [0] * BINS}
