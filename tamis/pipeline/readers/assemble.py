"""From the columns of a file to a batch of exactly the declared schema."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash

from tamis.pipeline.documents import ID, SOURCE, TEXT, utf8_view
from tamis.pipeline.readers.inputs import Input


def assemble(
    columns: dict[str, pa.Array], rows: int, entry: Input, schema: pa.Schema, name: str
) -> pa.RecordBatch:
    """A batch of ``schema`` from its columns by name; absent ones are null, missing ids are made.

    ``name`` is the file's, for the ids: see ``documents.content_id``.
    """
    arrays = []
    for field in schema:
        if field.name == SOURCE and entry.source is not None:
            arrays.append(pa.repeat(pa.scalar(entry.source, field.type), rows))
        elif field.name in columns:
            arrays.append(columns[field.name])
        else:
            arrays.append(pa.nulls(rows, field.type))
    position = schema.get_field_index(ID)
    if arrays[position].null_count:
        arrays[position] = fill_ids(arrays[position], arrays[schema.get_field_index(TEXT)], name)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def fill_ids(ids: pa.StringArray, text: pa.LargeStringArray, name: str) -> pa.StringArray:
    """The ids with ``documents.content_id(name, text)`` where they are null."""
    data, offsets = utf8_view(text)
    raw = memoryview(data.data)
    path = xxhash.xxh3_128(name.encode() + b"\0")
    missing = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
    made = []
    for start, stop in zip(offsets[missing].tolist(), offsets[missing + 1].tolist(), strict=True):
        digest = path.copy()
        digest.update(raw[start:stop])
        made.append(digest.hexdigest())
    filled = pa.array(made, ids.type)
    if len(made) == len(ids):
        return filled
    source = np.arange(len(ids))
    source[missing] = len(ids) + np.arange(len(made))
    return pa.concat_arrays([ids, filled]).take(pa.array(source))
