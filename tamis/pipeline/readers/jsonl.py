"""JSON lines: one document a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

from tamis.pipeline.documents import ID, SOURCE, TEXT
from tamis.pipeline.errors import TamisError
from tamis.pipeline.readers.assemble import assemble
from tamis.pipeline.readers.inputs import EXTRA, Input
from tamis.pipeline.readers.lines import Block, Broken, TooLong, slice_lines
from tamis.pipeline.readers.records import BadRecord, excerpt, nearest
from tamis.pipeline.readers.slices import Slice, open_slice
from tamis.pipeline.readers.values import Convert, Mismatch, converter, describe, json_text


class BadDocument(Exception):
    """Why a line gives no document."""


class DocumentParser:
    """Lines to rows of the declared columns, one at a time; it decides about everything that is unusual."""

    def __init__(self, entry: Input, schema: pa.Schema) -> None:
        self.entry = entry
        self.names = [field.name for field in schema]
        self.strict = entry.columns is not None
        self.has_extra = not self.strict and EXTRA in self.names
        self.columns: dict[str, tuple[int, Convert]] = {}
        for index, field in enumerate(schema):
            if field.name == SOURCE and entry.source is not None:
                continue
            key = {TEXT: entry.text, ID: entry.id}.get(field.name, field.name)
            any_as_text = field.name == ID or (field.name != TEXT and not self.strict)
            self.columns[key] = (index, converter(field.type, any_as_text))

    def parse(self, line: bytes) -> list[Any]:
        """The values in the order of the schema; raises BadDocument."""
        document = self._object(line)
        row: list[Any] = [None] * len(self.names)
        extra: dict[str, Any] = {}
        for key, value in document.items():
            if key not in self.columns:
                if (
                    self.has_extra
                    and self.entry.renamed(key) is not None
                    and not self._is_source(key)
                ):
                    extra[key] = value
                continue
            index, convert = self.columns[key]
            if value is None:
                continue
            try:
                row[index] = convert(value)
            except Mismatch:
                if not self.has_extra or key == self.entry.text:
                    raise BadDocument(self._mismatch(key, value)) from None
                extra[key] = value
        if row[self.names.index(TEXT)] is None:
            raise BadDocument(self._no_text(document))
        if extra:
            index = self.names.index(EXTRA)
            row[index] = self._merged(row[index], extra)
        return row

    def _object(self, line: bytes) -> dict[str, Any]:
        if len(line) > self.entry.max_document_bytes:
            raise BadDocument(too_long(self.entry))
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadDocument(f"invalid JSON: {str(error).replace(' line 1', '')}") from None
        if not isinstance(document, dict):
            raise BadDocument(
                f"the line is {'null' if document is None else describe(document)}, not a JSON object"
            )
        return document

    def _is_source(self, key: str) -> bool:
        return key == SOURCE and self.entry.source is not None

    def _mismatch(self, key: str, value: Any) -> str:
        if key == self.entry.text:
            return f"the text {key!r} is {describe(value)}, not a string"
        type_ = (self.entry.columns or {}).get(key, "string")
        return f"column {key!r} is {describe(value)}, not {type_} as declared"

    def _no_text(self, document: dict[str, Any]) -> str:
        if self.entry.text in document:
            return f"the text {self.entry.text!r} is null"
        return f"there is no key {self.entry.text!r}; {nearest(self.entry.text, document)}"

    def _merged(self, own: str | None, extra: dict[str, Any]) -> str:
        """The keys without a column, beside what the document itself had under ``extra``."""
        if own is not None:
            try:
                mine = orjson.loads(own)
            except orjson.JSONDecodeError:
                mine = own
            extra = {**mine, **extra} if isinstance(mine, dict) else {EXTRA: mine, **extra}
        return json_text(extra)


def too_long(entry: Input) -> str:
    return f"longer than max_document_bytes ({entry.max_document_bytes:,})"


def read_jsonl(
    part: Slice, entry: Input, schema: pa.Schema, batch_bytes: int, batch_rows: int
) -> Iterator[pa.RecordBatch | BadRecord]:
    """The documents of a slice of a JSONL file; see ``readers.read_slice``."""
    parser = DocumentParser(entry, schema)
    read_any = False
    with open_slice(part) as file:
        for found in slice_lines(file, part, batch_bytes, entry.max_document_bytes):
            if isinstance(found, Block):
                read_any = True
                yield from _read_block(found, part, parser, schema, batch_rows)
            elif isinstance(found, TooLong):
                read_any = True
                yield BadRecord(
                    position(part, found.offset, found.line), too_long(entry), excerpt(found.head)
                )
            else:
                yield _broken(found, part, read_any)


def position(part: Slice, offset: int, line: int) -> str:
    """Where a line is: its number if the slice began the file, else its place in bytes."""
    if part.start == 0:
        return f"line {line}"
    if part.unit == "bytes":
        return f"byte {part.start + offset}"
    return f"byte {offset} of the data that begins at byte {part.start} of the compressed file"


def _broken(found: Broken, part: Slice, read_any: bool) -> BadRecord:
    if not read_any and part.start == 0:
        raise TamisError(f"cannot read {part.name}: {found.error}") from None
    return BadRecord(
        position(part, found.offset, found.line), f"the rest cannot be read: {found.error}", ""
    )


def _read_block(
    block: Block, part: Slice, parser: DocumentParser, schema: pa.Schema, batch_rows: int
) -> Iterator[pa.RecordBatch | BadRecord]:
    rows: list[list[Any]] = []
    offset, line = block.offset, block.line
    for raw in bytes(memoryview(block.buffer)[: block.length]).split(b"\n")[:-1]:
        if raw.strip():
            try:
                rows.append(parser.parse(raw))
            except BadDocument as error:
                yield BadRecord(position(part, offset, line), str(error), excerpt(raw))
        offset += len(raw) + 1
        line += 1
        if len(rows) >= batch_rows:
            yield _batch(rows, parser.entry, schema, part.name)
            rows = []
    if rows:
        yield _batch(rows, parser.entry, schema, part.name)


def _batch(rows: list[list[Any]], entry: Input, schema: pa.Schema, name: str) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = {
        field.name: pa.array(values, field.type)
        for field, values in zip(schema, columns, strict=True)
        if not (field.name == SOURCE and entry.source is not None)
    }
    return assemble(arrays, len(rows), entry, schema, name)
