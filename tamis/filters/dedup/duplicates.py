"""What every deduplication does once it knows the clusters: choose the document to keep, and
remember the others.

A method (``exact``, ``minhash``) gives each document keys; documents with an equal key are in one
cluster, and so are clusters that share a document. One document of a cluster is kept by a rule that
looks at nothing but the documents of the cluster, so the outcome depends neither on the number of
workers nor on the order in which tasks finished.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from tamis.filters.dedup.components import Components
from tamis.filters.dedup.types import Int64, UInt32, UInt64
from tamis.pipeline.documents import ID, ROW, TEXT, Documents
from tamis.pipeline.errors import TamisError
from tamis.pipeline.stages import Filter, Fitted, Measures, Quantity, Rule, Summaries, count

_ARTEFACT = "duplicates.arrow"
_BATCH_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The documents in clusters of two or more, sorted by row."""

    row: UInt64
    duplicate: UInt32
    """0 for the document that is kept, 1 for its first duplicate in the order of the keep rule, 2
    for the next...
    """
    cluster_size: UInt32
    keeper: pa.DictionaryArray
    """The id of the document that is kept; the dictionary index is the number of the cluster."""


class Deduplication(Fitted, Filter):
    """The common part of the deduplication stages.

    Measures of a document: ``duplicate``, 0 for the document of a cluster that is kept (or one that
    is alone), else its place among the others; ``cluster``, the number of its cluster, NaN when
    alone; ``cluster_size``; and as ``detail`` of a duplicate the id of the document that is kept in
    its place.
    """

    detail_means: ClassVar[str] = "copy of"

    keep: Literal["first", "longest"] = "first"
    """The document of a cluster to keep: ``first`` in input order, or the ``longest`` text in bytes
    (of several longest ones that with the smallest content hash, then the first). The duplicates
    follow in the same order.
    """
    max_duplicates: int | None = Field(default=0, ge=0)
    """Duplicates to keep beside the first document of a cluster; None drops nothing and only
    measures.
    """

    _duplicates: Duplicates | None = PrivateAttr(default=None)

    @abstractmethod
    def keys(self, documents: Documents, rows: Int64) -> dict[str, pa.Array]:
        """The key columns of the summary for these rows of the batch."""

    @abstractmethod
    def join(self, summaries: Summaries, components: Components) -> None:
        """Put documents with equal keys into one cluster, reading few columns at a time."""

    def provides(self) -> tuple[Quantity, ...]:
        return (
            count(
                "duplicate",
                "0 if this document is kept for its cluster, else its place among the duplicates",
            ),
            Quantity(
                "cluster",
                "label",
                "number of the cluster of duplicates it is in; missing if it is alone",
            ),
            Quantity("cluster_size", "count", "documents in its cluster, itself included", low=1.0),
        )

    def rules(self) -> tuple[Rule, ...]:
        return (Rule("max_duplicates", ">", "duplicate"),)

    def summarize(self, documents: Documents) -> pa.RecordBatch:
        """One row a document that is alive: its row, id, keys and what the keep rule looks at."""
        rows = np.flatnonzero(documents.alive)
        columns: dict[str, pa.Array] = {
            ROW: pa.array(_input_rows(documents, self.name)[rows]),
            ID: documents.batch.column(ID).take(pa.array(rows)),
        }
        if self.keep == "longest":
            data, offsets = documents.utf8()
            view = data.data
            bounds = zip(offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True)
            digests = [xxhash.xxh3_64_intdigest(view[start:end]) for start, end in bounds]
            columns["bytes"] = pa.array(offsets[rows + 1] - offsets[rows])
            columns["content"] = pa.array(digests, pa.uint64())
        return pa.RecordBatch.from_pydict({**columns, **self.keys(documents, rows)})

    def fit(self, summaries: Summaries, folder: Path) -> dict[str, Any]:
        """Find the clusters and write their documents, sorted by row, to ``duplicates.arrow``.

        Columns: ROW; ``keeper``, the ROW of the document that is kept; ``duplicate`` and
        ``cluster_size`` as measured; ``duplicate_of``, the id of the keeper. Returns the numbers of
        documents, clusters and duplicates, and the size of the largest cluster.
        """
        batch, facts = self._find_clusters(summaries if summaries.paths else _TableSummaries([]))
        with (
            pa.OSFile(str(folder / _ARTEFACT), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        return facts

    def load(self, folder: Path) -> Self:
        """This stage with the clusters that ``fit`` wrote, memory-mapped.

        Raises:
            TamisError: if the folder does not hold them.
        """
        path = folder / _ARTEFACT
        try:
            with pa.memory_map(str(path)) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
        except (OSError, pa.ArrowInvalid) as error:
            raise TamisError(
                f"{path} cannot be read ({error}): fit stage {self.name} again."
            ) from error
        return self._with(batch)

    def fit_table(self, table: pa.Table) -> Self:
        """This stage fitted on a table in memory with a column ``text``, and ``id`` if the detail
        is to name documents.

        Raises:
            TamisError: if there is no text column of strings.
        """
        summaries = [self.summarize(documents) for documents in documents_of(table)]
        return self._with(self._find_clusters(_TableSummaries(summaries))[0])

    def measure(self, documents: Documents) -> Measures:
        """``duplicate``, ``cluster``, ``cluster_size`` and ``detail`` (id of the kept document,
        None for the others).

        Raises:
            TamisError: if the stage was not fitted.
        """
        found = self._duplicates
        if found is None:
            raise TamisError(
                f"Stage {self.name} has to see all documents first: use fit and load, or fit_table."
            )
        rows = _input_rows(documents, self.name)
        duplicate = np.zeros(len(documents), np.int64)
        cluster = np.full(len(documents), np.nan)
        cluster_size = np.ones(len(documents), np.int64)
        detail = np.full(len(documents), None, object)
        if len(found.row):
            place = np.minimum(np.searchsorted(found.row, rows), len(found.row) - 1)
            hit = np.flatnonzero(found.row[place] == rows)
            place = place[hit]
            duplicate[hit] = found.duplicate[place]
            cluster[hit] = found.keeper.indices.to_numpy()[place]
            cluster_size[hit] = found.cluster_size[place]
            copies = hit[duplicate[hit] > 0]
            detail[copies] = found.keeper.take(pa.array(place[duplicate[hit] > 0])).to_pylist()
        return {
            "duplicate": duplicate,
            "cluster": cluster,
            "cluster_size": cluster_size,
            "detail": detail,
        }

    def _find_clusters(self, summaries: Summaries) -> tuple[pa.RecordBatch, dict[str, Any]]:
        row = read_column(summaries, ROW, np.uint64)
        components = Components(len(row))
        self.join(summaries, components)
        root = components.roots()
        members = np.flatnonzero(np.bincount(root, minlength=len(row))[root] > 1)
        order: list[Any] = [row[members]]
        if self.keep == "longest":
            order.append(read_column(summaries, "content", np.uint64)[members])
            order.append(-read_column(summaries, "bytes", np.int64)[members])
        members = members[np.lexsort((*order, root[members]))]
        ids = (
            summaries.read(columns=[ID]).column(ID)
            if len(members)
            else pa.chunked_array([], pa.string())
        )
        batch = _cluster_batch(row[members], root[members], members, ids)
        clusters = len(batch.column("duplicate_of").dictionary)
        sizes = batch.column("cluster_size").to_numpy()
        return batch, {
            "documents": len(row),
            "clusters": clusters,
            "duplicates": len(members) - clusters,
            "largest_cluster": int(sizes.max(initial=1)) if len(row) else 0,
        }

    def _with(self, batch: pa.RecordBatch) -> Self:
        fitted = self.model_copy()
        fitted._duplicates = Duplicates(
            batch.column(ROW).to_numpy(),
            batch.column("duplicate").to_numpy(),
            batch.column("cluster_size").to_numpy(),
            batch.column("duplicate_of"),
        )
        return fitted


def _cluster_batch(
    row: UInt64, root: Int64, members: Int64, ids: pa.ChunkedArray
) -> pa.RecordBatch:
    """The artefact, from members sorted by cluster and, within a cluster, by the keep rule."""
    first = np.flatnonzero(np.diff(root, prepend=-1))
    size = np.diff(first, append=len(row))
    by_row = np.argsort(row[first])
    number = np.empty(len(first), np.int64)
    number[by_row] = np.arange(len(first))
    cluster = np.repeat(number, size)
    keeper_ids = take_strings(ids, members[first[by_row]])
    columns: dict[str, NDArray[Any]] = {
        ROW: row,
        "keeper": np.repeat(row[first], size),
        "duplicate": (np.arange(len(row)) - np.repeat(first, size)).astype(np.uint32),
        "cluster_size": np.repeat(size, size).astype(np.uint32),
    }
    order = np.argsort(row)
    arrays: Mapping[str, pa.Array] = {
        **{name: pa.array(values[order]) for name, values in columns.items()},
        "duplicate_of": pa.DictionaryArray.from_arrays(pa.array(cluster[order]), keeper_ids),
    }
    return pa.RecordBatch.from_pydict(dict(arrays))


def read_column(summaries: Summaries, name: str, kind: type[Any]) -> Any:
    """One column of all summaries as a numpy array of type ``kind``; empty if there are none."""
    return summaries.read(columns=[name]).column(name).to_numpy().astype(kind, copy=False)


def take_strings(column: pa.ChunkedArray, indices: Int64) -> pa.Array:
    """The strings at ``indices``; chunks are taken from one by one, so no other is touched."""
    order = np.argsort(indices, kind="stable")
    ends = np.cumsum([len(chunk) for chunk in column.chunks], dtype=np.int64)
    cuts = np.searchsorted(indices[order], ends)
    pieces = [pa.array([], pa.large_string())]
    low = begin = 0
    for chunk, end, high in zip(column.chunks, ends.tolist(), cuts.tolist(), strict=True):
        wanted = pa.array(indices[order[low:high]] - begin)
        pieces.append(chunk.take(wanted).cast(pa.large_string()))
        low, begin = high, end
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(pieces).take(pa.array(back))


def _input_rows(documents: Documents, stage: str) -> UInt64:
    if ROW not in documents.batch.schema.names:
        raise TamisError(
            f"Stage {stage} needs the column {ROW} that says where in the input a document is."
        )
    rows: UInt64 = documents.batch.column(ROW).to_numpy(zero_copy_only=False)
    return rows


class _TableSummaries(Summaries):
    """Summaries that are in memory."""

    def __init__(self, batches: list[pa.RecordBatch]) -> None:
        super().__init__(())
        self._batches = batches

    def read(self, columns: list[str] | None = None) -> pa.Table:
        if not self._batches:
            return pa.table(
                {
                    name: pa.array([], pa.string() if name == ID else pa.uint64())
                    for name in columns or ()
                }
            )
        table = pa.Table.from_batches(self._batches)
        return table if columns is None else table.select(columns)


def documents_of(table: pa.Table) -> Iterator[Documents]:
    """The table in batches of documents, numbered; without an id the number is the id.

    Raises:
        TamisError: if there is no text column of strings.
    """
    if TEXT not in table.column_names:
        raise TamisError(
            f"The table has no column {TEXT!r}; its columns are {', '.join(table.column_names)}."
        )
    kind = table.schema.field(TEXT).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TamisError(f"The column {TEXT!r} holds {kind}, not strings.")
    rows = pa.array(np.arange(table.num_rows, dtype=np.uint64))
    columns = {
        ID: (table.column(ID) if ID in table.column_names else rows).cast(pa.string()),
        TEXT: table.column(TEXT).cast(pa.large_string()),
        ROW: rows,
    }
    for batch in pa.table(columns).to_batches(max_chunksize=_BATCH_ROWS):
        yield Documents(batch)


def deduplicate(table: pa.Table, method: Deduplication) -> pa.Table:
    """The rows of a table in memory that ``method`` keeps, e.g. ``deduplicate(table, MinHash())``.

    Raises:
        TamisError: if there is no text column of strings.
    """
    fitted = method.fit_table(table)
    keep = [fitted.decide(fitted.measure(documents)).keep for documents in documents_of(table)]
    return table.filter(pa.array(np.concatenate(keep))) if keep else table
