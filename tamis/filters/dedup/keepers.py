"""The document of a cluster to keep.

A rule puts the documents of a cluster in an order by what is in them and in their columns, so that
neither the order of tasks nor the number of workers matters. Equal documents by a rule are ordered
by the XXH3-64 hash of their text, and only copies of one text by their place in the input.

    first      in input order
    longest    the longest text, in bytes
    best       the highest value of a column, missing ones last
    oldest     the earliest value of a date column, missing and unreadable ones last
    hash       the smallest hash of the text
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from tamis.filters.dedup.summary_columns import take_numbers
from tamis.filters.dedup.types import Int64
from tamis.pipeline.documents import ROW, Documents
from tamis.pipeline.errors import TamisError
from tamis.pipeline.stages import Summaries

Keep = Literal["first", "longest", "best", "oldest", "hash"]

DATE = "date"
_NEVER = np.iinfo(np.int64).max
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR, _MONTH = len("2026"), len("2026-01")


def keeper_columns(
    keep: Keep, column: str | None, documents: Documents, rows: Int64
) -> dict[str, pa.Array]:
    """The columns of a summary that the rule looks at, for these rows of a batch.

    Raises:
        TamisError: if the column is missing, or holds something else than numbers or dates.
    """
    if keep == "first":
        return {}
    data, offsets = documents.utf8()
    view = data.data
    bounds = zip(offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True)
    digests = [xxhash.xxh3_64_intdigest(view[start:end]) for start, end in bounds]
    content = pa.array(digests, pa.uint64())
    if keep == "longest":
        return {"bytes": pa.array(offsets[rows + 1] - offsets[rows]), "content": content}
    if keep == "hash":
        return {"content": content}
    values = _column(documents, column, keep).take(pa.array(rows))
    if keep == "best":
        return {"score": pa.array(_scores(values, column)), "content": content}
    return {"time": pa.array(_times(values, column)), "content": content}


def keep_order(keep: Keep, summaries: Summaries, members: Int64) -> list[NDArray[Any]]:
    """What the rule sorts these documents by, for ``np.lexsort``: the last key first."""
    keys = [take_numbers(summaries, ROW, members, np.uint64)]
    if keep != "first":
        keys.append(take_numbers(summaries, "content", members, np.uint64))
    if keep == "longest":
        keys.append(-take_numbers(summaries, "bytes", members, np.int64))
    if keep == "best":
        keys.append(-take_numbers(summaries, "score", members, np.float64))
    if keep == "oldest":
        keys.append(take_numbers(summaries, "time", members, np.int64))
    return keys


def _column(documents: Documents, column: str | None, keep: Keep) -> pa.Array:
    if column not in documents.batch.schema.names:
        raise TamisError(f"keep: {keep} needs the column {column}, which the documents lack.")
    values = documents.batch.column(column)
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _scores(values: pa.Array, column: str | None) -> NDArray[np.float64]:
    """Numbers as they are; minus infinity for null and NaN."""
    kind = values.type
    if not (
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise TamisError(f"keep: best needs a column of numbers, and {column} holds {kind}.")
    scores = values.cast(pa.float64()).fill_null(-np.inf).to_numpy(zero_copy_only=False)
    return np.where(np.isnan(scores), -np.inf, scores)


def _times(values: pa.Array, column: str | None) -> NDArray[np.int64]:
    """Microseconds since 1970 of dates and ISO 8601 strings; other numbers as they are."""
    kind = values.type
    if pa.types.is_null(kind):
        return np.full(len(values), _NEVER)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array([_time(value) for value in values.to_pylist()], np.int64)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        values = values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    elif pa.types.is_floating(kind):
        values = pc.round(pc.multiply(values, 1e6))
        values = pc.if_else(pc.is_finite(values), values, None).cast(pa.int64(), safe=False)
    elif not pa.types.is_integer(kind):
        raise TamisError(f"keep: oldest needs a column of dates, and {column} holds {kind}.")
    times: NDArray[np.int64] = values.cast(pa.int64()).fill_null(_NEVER).to_numpy()
    return times


def _time(value: str | None) -> int:
    """A date or a date and time in ISO 8601, in UTC if it has no zone; also a year or a month."""
    if value is None:
        return int(_NEVER)
    value = value.strip()
    complete = value + {_YEAR: "-01-01", _MONTH: "-01"}.get(len(value), "")
    try:
        moment = datetime.fromisoformat(complete)
    except ValueError:
        return int(_NEVER)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    past = moment - _EPOCH
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
