"""Blocks of whole lines from a byte stream, with a bound on memory whatever the lines are like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader

from tamis.pipeline.readers.compression import READ_ERRORS, ByteStream, Span, decompressed, sniff
from tamis.pipeline.readers.records import EXCERPT_CHARACTERS
from tamis.pipeline.readers.slices import Slice

PADDING = 64
_BOM = b"\xef\xbb\xbf"
_TAIL_BYTES = 1 << 16


@dataclass
class Block:
    """Whole lines with their newlines: ``buffer[:length]``; valid until the next block.

    ``PADDING`` bytes behind them may be read.
    """

    buffer: bytearray
    length: int
    offset: int
    """Bytes of the stream before this block."""


@dataclass
class TooLong:
    """A line of more than the allowed bytes, which was skipped."""

    offset: int
    head: bytes


@dataclass
class Broken:
    """The stream cannot be read further."""

    offset: int
    error: Exception


def slice_lines(
    file: BufferedReader, part: Slice, block_bytes: int, max_line: int
) -> Iterator[Block | TooLong | Broken]:
    """The lines of a slice of a JSONL file.

    A slice owns the lines that begin behind its start and not behind its stop (the first slice:
    also the line at 0). So a slice that does not begin the file drops everything up to its first
    newline, and reads on to the end of the line that crosses its stop, or begins there: every line
    is read exactly once, wherever the cuts are.
    """
    if part.unit == "file":
        compression = sniff(file.read(4))
        file.seek(0)
        stream = decompressed(file, compression)
        return LineReader(stream, part, None, True, block_bytes, max_line).blocks()
    file.seek(part.start)
    own = decompressed(Span(file, part.stop - part.start), part.compression)
    return LineReader(own, part, file, part.start == 0, block_bytes, max_line).blocks()


_COMPRESSION = 4
"""About how much longer text is than its compressed form; a wrong guess costs a copy."""


class LineReader:
    """Cuts a stream into ``Block``; a line of over ``max_line`` bytes is passed over, not held."""

    def __init__(
        self,
        own: ByteStream,
        part: Slice,
        rest: BufferedReader | None,
        first: bool,
        block_bytes: int,
        max_line: int,
    ) -> None:
        self.stream = own
        self.rest = (rest, part) if rest is not None else None
        self.max_line = max_line
        # A small file needs a small buffer; compressed text is a few times what is stored.
        expected = part.bytes * (1 if part.compression is None else _COMPRESSION) + 1
        self.buffer = bytearray(min(block_bytes, max(expected, 1 << 16)) + PADDING)
        self.block_bytes = block_bytes
        self.filled = 0
        self.offset = 0
        self.skipping = not first
        self.first = first
        self.error: Exception | None = None

    def blocks(self) -> Iterator[Block | TooLong | Broken]:
        ended = False
        while not ended:
            ended = self._fill()
            if self.first and self.filled >= len(_BOM):
                self.first = False
                if self.buffer.startswith(_BOM):
                    self._drop(len(_BOM))
            if self.skipping and not self._skip_to_newline():
                continue
            if ended and self.error is None:
                yield from self._last()
                return
            whole = self.buffer.rfind(b"\n", 0, self.filled) + 1
            if whole:
                yield from self._block(whole)
            elif self.filled > self.max_line:
                yield self._too_long()
            if self.filled > self._capacity // 2 or self._capacity < self.block_bytes:
                self._grow()
        if self.error is not None:
            yield Broken(self.offset, self.error)

    @property
    def _capacity(self) -> int:
        return len(self.buffer) - PADDING

    def _fill(self) -> bool:
        """Reads until the buffer is full; True where the stream ends or cannot be read further."""
        view = memoryview(self.buffer)[: self._capacity]
        try:
            while self.filled < len(view):
                count = self.stream.readinto(view[self.filled :])
                if not count:
                    return True
                self.filled += count
        except READ_ERRORS as error:
            self.error = error
            return True
        return False

    def _grow(self) -> None:
        """Small files need small buffers; a long line needs one that holds it."""
        limit = self.block_bytes + self.max_line
        wanted = (
            min(4 * self._capacity, self.block_bytes)
            if self.filled < self.block_bytes
            else 2 * self._capacity
        )
        if min(wanted, limit) > self._capacity:
            self._replace(min(wanted, limit))

    def _replace(self, capacity: int) -> None:
        buffer = bytearray(capacity + PADDING)
        buffer[: self.filled] = memoryview(self.buffer)[: self.filled]
        self.buffer = buffer

    def _drop(self, count: int) -> None:
        left = self.filled - count
        self.buffer[:left] = self.buffer[count : self.filled]
        self.filled = left
        self.offset += count

    def _skip_to_newline(self) -> bool:
        end = self.buffer.find(b"\n", 0, self.filled)
        if end < 0:
            self._drop(self.filled)
            return False
        self._drop(end + 1)
        self.skipping = False
        return True

    def _block(self, length: int) -> Iterator[Block]:
        """Hands out the first ``length`` bytes, and drops them when the block has been used."""
        yield Block(self.buffer, length, self.offset)
        self._drop(length)

    def _too_long(self) -> TooLong:
        found = TooLong(self.offset, bytes(self.buffer[: 4 * EXCERPT_CHARACTERS]))
        self._drop(self.filled)
        self.skipping = True
        return found

    def _last(self) -> Iterator[Block | TooLong | Broken]:
        """The last lines, and what lies behind the slice of the line that crosses its end."""
        whole = self.buffer.rfind(b"\n", 0, self.filled) + 1
        if whole:
            yield from self._block(whole)
        if self.rest is not None:
            self._read_rest(*self.rest)
        if self.error is not None:
            yield Broken(self.offset, self.error)
        elif self.filled > self.max_line:
            yield self._too_long()
        elif self.filled:
            self.buffer[self.filled : self.filled + 1] = b"\n"
            self.filled += 1
            yield from self._block(self.filled)

    def _read_rest(self, file: BufferedReader, part: Slice) -> None:
        """Appends what follows the slice up to its first newline, or until the line is too long."""
        try:
            file.seek(part.stop)
            if part.compression == "zstd" and not file.read(1):
                return
            file.seek(part.stop)
            stream = decompressed(file, part.compression)
            tail = bytearray(_TAIL_BYTES)
            while self.filled <= self.max_line:
                count = stream.readinto(memoryview(tail)) or 0
                end = tail.find(b"\n", 0, count)
                keep = end if end >= 0 else count
                if self.filled + keep + 1 > self._capacity:
                    self._replace(2 * (self.filled + keep + 1))
                self.buffer[self.filled : self.filled + keep] = memoryview(tail)[:keep]
                self.filled += keep
                if end >= 0 or not count:
                    return
        except READ_ERRORS as error:
            self.error = error
