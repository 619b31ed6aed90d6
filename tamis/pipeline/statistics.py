"""What a run counts: documents by fate, decisions by rule, a histogram per measure, and samples.

Every task keeps its own and writes it into its completion record; merging is associative and
order-free, so the totals of a run are the sum over records, whatever was rerun. Samples are the
documents with the smallest hash of their row number: the same ones for any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.pipeline.documents import ID, ROW, SOURCE, TEXT, Documents
from tamis.pipeline.stages import Quantity, Verdicts

SAMPLES_PER_RULE = 3
SAMPLE_CHARACTERS = 600
MOST_ERRORS = 20
"""Failures that a record tells in full; all of them are in the files of errors and the ledger."""
MOST_PASSAGES = 20
"""Passages that are marked in a sample."""
PASSAGE_CONTEXT = 60
"""Characters in front of the passage that a sample shows."""
Passages = Callable[[int], Sequence[tuple[int, int]]]
"""The passages that a stage found in a row of the batch: (begin, end) in bytes of its text."""
LINEAR_BINS = 50
BINS_PER_DECADE = 8
DECADES = 8


def sampling_hash(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 of the row numbers: which documents are shown as samples."""
    x = rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@cache
def bin_edges(quantity: Quantity) -> NDArray[np.float64]:
    """Linear bins for bounded quantities; for others a bin from 0 and then eight bins a decade.

    The last bin takes the rest. Without a lower bound there are the same bins on both sides of 0,
    or, if there is an upper one, downwards from there.
    """
    unbounded = quantity.low == -np.inf
    if np.isfinite(quantity.high) and not unbounded:
        return np.linspace(quantity.low, quantity.high, LINEAR_BINS + 1)
    decades = 10.0 ** (np.arange(BINS_PER_DECADE * DECADES + 1) / BINS_PER_DECADE)
    upwards = np.concatenate([[0.0], _unit_bin(quantity) * decades])
    if not unbounded:
        return upwards
    if np.isfinite(quantity.high):
        return quantity.high - upwards[::-1]
    return np.concatenate([-upwards[:0:-1], upwards])


def _unit_bin(quantity: Quantity) -> float:
    """Where the decades begin: ratios without a bound are mostly below 1, counts never, and
    logarithms (what has no lower bound) are of that size.
    """
    if quantity.unit == "fraction":
        return 1e-3
    return 0.1 if quantity.low == -np.inf else 1.0


@dataclass
class Histogram:
    """Counts per bin of the documents that entered a stage, kept and dropped by it.

    ``missing`` counts those without a value (NaN).
    """

    kept: NDArray[np.int64]
    dropped: NDArray[np.int64]
    missing: int = 0

    @classmethod
    def empty(cls, quantity: Quantity) -> Histogram:
        bins = len(bin_edges(quantity)) - 1
        return cls(np.zeros(bins, np.int64), np.zeros(bins, np.int64))

    def add(
        self,
        quantity: Quantity,
        values: NDArray[Any],
        entered: NDArray[np.bool_],
        kept: NDArray[np.bool_],
    ) -> None:
        """Count the values of the documents that entered."""
        from tamis.pipeline.kernels import count_values

        numbers = np.ascontiguousarray(values, np.float64)
        edges = bin_edges(quantity)
        self.missing += count_values(numbers, entered, kept, edges, self.kept, self.dropped)

    def merge(self, other: Histogram) -> None:
        self.kept += other.kept
        self.dropped += other.dropped
        self.missing += other.missing

    def to_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept.tolist(),
            "dropped": self.dropped.tolist(),
            "missing": self.missing,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Histogram:
        return cls(np.array(value["kept"]), np.array(value["dropped"]), value["missing"])


@dataclass
class Samples:
    """The ``limit`` entries with the smallest hash."""

    limit: int = SAMPLES_PER_RULE
    entries: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def wanted(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Which of the candidates could get in."""
        best = np.argsort(hashes, kind="stable")[: self.limit]
        if len(self.entries) == self.limit:
            best = best[hashes[best] < np.uint64(self.entries[-1][0])]
        return best

    def add(self, entries: Sequence[tuple[int, dict[str, Any]]]) -> None:
        self.entries = sorted([*self.entries, *entries], key=lambda entry: entry[0])[: self.limit]


def sample_entries(
    documents: Documents,
    rows: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    passages: Passages | None = None,
    **columns: Sequence[Any],
) -> list[tuple[int, dict[str, Any]]]:
    """Samples of some rows of a batch: id, row, source, part of the text, and what ``columns``
    adds. With ``passages`` it is the part with the first of them, and they are marked.
    """
    entries = []
    for place, row in enumerate(rows.tolist()):
        text = documents.text[row].as_py() or ""
        entry = {
            "id": documents.batch.column(ID)[row].as_py(),
            "row": documents.batch.column(ROW)[row].as_py(),
            "source": source_of(documents.batch, row),
            "text": text[:SAMPLE_CHARACTERS],
        }
        if passages is not None:
            entry |= marked(text, passages(row))
        entry |= {name: values[place] for name, values in columns.items()}
        entries.append((int(hashes[place]), entry))
    return entries


def marked(text: str, passages: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The part of a text around the first passage, ``skipped`` characters from its beginning, and
    ``marks``: where in this part the passages are, in characters. Passages are given in bytes.
    """
    shown = passages[:MOST_PASSAGES]
    character = _characters(text.encode(), {byte for span in shown for byte in span})
    spans = [(character[begin], character[end]) for begin, end in shown]
    skipped = max(0, spans[0][0] - PASSAGE_CONTEXT) if spans else 0
    if skipped < PASSAGE_CONTEXT:
        skipped = 0
    elif (space := text.find(" ", skipped, spans[0][0])) >= 0:
        skipped = space + 1
    part = text[skipped : skipped + SAMPLE_CHARACTERS]
    inside = sorted(
        (max(0, begin - skipped), min(len(part), end - skipped)) for begin, end in spans
    )
    return {"text": part, "skipped": skipped, "marks": [one for one in inside if one[0] < one[1]]}


def _characters(data: bytes, places: set[int]) -> dict[int, int]:
    """How many characters stand before each of these bytes."""
    found: dict[int, int] = {}
    last = count = 0
    for place in sorted(places):
        count += len(data[last:place].decode("utf-8", "ignore"))
        found[place], last = count, place
    return found


def finite(value: float) -> float | None:
    """The number, or None where JSON has none for it (NaN and the infinities)."""
    return value if math.isfinite(value) else None


def source_of(batch: pa.RecordBatch, row: int) -> str | None:
    """The source of one document; None without the column."""
    index = batch.schema.get_field_index(SOURCE)
    value: str | None = batch.column(index)[row].as_py() if index >= 0 else None
    return value


def counts_of(statistics: Any) -> dict[str, float]:
    """The fields of some statistics that are numbers, which add up, by name."""
    return {
        name: value for name, value in vars(statistics).items() if isinstance(value, int | float)
    }


def add_counts(statistics: Any, other: Any) -> None:
    """Add the numbers of ``other`` to those of statistics of the same kind."""
    for name, number in counts_of(other).items():
        setattr(statistics, name, getattr(statistics, name) + number)


@dataclass
class StageStatistics:
    """One stage: what entered, what happened to it, and how its measures were distributed."""

    entered: int = 0
    dropped: int = 0
    changed: int = 0
    failed: int = 0
    created: int = 0
    bytes_entered: int = 0
    cpu_seconds: float = 0.0
    rules: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    rule_samples: dict[str, Samples] = field(default_factory=dict)
    change_samples: Samples = field(default_factory=Samples)

    def count_verdicts(
        self,
        documents: Documents,
        entering: NDArray[np.bool_],
        verdicts: Verdicts,
        detail: pa.Array | None,
        passages: Passages | None = None,
    ) -> None:
        """Count the documents that were dropped, by rule, and take samples of them."""
        dropped = np.flatnonzero(entering & ~verdicts.keep)
        self.dropped += len(dropped)
        if not len(dropped):
            return
        hashes = sampling_hash(documents.batch.column(ROW).to_numpy()[dropped])
        failed = verdicts.rule[dropped]
        for index in np.unique(failed).tolist():
            rule, mine = verdicts.rules[index].field, failed == index
            self.rules[rule] = self.rules.get(rule, 0) + int(mine.sum())
            samples = self.rule_samples.setdefault(rule, Samples())
            best = samples.wanted(hashes[mine])
            rows = dropped[mine][best]
            details = [None if detail is None else detail[row].as_py() for row in rows.tolist()]
            samples.add(
                sample_entries(
                    documents,
                    rows,
                    hashes[mine][best],
                    passages,
                    value=[finite(value) for value in verdicts.value[rows].tolist()],
                    detail=details,
                )
            )

    def count_measures(
        self,
        quantities: Sequence[Quantity],
        measures: Mapping[str, Any],
        entering: NDArray[np.bool_],
        kept: NDArray[np.bool_],
    ) -> None:
        """Distributions over the documents that entered the stage."""
        for quantity in quantities:
            if quantity.unit == "label":
                continue
            if quantity.name not in self.histograms:
                self.histograms[quantity.name] = Histogram.empty(quantity)
            values = measures[quantity.name]
            self.histograms[quantity.name].add(quantity, values, entering, kept)

    def merge(self, other: StageStatistics) -> None:
        add_counts(self, other)
        for rule, number in other.rules.items():
            self.rules[rule] = self.rules.get(rule, 0) + number
        for name, histogram in other.histograms.items():
            if name in self.histograms:
                self.histograms[name].merge(histogram)
            else:
                self.histograms[name] = Histogram(
                    histogram.kept.copy(), histogram.dropped.copy(), histogram.missing
                )
        for rule, samples in other.rule_samples.items():
            self.rule_samples.setdefault(rule, Samples()).add(samples.entries)
        self.change_samples.add(other.change_samples.entries)

    def to_json(self) -> dict[str, Any]:
        return counts_of(self) | {
            "rules": self.rules,
            "histograms": {
                name: histogram.to_json() for name, histogram in self.histograms.items()
            },
            "rule_samples": {rule: samples.entries for rule, samples in self.rule_samples.items()},
            "change_samples": self.change_samples.entries,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StageStatistics:
        value = dict(value)
        histograms = {
            name: Histogram.from_json(one) for name, one in value.pop("histograms").items()
        }
        samples = {rule: _samples(entries) for rule, entries in value.pop("rule_samples").items()}
        changes = _samples(value.pop("change_samples"))
        return cls(**value, histograms=histograms, rule_samples=samples, change_samples=changes)


def _samples(entries: Sequence[Sequence[Any]]) -> Samples:
    return Samples(entries=[(entry[0], entry[1]) for entry in entries])


@dataclass
class SourceStatistics:
    """One source (the group that mixers weigh): documents and bytes of text in and out."""

    documents: int = 0
    created: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_kept: int = 0


@dataclass
class Statistics:
    """A task or, merged, a run: ``documents`` + ``created`` = kept + dropped + failed.

    ``created`` are the documents that Expand stages added.
    """

    documents: int = 0
    kept: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_kept: int = 0
    passed_over: int = 0
    """Records of archives that hold no document."""
    seconds: dict[str, float] = field(default_factory=dict)
    stages: dict[str, StageStatistics] = field(default_factory=dict)
    sources: dict[str, SourceStatistics] = field(default_factory=dict)
    kept_samples: Samples = field(default_factory=lambda: Samples(limit=6))
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        return sum(stage.dropped for stage in self.stages.values())

    @property
    def created(self) -> int:
        return sum(stage.created for stage in self.stages.values())

    def stage(self, name: str) -> StageStatistics:
        return self.stages.setdefault(name, StageStatistics())

    def source(self, name: str | None) -> SourceStatistics:
        return self.sources.setdefault(name or "", SourceStatistics())

    def count_source(self, counted: str, batch: pa.RecordBatch, rows: Any = None) -> None:
        """Add the rows of each source (all rows when None) to ``counted``: dropped, failed..."""
        for name, number in rows_by_source(batch, rows):
            source = self.source(name)
            setattr(source, counted, getattr(source, counted) + number)

    def spend(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds

    def merge(self, other: Statistics) -> None:
        add_counts(self, other)
        for what, seconds in other.seconds.items():
            self.spend(what, seconds)
        for name, stage in other.stages.items():
            self.stage(name).merge(stage)
        for name, source in other.sources.items():
            add_counts(self.source(name), source)
        self.kept_samples.add(other.kept_samples.entries)
        self.errors = (self.errors + other.errors)[:MOST_ERRORS]

    def to_json(self) -> dict[str, Any]:
        return counts_of(self) | {
            "seconds": self.seconds,
            "errors": self.errors,
            "stages": {name: stage.to_json() for name, stage in self.stages.items()},
            "sources": {name: counts_of(source) for name, source in self.sources.items()},
            "kept_samples": self.kept_samples.entries,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Statistics:
        value = dict(value)
        stages = {name: StageStatistics.from_json(one) for name, one in value.pop("stages").items()}
        sources = {name: SourceStatistics(**one) for name, one in value.pop("sources").items()}
        samples = Samples(6, _samples(value.pop("kept_samples")).entries)
        return cls(**value, stages=stages, sources=sources, kept_samples=samples)


def rows_by_source(batch: pa.RecordBatch, rows: Any = None) -> Iterator[tuple[str | None, int]]:
    """How many rows (of all, or of the given ones) each source has."""
    index = batch.schema.get_field_index(SOURCE)
    if index < 0:
        yield None, batch.num_rows if rows is None else len(rows)
        return
    column = batch.column(index)
    counts = (column if rows is None else column.take(pa.array(rows))).value_counts()
    yield from zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)


def bytes_by_source(batch: pa.RecordBatch) -> Iterator[tuple[str | None, int, int]]:
    """For each source its documents and the bytes of their text."""
    size = pc.binary_length(batch.column(TEXT)).fill_null(0)
    index = batch.schema.get_field_index(SOURCE)
    if index < 0:
        yield None, batch.num_rows, int(pc.sum(size).as_py() or 0)
        return
    names = batch.column(index).dictionary_encode("encode")
    codes = names.indices.to_numpy()
    documents = np.bincount(codes, minlength=len(names.dictionary))
    sizes = np.zeros(len(names.dictionary), np.int64)
    np.add.at(sizes, codes, size.to_numpy())
    yield from zip(names.dictionary.to_pylist(), documents.tolist(), sizes.tolist(), strict=True)
