"""Stages in other people's pipelines: one call on a table, a record batch, or a batch of rows as
a dict.

    GopherQuality()(table)                                      # pyarrow.Table
    dataset.map(GopherQuality(), batched=True)                  # datasets: a dict of lists
    data.map_batches(GopherQuality(), batch_format="pyarrow")   # ray.data, or a dict of arrays

What comes back has the same columns and types, only the rows that the stage keeps, and the text
that it gave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tamis.pipeline.apply import apply_stages
from tamis.pipeline.documents import ID, ROW, TEXT
from tamis.pipeline.errors import TamisError
from tamis.pipeline.stages import Expand, Fitted, Stage

ROWS_AT_A_TIME = 8192


def apply_to(stage: Stage, data: Any) -> Any:
    """The rows of ``data`` that the stage keeps, with their (maybe edited) text, as the type that
    came in.

    ``data`` is a pyarrow Table or RecordBatch, or a dict of columns (lists or numpy arrays), with a
    column ``text``. Raises TamisError for a missing or unsuitable column, and for stages that need
    all documents or change their number.
    """
    if isinstance(stage, Fitted | Expand):
        raise TamisError(
            f"{stage.kind} cannot work on one batch alone: it "
            + ("looks at all documents first" if isinstance(stage, Fitted) else "makes other rows")
            + "; put it into a Pipeline"
        )
    if isinstance(data, pa.RecordBatch):
        return _apply_to_batch(stage, data)
    if isinstance(data, pa.Table):
        parts = [_apply_to_batch(stage, part) for part in data.to_batches(ROWS_AT_A_TIME)]
        return pa.Table.from_batches(parts, data.schema)
    if isinstance(data, Mapping):
        return _apply_to_columns(stage, data)
    raise TamisError(
        f"{stage.kind} takes a pyarrow Table or RecordBatch or a dict of columns, "
        f"not {type(data).__name__}"
    )


def _apply_to_batch(stage: Stage, batch: pa.RecordBatch) -> pa.RecordBatch:
    missing = [name for name in (TEXT, *stage.requires()) if name not in batch.schema.names]
    if missing:
        raise TamisError(
            f"{stage.kind} needs the column {missing[0]}; there is {', '.join(batch.schema.names)}"
        )
    kept, text = _kept_rows(stage, batch)
    where = batch.schema.get_field_index(TEXT)
    chosen = batch.take(kept)
    return chosen.set_column(
        where, batch.schema.field(where), text.cast(batch.schema.field(where).type)
    )


def _apply_to_columns(stage: Stage, columns: Mapping[str, Any]) -> dict[str, Any]:
    if TEXT not in columns:
        raise TamisError(f"{stage.kind} needs the column {TEXT}; there is {', '.join(columns)}")
    needed = {name: pa.array(columns[name]) for name in (TEXT, *stage.requires())}
    kept, text = _kept_rows(stage, pa.RecordBatch.from_pydict(needed))
    rows = kept.to_pylist()
    chosen = {
        name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
        for name, values in columns.items()
    }
    edited = text.to_pylist()
    chosen[TEXT] = np.array(edited, object) if isinstance(columns[TEXT], np.ndarray) else edited
    return chosen


def _kept_rows(stage: Stage, batch: pa.RecordBatch) -> tuple[pa.UInt64Array, pa.LargeStringArray]:
    """Which rows the stage keeps, and their text."""
    text = batch.column(TEXT)
    if not (pa.types.is_string(text.type) or pa.types.is_large_string(text.type)):
        raise TamisError(f"{stage.kind} needs a column of strings called {TEXT}, not {text.type}")
    rows = pa.array(np.arange(batch.num_rows, dtype=np.uint64))
    names = [name for name in batch.schema.names if name not in (ID, TEXT, ROW)]
    documents = pa.RecordBatch.from_arrays(
        [
            rows.cast(pa.string()),
            text.cast(pa.large_string()),
            rows,
            *(batch.column(name) for name in names),
        ],
        [ID, TEXT, ROW, *names],
    )
    result = apply_stages(documents, [stage]).batch
    return result.column(ROW), result.column(TEXT)
