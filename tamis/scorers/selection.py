"""The ranks of all documents of a run, from the summaries of its tasks; and what they select."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.filters.dedup.duplicates import open_artefact, write_artefact
from tamis.filters.dedup.summary_columns import TableSummaries
from tamis.pipeline.documents import ROW
from tamis.pipeline.errors import TamisError
from tamis.pipeline.stages import Summaries
from tamis.scorers.ranking import (
    Int64,
    Part,
    Scale,
    UInt64,
    coarse_scales,
    exact_scale,
    places_within,
    ranks_of_rows,
    values_of,
)

if TYPE_CHECKING:
    from tamis.scorers.select import Select

_SCALES, _ROWS, _GROUPS = "scales.arrow", "rows.arrow", "groups.json"
_SHOWN = 5
# The rank of a document that a cap takes away.
_NONE = np.int64(-1)


class Candidates(NamedTuple):
    """Documents to be ranked."""

    row: UInt64
    key: UInt64
    scored: NDArray[np.bool_]
    group: Int64
    """(n,) indices of ``names``."""
    names: list[str]


class Ranks(NamedTuple):
    """Where n documents stand, in the unit of the selection; NaN without a score."""

    ahead: NDArray[np.float64]
    """The amount that is better, in the document's group."""
    total: NDArray[np.float64]
    """The amount of its group, and of that what has a score."""
    scored: NDArray[np.float64]
    place: NDArray[np.float64]
    """Its place in its cluster, from 0, or that as a fraction; NaN if it is in none."""


@dataclass
class Group:
    """A group as a whole."""

    total: int = 0
    documents: int = 0
    scored_documents: int = 0
    threshold: float | None = None
    at_threshold: int = 0
    best: float | None = None
    """The score of the best document that is kept."""


class Rows(NamedTuple):
    """Ranks that do not follow from the scores, by row number."""

    row: UInt64
    ahead: Int64
    place: NDArray[np.float64]


@dataclass
class Selection:
    """The ranks of all documents."""

    groups: dict[str, Group]
    scales: dict[str, Scale]
    rows: Rows | None = None

    def ranks(self, found: Candidates) -> Ranks:
        """Where documents stand."""
        count = len(found.key)
        ranks = Ranks(*(np.full(count, np.nan) for _ in Ranks._fields))
        for index, name in enumerate(found.names):
            of_group = np.flatnonzero((found.group == index) & found.scored)
            scale = self.scales.get(name)
            if scale is None or not len(scale.start):
                continue
            ranks.ahead[of_group] = scale.ahead[scale.steps_of(found.key[of_group])]
            ranks.total[of_group] = self.groups[name].total
            ranks.scored[of_group] = scale.scored
        if self.rows is not None and len(self.rows.row):
            place = np.searchsorted(self.rows.row, found.row)
            place = np.minimum(place, len(self.rows.row) - 1)
            hit = np.flatnonzero(self.rows.row[place] == found.row)
            ahead = self.rows.ahead[place[hit]]
            ranks.ahead[hit] = np.where(ahead == _NONE, np.nan, ahead)
            ranks.place[hit] = self.rows.place[place[hit]]
        return ranks

    def threshold_text(self, name: str) -> str:
        """What the ledger says behind a score."""
        group = self.groups.get(name)
        known = group is not None and group.threshold is not None
        return f" (threshold {group.threshold:.6g})" if group and known else ""

    def write(self, folder: Path) -> None:
        """Write it into a folder, as ``read`` reads it."""
        names = list(self.scales)
        lengths = [len(self.scales[name].start) for name in names]
        empty = [np.zeros(0, np.uint64)]
        columns = {
            "group": pa.array(np.repeat(np.arange(len(names), dtype=np.int32), lengths)),
            "start": pa.array(np.concatenate([*empty, *(self.scales[n].start for n in names)])),
            "ahead": pa.array(
                np.concatenate([np.zeros(0, np.int64), *(self.scales[n].ahead for n in names)])
            ),
        }
        write_artefact(folder / _SCALES, pa.RecordBatch.from_pydict(columns))
        if self.rows is not None:
            rows = {name: pa.array(values) for name, values in self.rows._asdict().items()}
            write_artefact(folder / _ROWS, pa.RecordBatch.from_pydict(rows))
        known = {
            "scales": [[n, self.scales[n].scored, self.scales[n].rank_error] for n in names],
            "groups": {name: vars(group) for name, group in self.groups.items()},
        }
        (folder / _GROUPS).write_text(json.dumps(known), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, stage: str) -> Selection:
        """What ``write`` wrote, memory-mapped.

        Raises:
            TamisError: if the folder does not hold it.
        """
        try:
            known = json.loads((folder / _GROUPS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TamisError(f"{folder} cannot be read ({error}): fit stage {stage} again.") from (
                error
            )
        batch = open_artefact(folder / _SCALES, stage)
        start, ahead = batch.column("start").to_numpy(), batch.column("ahead").to_numpy()
        bounds = np.searchsorted(
            batch.column("group").to_numpy(), np.arange(len(known["scales"]) + 1)
        )
        scales = {
            name: Scale(start[begin:end], ahead[begin:end], scored, rank_error)
            for (name, scored, rank_error), begin, end in zip(
                known["scales"], bounds[:-1], bounds[1:], strict=True
            )
        }
        rows = None
        if (folder / _ROWS).exists():
            table = open_artefact(folder / _ROWS, stage)
            rows = Rows(*(table.column(name).to_numpy() for name in Rows._fields))
        groups = {name: Group(**one) for name, one in known["groups"].items()}
        return cls(groups, scales, rows)


def fit_selection(stage: Select, summaries: Summaries) -> tuple[Selection, dict[str, Any]]:
    """The ranks of all documents, and the facts about what they select.

    Raises:
        TamisError: if no document has a score, or a group has no quota.
    """
    groups = _groups(summaries)
    _check(stage, groups)
    totals = {name: group.total for name, group in groups.items()}
    selection = Selection(groups, {})
    if stage.error is not None:
        selection.scales = coarse_scales(lambda: _parts(summaries), totals, stage.error)
    elif stage.by_row:
        selection = _rank_rows(stage, summaries, groups)
    else:
        selection.scales = _exact_scales(summaries, groups)
    return selection, _facts(stage, summaries, selection)


def _read(summaries: Summaries, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The summaries, a file at a time."""
    if isinstance(summaries, TableSummaries):
        yield from (batch.select(columns) for batch in summaries.batches)
    for path in summaries.paths:
        yield from Summaries([path]).read(columns).to_batches()


def _groups(summaries: Summaries) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for batch in _read(summaries, ["group", "size", "scored"]):
        encoded = batch.column("group").dictionary_encode()
        code = encoded.indices.to_numpy()
        names = encoded.dictionary.to_pylist()
        scored = batch.column("scored").to_numpy(zero_copy_only=False)
        weights = (batch.column("size").to_numpy(), None, scored)
        sums = [np.bincount(code, weight, minlength=len(names)) for weight in weights]
        for name, total, documents, with_score in zip(names, *sums, strict=True):
            group = groups.setdefault(name, Group())
            group.total += int(total)
            group.documents += int(documents)
            group.scored_documents += int(with_score)
    return dict(sorted(groups.items()))


def _check(stage: Select, groups: dict[str, Group]) -> None:
    documents = sum(group.documents for group in groups.values())
    if documents and not any(group.scored_documents for group in groups.values()):
        raise TamisError(
            f"{stage.name}: none of the {documents:,} documents has a score {stage.by}"
        )
    quotas = stage.quotas
    if isinstance(quotas, dict) and "*" not in quotas:
        without = [repr(name) for name in groups if name not in quotas]
        if without:
            more = f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else ""
            raise TamisError(
                f"{stage.name} has no quota for {stage.per} = {', '.join(without[:_SHOWN])}{more}; "
                'add one, or "*" for all others'
            )


def _parts(summaries: Summaries) -> Iterator[Part]:
    """The keys and sizes of documents that have a score, by group."""
    for batch in _read(summaries, ["group", "key", "size", "scored"]):
        key, size = batch.column("key").to_numpy(), batch.column("size").to_numpy()
        scored = batch.column("scored").to_numpy(zero_copy_only=False)
        encoded = batch.column("group").dictionary_encode()
        code = encoded.indices.to_numpy()
        for index, name in enumerate(encoded.dictionary.to_pylist()):
            rows = np.flatnonzero((code == index) & scored)
            yield name, key[rows], size[rows]


def _exact_scales(summaries: Summaries, groups: dict[str, Group]) -> dict[str, Scale]:
    keys: dict[str, list[UInt64]] = {name: [np.zeros(0, np.uint64)] for name in groups}
    sizes: dict[str, list[Int64]] = {name: [np.zeros(0, np.int64)] for name in groups}
    for name, key, size in _parts(summaries):
        keys[name].append(key)
        sizes[name].append(size)
    return {
        name: exact_scale(np.concatenate(keys.pop(name)), np.concatenate(sizes.pop(name)))
        for name in groups
    }


def _rank_rows(stage: Select, summaries: Summaries, groups: dict[str, Group]) -> Selection:
    """Ranks by score, then ``tie_by``, then (``ties: exact``) a hash of the id; among those that
    no cap takes away.
    """
    names = [ROW, "key", "size", "group", "hash"]
    names += ["tie"] if stage.tie_by is not None else []
    names += ["cluster"] if stage.max_per is not None else []
    batches = [one.filter(one.column("scored")) for one in _read(summaries, [*names, "scored"])]
    if not batches:
        return Selection(groups, {})
    table = pa.Table.from_batches(batches)
    row, key, size, hashes = (table.column(n).to_numpy() for n in (ROW, "key", "size", "hash"))
    tie = table.column("tie").to_numpy() if stage.tie_by is not None else np.zeros_like(key)
    order = np.lexsort((row, hashes, ~tie, ~key))
    place = _places(stage, table, order)
    capped = np.zeros(len(row), np.bool_)
    if stage.max_per is not None:
        capped = place >= (stage.max_per.documents or stage.max_per.fraction or 0)
    ahead = np.full(len(row), _NONE)
    encoded = table.column("group").combine_chunks().dictionary_encode()
    code = encoded.indices.to_numpy()
    scales = {}
    for index, name in enumerate(encoded.dictionary.to_pylist()):
        ranked = order[(code[order] == index) & ~capped[order]]
        worse = np.ones(len(ranked), np.bool_)
        if stage.ties == "keep_all":
            same = (key[ranked[1:]] == key[ranked[:-1]]) & (tie[ranked[1:]] == tie[ranked[:-1]])
            worse[1:] = ~same
        ahead[ranked] = ranks_of_rows(np.arange(len(ranked)), worse, size[ranked])
        scales[name] = exact_scale(key[ranked], size[ranked])
    by_row = np.argsort(row)
    rows = Rows(row[by_row], ahead[by_row], place[by_row])
    return Selection(groups, scales, rows)


def _places(stage: Select, table: pa.Table, order: Int64) -> NDArray[np.float64]:
    """The place of each document in its cluster, or that as a fraction of the cluster."""
    if stage.max_per is None:
        return np.full(len(order), np.nan)
    clusters = table.column("cluster").combine_chunks().dictionary_encode().indices
    label = clusters.fill_null(-1).to_numpy().astype(np.int64)
    place = places_within(label, order).astype(np.float64)
    if stage.max_per.fraction is not None:
        sizes = np.bincount(label + 1)
        place /= sizes[label + 1]
    return np.where(label < 0, np.nan, place)


@dataclass
class _Share:
    """What is kept of a source."""

    documents: int = 0
    kept_documents: int = 0
    amount: int = 0
    kept_amount: int = 0


@dataclass
class _Outcome:
    """What a selection keeps, summed up batch by batch."""

    sources: dict[str, _Share] = field(default_factory=dict)
    worst: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By group the lowest key that is kept, and how many documents that have it are."""
    best: dict[str, int] = field(default_factory=dict)

    def count(self, batch: pa.RecordBatch, found: Candidates, keep: NDArray[np.bool_]) -> None:
        encoded = batch.column("source").dictionary_encode()
        code, size = encoded.indices.to_numpy(), batch.column("size").to_numpy()
        names = encoded.dictionary.to_pylist()
        sums = [
            np.bincount(code, weight, minlength=len(names))
            for weight in (None, keep, size, size * keep)
        ]
        for name, *values in zip(names, *sums, strict=True):
            share = self.sources.setdefault(name, _Share())
            share.documents += int(values[0])
            share.kept_documents += int(values[1])
            share.amount += int(values[2])
            share.kept_amount += int(values[3])
        for index, name in enumerate(found.names):
            keys = found.key[(found.group == index) & keep]
            if len(keys):
                self._note(name, keys)

    def _note(self, name: str, keys: UInt64) -> None:
        lowest = int(keys.min())
        same = int(np.count_nonzero(keys == np.uint64(lowest)))
        before = self.worst.get(name, (lowest, 0))
        if lowest < before[0]:
            before = (lowest, 0)
        self.worst[name] = (before[0], before[1] + same * (lowest == before[0]))
        self.best[name] = max(int(keys.max()), self.best.get(name, 0))


def _facts(stage: Select, summaries: Summaries, selection: Selection) -> dict[str, Any]:
    outcome = _Outcome()
    for batch in _read(summaries, [ROW, "key", "scored", "group", "size", "source"]):
        encoded = batch.column("group").dictionary_encode()
        found = Candidates(
            batch.column(ROW).to_numpy(),
            batch.column("key").to_numpy(),
            batch.column("scored").to_numpy(zero_copy_only=False),
            encoded.indices.to_numpy(),
            encoded.dictionary.to_pylist(),
        )
        keep = stage.decide(stage.measures_of(found, selection)).keep
        outcome.count(batch, found, keep)
    for name, (lowest, same) in outcome.worst.items():
        group = selection.groups[name]
        ends = np.array([lowest, outcome.best[name]], np.uint64)
        highest_first = stage.prefer == "highest" or stage.sample == "gumbel"
        group.threshold, group.best = values_of(ends, highest_first).tolist()
        group.at_threshold = same
    return {**_totals(stage, selection, outcome), **_thresholds(stage, selection)}


def _totals(stage: Select, selection: Selection, outcome: _Outcome) -> dict[str, Any]:
    shares = outcome.sources.values()
    documents, kept = (sum(getattr(s, n) for s in shares) for n in ("documents", "kept_documents"))
    amount, kept_amount = (sum(getattr(s, n) for s in shares) for n in ("amount", "kept_amount"))
    facts: dict[str, Any] = {
        "documents": documents,
        "kept_documents": kept,
        "kept_share_of_documents": kept / max(documents, 1),
    }
    if stage.unit != "documents":
        facts |= {
            stage.unit: amount,
            f"kept_{stage.unit}": kept_amount,
            f"kept_share_of_{stage.unit}": kept_amount / max(amount, 1),
        }
    scored = sum(group.scored_documents for group in selection.groups.values())
    facts["without_score"] = documents - scored
    facts["composition"] = {
        "unit": stage.unit,
        "sources": {name: vars(share) for name, share in sorted(outcome.sources.items())},
    }
    return facts


def _thresholds(stage: Select, selection: Selection) -> dict[str, Any]:
    """The worst score that is kept, by group with ``per``; in a sample that is score / temperature
    plus noise.
    """
    name = "threshold_with_noise" if stage.sample == "gumbel" else "threshold"
    groups = selection.groups
    facts: dict[str, Any] = {}
    if stage.per is None:
        only = next(iter(groups.values()), Group())
        facts[name], facts["at_threshold"] = only.threshold, only.at_threshold
        if stage.band is not None:
            facts["band_of_scores"] = [only.threshold, only.best]
    else:
        facts[name] = {one: group.threshold for one, group in groups.items()}
        facts["at_threshold"] = {one: group.at_threshold for one, group in groups.items()}
    if stage.error is not None:
        errors = [scale.rank_error for scale in selection.scales.values()]
        facts["rank_error"] = max(errors, default=0.0)
    quotas = stage.quotas
    if isinstance(quotas, dict):
        facts["unused_quotas"] = [one for one in quotas if one != "*" and one not in groups]
    return facts
