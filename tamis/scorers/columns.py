"""Columns that scorers made, as stages that put them together read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError, nearest


def score_column(name: str, available: Sequence[str]) -> str | None:
    """The column that a name means, the ``score`` of the stage of that name first."""
    return next((one for one in (f"{name}.score", name) if one in available), None)


def missing_scores(names: Iterable[str], available: Sequence[str]) -> list[str]:
    """The names that mean no column."""
    return [name for name in names if score_column(name, available) is None]


def score_columns(table: pa.Table, names: Iterable[str], stage: str) -> tuple[str, ...]:
    """The columns of a table that the names mean.

    Raises:
        TamisError: if one means none.
    """
    found = [(name, score_column(name, table.column_names)) for name in names]
    for name, column in found:
        if column is None:
            raise TamisError(f"{stage} needs the column {name}{nearest(name, table.column_names)}")
    return tuple(column for _, column in found if column is not None)


def column_of(documents: Documents, name: str, stage: str) -> pa.Array:
    """The column that a name means.

    Raises:
        TamisError: if there is none.
    """
    available = documents.batch.schema.names
    found = score_column(name, available)
    if found is None:
        raise TamisError(f"{stage} needs the column {name}{nearest(name, available)}")
    return documents.batch.column(found)


def numbers_of(documents: Documents, name: str, stage: str) -> NDArray[np.float64]:
    """The column that a name means as float64, NaN where it is null.

    Raises:
        TamisError: if there is none, or it does not hold numbers.
    """
    values = column_of(documents, name, stage)
    kind = values.type
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    if not any(fits(kind) for fits in numeric):
        raise TamisError(f"{stage} needs numbers in the column {name}, which holds {kind}")
    if pa.types.is_boolean(kind):
        values = values.cast(pa.uint8())
    numbers = values.cast(pa.float64(), safe=False).fill_null(float("nan"))
    found: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
    return found
