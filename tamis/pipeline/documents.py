"""Documents: the columns that every stage relies on, and the batch that travels through the stages.

A document is a row of a ``pyarrow.RecordBatch`` with at least ``id: string`` and ``text:
large_string``. Its place in the input is ``ROW: uint64`` (slice number in the high 32 bits, ordinal
within the slice in the low 32): unlike ``id``, which comes from the user and may repeat, it is
unique in a run, and it does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

ID = "id"
TEXT = "text"
SOURCE = "source"
ROW = "__row__"
# With ``measures: all`` dropped documents travel on; this column marks them.
DROPPED = "__dropped__"
RESERVED = (ROW, DROPPED)

T = TypeVar("T")

# Kernels read eight bytes at a time and may look this far behind the last byte of the text.
PADDING = 64


class Documents:
    """A batch of documents on its way through the stages.

    ``batch`` holds the columns. ``alive[i]`` is False once a stage dropped row i: the row stays
    where it is, so that what was computed about the text stays valid for the stages that follow,
    until ``compact`` or ``replace_text``.
    """

    __slots__ = ("_alive", "_memo", "batch")

    def __init__(self, batch: pa.RecordBatch, alive: NDArray[np.bool_] | None = None) -> None:
        self.batch = batch
        self._alive = np.ones(batch.num_rows, dtype=np.bool_) if alive is None else alive
        self._memo: dict[Hashable, object] = {}

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows are still in. Rows that come back make what was computed without them void."""
        return self._alive

    @alive.setter
    def alive(self, alive: NDArray[np.bool_]) -> None:
        if self._memo and (alive & ~self._alive).any():
            self._memo.clear()
        self._alive = alive

    @property
    def text(self) -> pa.LargeStringArray:
        return self.batch.column(TEXT)

    def memo(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What ``compute()`` gave the first time it was asked for under ``key``; shared by all
        stages on this text.
        """
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]  # type: ignore[return-value]

    def utf8(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The text as (data, offsets): document i is ``data[offsets[i]:offsets[i + 1]]``, a null is
        empty.

        Nothing is copied unless fewer than ``PADDING`` bytes lie behind the last document; those
        bytes may be read by kernels and their value is undefined.
        """
        return self.memo("utf8", lambda: utf8_view(self.text))

    def compact(self) -> Documents:
        """Only the rows that are alive (itself when all are)."""
        if self.alive.all():
            return self
        return Documents(self.batch.filter(pa.array(self.alive)))

    def replace_text(self, text: pa.LargeStringArray) -> Documents:
        """The same rows with another text; everything that was computed about the old text is
        forgotten.
        """
        position = self.batch.schema.get_field_index(TEXT)
        return Documents(self.batch.set_column(position, TEXT, text), self.alive)


def utf8_view(text: pa.LargeStringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(data, offsets) over the Arrow buffers of a large_string array; see ``Documents.utf8``."""
    if text.null_count:
        text = text.fill_null("")
    if len(text) == 0:
        return np.zeros(PADDING, np.uint8), np.zeros(1, np.int64)
    _, offset_buffer, data_buffer = text.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[text.offset : text.offset + len(text) + 1]
    if data_buffer is None:
        return np.zeros(PADDING, np.uint8), offsets
    data = np.frombuffer(data_buffer, np.uint8)
    if len(data) - offsets[-1] < PADDING:
        padded = np.zeros(int(offsets[-1] - offsets[0]) + PADDING, np.uint8)
        padded[: offsets[-1] - offsets[0]] = data[offsets[0] : offsets[-1]]
        data, offsets = padded, offsets - offsets[0]
    return data, offsets


def content_id(source_path: str, text: str | bytes) -> str:
    """The id of a document that came without one: xxh3-128 of the path it came from and its text,
    as 32 hex digits.
    """
    digest = xxhash.xxh3_128(source_path.encode())
    digest.update(b"\0")
    digest.update(text.encode() if isinstance(text, str) else text)
    return digest.hexdigest()
