"""JSON lines: one document a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from tamis.pipeline.documents import ID, PADDING, RESERVED, SOURCE, TEXT
from tamis.pipeline.errors import TamisError
from tamis.pipeline.readers import scan
from tamis.pipeline.readers.assemble import assemble
from tamis.pipeline.readers.document import BadDocumentError, DocumentParser, too_long
from tamis.pipeline.readers.inputs import Input
from tamis.pipeline.readers.lines import Block, TooLong, slice_lines
from tamis.pipeline.readers.records import BadRecord, excerpt
from tamis.pipeline.readers.slices import Slice, open_slice
from tamis.pipeline.readers.values import conforms


def read_jsonl(
    part: Slice, entry: Input, schema: pa.Schema, batch_bytes: int, batch_rows: int
) -> Iterator[pa.RecordBatch | BadRecord]:
    """The documents of a slice of a JSONL file; see ``readers.read_slice``."""
    parser = BlockParser(part, entry, schema, batch_rows)
    read_any = part.start > 0
    with open_slice(part) as file:
        for found in slice_lines(file, part, batch_bytes, entry.max_document_bytes):
            if isinstance(found, Block):
                yield from parser.parse(found)
            elif isinstance(found, TooLong):
                where = position(part, found.offset, parser.line)
                parser.line += 1
                yield BadRecord(where, too_long(entry), excerpt(found.head))
            elif read_any:
                where = position(part, found.offset, parser.line)
                yield BadRecord(where, f"the rest cannot be read: {excerpt(str(found.error))}", "")
            else:
                raise TamisError(f"cannot read {part.name}: {excerpt(str(found.error))}") from None
            read_any = True


def position(part: Slice, offset: int, line: int) -> str:
    """Where a line is: its number if the slice began the file, else its place in bytes."""
    if part.start == 0:
        return f"line {line}"
    if part.unit == "bytes":
        return f"byte {part.start + offset}"
    return f"byte {offset} of the data that begins at byte {part.start} of the compressed file"


class BlockParser:
    """Blocks of lines to batches: the kernel reads most lines, ``DocumentParser`` the odd ones."""

    def __init__(self, part: Slice, entry: Input, schema: pa.Schema, batch_rows: int) -> None:
        self.part, self.entry, self.schema = part, entry, schema
        self.document = DocumentParser(entry, schema)
        kinds = self._kinds()
        self.names = [self.document.name_of(key) for key in kinds]
        self.kinds = list(kinds.values())
        encoded = [key.encode() for key in kinds]
        self.expected = scan.Expected(
            np.frombuffer(b"".join(encoded), np.uint8),
            np.cumsum([0, *map(len, encoded)], dtype=np.int64),
            np.array(self.kinds, np.int64),
            scan.IGNORED if entry.columns is not None else scan.ODD,
        )
        self.found = scan.Found(
            text=np.empty(0, np.uint8),
            text_offsets=np.zeros(batch_rows + 1, np.int64),
            values=np.empty(0, np.uint8),
            starts=np.empty((len(kinds), batch_rows), np.int64),
            stops=np.empty((len(kinds), batch_rows), np.int64),
            state=np.empty((len(kinds), batch_rows), np.uint8),
            lines=np.empty((2, batch_rows), np.int64),
            odd=np.empty(batch_rows, np.bool_),
        )
        self.line = 1
        self.batch_start = 0

    def _kinds(self) -> dict[str, int]:
        """What the kernel lets stand under each key."""
        kinds = {
            key: _kind(self.schema.field(index))
            for key, (index, _) in self.document.columns.items()
        }
        left_out = [*RESERVED, TEXT, ID]
        if self.entry.source is not None:
            left_out.append(SOURCE)
        return dict.fromkeys(left_out, scan.IGNORED) | kinds

    def parse(self, block: Block) -> Iterator[pa.RecordBatch | BadRecord]:
        """The documents of a block, in batches, and its lines that are none."""
        source = np.frombuffer(block.buffer, np.uint8)
        if len(self.found.text) < len(source):
            text, values = np.empty(len(source), np.uint8), np.empty(len(source), np.uint8)
            self.found = self.found._replace(text=text, values=values)
        valid = is_utf8(block)
        at = 0
        while at < block.length:
            self.batch_start = at
            longest = self.entry.max_document_bytes
            at, rows, lines = scan.scan_lines(
                source, at, block.length, longest, self.expected, self.found
            )
            if not valid:
                self.found.odd[:rows] = True
                self.found.state[:, :rows] = scan.ABSENT
            yield from self._batch(block, rows)
            self.line += lines

    def _batch(self, block: Block, rows: int) -> Iterator[pa.RecordBatch | BadRecord]:
        columns = self._columns(rows)
        number, counted = self.line, self.batch_start
        odd = np.flatnonzero(self.found.odd[:rows])
        if len(odd):
            order = np.arange(rows)
            parsed: list[list[Any]] = []
            for row in odd.tolist():
                start, stop = self.found.lines[:, row].tolist()
                line = bytes(memoryview(block.buffer)[start:stop])
                number += block.buffer.count(b"\n", counted, start)
                counted = start
                try:
                    parsed.append(self.document.parse(line))
                    order[row] = rows + len(parsed) - 1
                except BadDocumentError as error:
                    order[row] = -1
                    where = position(self.part, block.offset + start, number)
                    yield BadRecord(where, str(error), excerpt(line))
            order = order[order >= 0]
            columns = self._merge(columns, rows, parsed, order)
            rows = len(order)
        if rows:
            yield assemble(columns, rows, self.entry, self.schema, self.part.name)

    def _merge(
        self, columns: dict[str, pa.Array], rows: int, parsed: list[list[Any]], order: Any
    ) -> dict[str, pa.Array]:
        """The rows in ``order``: indices into the kernel's rows followed by the parsed ones."""
        taken = pa.array(order)
        merged = {}
        for index, field in enumerate(self.schema):
            values = pa.array([row[index] for row in parsed], field.type)
            if field.name in columns:
                values = pa.concat_arrays([columns[field.name], values])
            else:
                values = pa.concat_arrays([pa.nulls(rows, field.type), values])
            merged[field.name] = values.take(taken)
        return merged

    def _columns(self, rows: int) -> dict[str, pa.Array]:
        """What the kernel found, as columns of the schema; odd rows are null, or an empty text.

        Nested values are parsed here; rows whose value does not fit the declared type become odd.
        """
        columns = {}
        for column, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            if kind == scan.NESTED:
                columns[name] = self._nested(column, rows, self.schema.field(name).type)
        for column, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            if kind == scan.TEXT:
                columns[name] = self._text(rows)
            elif kind not in (scan.IGNORED, scan.ODD, scan.NESTED):
                columns[name] = _cast(self._strings(column, rows), self.schema.field(name).type)
        return columns

    def _text(self, rows: int) -> pa.LargeStringArray:
        """A copy of the text, with room behind it that kernels may read."""
        size = int(self.found.text_offsets[rows])
        data = pa.allocate_buffer(size + PADDING)
        view = np.frombuffer(data, np.uint8)
        view[:size] = self.found.text[:size]
        view[size:] = 0
        offsets = pa.py_buffer(self.found.text_offsets[: rows + 1].copy())
        return pa.LargeStringArray.from_buffers(rows, offsets, data)

    def _strings(self, column: int, rows: int) -> pa.StringArray:
        """The raw values of a column; null where there is none."""
        starts, stops = self.found.starts[column, :rows], self.found.stops[column, :rows]
        state = self.found.state[column, :rows]
        present = state == scan.PRESENT
        size = int(np.sum(stops - starts, where=present))
        data = np.empty(size + scan.WIDTH, np.uint8)
        offsets = np.zeros(rows + 1, np.int32)
        scan.gather(self.found.values, starts, stops, state, data, offsets)
        validity = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
        buffers = (pa.py_buffer(offsets), pa.py_buffer(data[:size]), validity)
        return pa.StringArray.from_buffers(rows, *buffers)

    def _nested(self, column: int, rows: int, type_: pa.DataType) -> pa.Array:
        raw = self._strings(column, rows)
        present = raw.drop_null()
        try:
            parsed = iter(orjson.loads(b"[" + ",".join(present.to_pylist()).encode() + b"]"))
        except orjson.JSONDecodeError:
            self.found.odd[:rows] |= raw.is_valid().to_numpy(zero_copy_only=False)
            return pa.nulls(rows, type_)
        values: list[Any] = []
        for row, there in enumerate(raw.is_valid().to_pylist()):
            value = next(parsed) if there else None
            if not conforms(value, type_):
                self.found.odd[row] = True
                value = None
            values.append(value)
        return pa.array(values, type_)


def is_utf8(block: Block) -> bool:
    """Whether the whole block is valid UTF-8."""
    offsets = pa.py_buffer(np.array([0, block.length], np.int64))
    whole = pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(block.buffer))
    try:
        whole.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _kind(field: pa.Field) -> int:
    type_ = field.type
    if field.name == TEXT:
        return scan.TEXT
    if field.name == ID:
        return scan.STRING_OR_INTEGER
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return scan.STRING
    if pa.types.is_int64(type_):
        return scan.INTEGER
    if pa.types.is_float64(type_):
        return scan.FLOAT
    if pa.types.is_boolean(type_):
        return scan.BOOLEAN
    return scan.NESTED if pa.types.is_nested(type_) else scan.ODD


def _cast(raw: pa.StringArray, type_: pa.DataType) -> pa.Array:
    return raw if raw.type.equals(type_) else raw.cast(type_)
