"""The lines of a batch, and how many lines or paragraphs of a document it has had before."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.filters.text.bitmap import (
    Bools,
    Int64s,
    UInt8s,
    UInt64s,
    last_bit,
    load8,
    low_bytes,
    next_bit,
    population,
    text_arrays,
    trailing_zeros,
)
from tamis.filters.text.hash_table import clear, find_or_insert, table_shift, table_size
from tamis.filters.text.scan import scan
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_HALF = np.uint64(32)
_TOP_BITS = np.uint64(0x8080808080808080)
_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)
_FINISH = np.uint64(0xD6E8FEB86659FD93)
_SEED = np.uint64(0x243F6A8885A308D3)


class Lines(NamedTuple):
    """Line j is ``data[start[j]:end[j]]``, without its break; document i has lines
    ``first[i]:first[i + 1]``.
    """

    first: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


def lines(documents: Documents) -> Lines:
    """``text.split("\\n")`` of the documents that are alive, once a batch."""
    return documents.memo("text.lines", lambda: _lines(documents))


def _lines(documents: Documents) -> Lines:
    _, offsets, alive = text_arrays(documents)
    seen = scan(documents)
    first = np.zeros(len(documents) + 1, np.int64)
    np.cumsum(np.where(alive, seen.newlines + 1, 0), out=first[1:])
    start, end = np.empty(first[-1], np.int64), np.empty(first[-1], np.int64)
    _split_newlines(offsets, alive, seen.block, seen.newline, first, start, end)
    return Lines(first, start, end)


def split_lines(documents: Documents) -> Lines:
    """``text.splitlines()`` for the documents that are alive: all ten breaks of Unicode end a line;
    once a batch.
    """
    return documents.memo("text.split_lines", lambda: _split_lines(documents))


def _split_lines(documents: Documents) -> Lines:
    data, offsets, alive = text_arrays(documents)
    plain = lines(documents)
    count = np.zeros(len(documents), np.int64)
    _count_split_lines(data, offsets, alive, plain.first, count)
    first = np.zeros(len(documents) + 1, np.int64)
    np.cumsum(np.abs(count), out=first[1:])
    start, end = np.empty(first[-1], np.int64), np.empty(first[-1], np.int64)
    _fill_split_lines(data, offsets, count, plain.first, plain.start, plain.end, first, start, end)
    return Lines(first, start, end)


def paragraphs(documents: Documents) -> Lines:
    """``re.split(r"\\n{2,}", text.strip())``, but none for a text that is all white space; once a
    batch.
    """
    return documents.memo("text.paragraphs", lambda: _paragraphs(documents))


def _paragraphs(documents: Documents) -> Lines:
    _, offsets, _ = text_arrays(documents)
    seen, split = scan(documents), lines(documents)
    first = np.zeros(len(documents) + 1, np.int64)
    start, end = np.empty_like(split.start), np.empty_like(split.end)
    _join_paragraphs(offsets, seen.block, seen.solid, *split, first, start, end)
    return Lines(first, start[: first[-1]].copy(), end[: first[-1]].copy())


def stripped(documents: Documents, segments: Lines) -> tuple[Lines, NDArray[np.int64]]:
    """The segments without white space at both ends, those that are not empty then, and their code
    points by document.
    """
    data, offsets, _ = text_arrays(documents)
    seen = scan(documents)
    first, characters = np.zeros(len(documents) + 1, np.int64), np.zeros(len(documents), np.int64)
    start, end = np.empty_like(segments.start), np.empty_like(segments.end)
    _strip(data, offsets, seen.block, seen.solid, *segments, first, start, end, characters)
    return Lines(first, start[: first[-1]].copy(), end[: first[-1]].copy()), characters


class Repeats(NamedTuple):
    """Segments (lines, paragraphs) that are no first copy; each array has a value for every
    document.
    """

    repeated: NDArray[np.int64]
    """Segments equal to an earlier one: of k copies, k - 1."""
    repeated_characters: NDArray[np.int64]
    """The code points of those."""
    repeated_blanks: NDArray[np.int64]
    """The part of ``repeated_characters`` that lies in segments of white space only."""
    copies: NDArray[np.int64]
    """Segments that occur more than once: of k copies, all k."""
    copied_characters: NDArray[np.int64]
    """The code points of those."""


def repeated_lines(documents: Documents) -> Repeats:
    """Repeats among the ``lines`` that are not empty; once a batch."""
    return documents.memo("text.repeated_lines", lambda: repeats(documents, lines(documents)))


def repeats(documents: Documents, segments: Lines) -> Repeats:
    """Repeats among segments of any kind; empty ones are passed over.

    Two segments are equal when they have the same 64-bit hash (in a document of a thousand lines, a
    wrong repeat has a chance of 3e-14).
    """
    data, offsets, _ = text_arrays(documents)
    seen = scan(documents)
    hashes = np.empty(len(segments.start), np.uint64)
    result = Repeats(*(np.zeros(len(documents), np.int64) for _ in Repeats._fields))
    most = int(np.diff(segments.first).max(initial=0))
    table = np.empty(table_size(most), np.uint64)
    copied = np.empty(len(table), np.bool_)
    _hash_spans(data, *segments, hashes)
    _find_repeats(data, offsets, seen.block, seen.solid, *segments, hashes, table, copied, *result)
    return result


@kernel
def _split_newlines(
    offsets: Int64s,
    alive: Bools,
    block: Int64s,
    newline: UInt64s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
) -> None:
    for doc in range(alive.size):
        if not alive[doc]:
            continue
        line = first[doc]
        start[line] = offsets[doc]
        for word in range(block[doc], block[doc + 1]):
            bits = newline[word]
            base = offsets[doc] + ((word - block[doc]) << 6)
            while bits != _ZERO:
                end[line] = base + trailing_zeros(bits)
                start[line + 1] = end[line] + 1
                bits &= bits - _ONE
                line += 1
        end[line] = offsets[doc + 1]


@kernel
def _has_other_breaks(one: UInt8s, two: UInt8s, three: UInt8s) -> Any:
    """Whether VT, FF, CR, FS, GS, RS, NEL (C2 85), LS or PS (E2 80 A8, A9) begin in ``one``.

    ``two`` and ``three`` are the text from its second and third byte on.
    """
    found = 0
    for i in range(one.size):
        control = (np.uint8(one[i] - np.uint8(11)) < np.uint8(3)) | (
            np.uint8(one[i] - np.uint8(28)) < np.uint8(3)
        )
        nel = (one[i] == 0xC2) & (two[i] == 0x85)
        separator = (one[i] == 0xE2) & (two[i] == 0x80) & ((three[i] & 0xFE) == 0xA8)
        found += control | nel | separator
    return found > 0


@kernel
def _break_width(data: UInt8s, at: Any, end: Any) -> Any:
    """The bytes of the line break that begins at ``at`` (CR LF is one break), or 0."""
    byte = data[at]
    if byte == 13:
        return 2 if at + 1 < end and data[at + 1] == 10 else 1
    if 10 <= byte <= 12 or 28 <= byte <= 30:
        return 1
    if byte == 0xC2:
        return 2 if at + 1 < end and data[at + 1] == 0x85 else 0
    if byte == 0xE2 and at + 2 < end and data[at + 1] == 0x80:
        return 3 if data[at + 2] == 0xA8 or data[at + 2] == 0xA9 else 0
    return 0


@kernel
def _next_break(data: UInt8s, at: Any, end: Any) -> Any:
    """(position, width) of the first line break from ``at`` on, or (end, 0)."""
    while at < end:
        width = _break_width(data, at, end)
        if width:
            return at, width
        at += 1
    return end, 0


@kernel
def _count_split_lines(
    data: UInt8s,
    offsets: Int64s,
    alive: Bools,
    first: Int64s,
    count: Int64s,
) -> None:
    """Lines of each document; the number is negative where breaks other than newlines may occur."""
    for doc in range(alive.size):
        begin, end = offsets[doc], offsets[doc + 1]
        if not alive[doc] or begin == end:
            continue
        # One or two bytes behind the end may be seen here, which costs time at worst.
        after = data[begin + 2 : end + 2]
        if not _has_other_breaks(data[begin:end], data[begin + 1 : end + 1], after):
            count[doc] = first[doc + 1] - first[doc] - np.int64(data[end - 1] == 10)
            continue
        at = begin
        while at < end:
            stop, width = _next_break(data, at, end)
            at = stop + width
            count[doc] -= 1


@kernel
def _fill_split_lines(
    data: UInt8s,
    offsets: Int64s,
    count: Int64s,
    plain_first: Int64s,
    plain_start: Int64s,
    plain_end: Int64s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
) -> None:
    for doc in range(count.size):
        if count[doc] >= 0:
            for line in range(count[doc]):
                start[first[doc] + line] = plain_start[plain_first[doc] + line]
                end[first[doc] + line] = plain_end[plain_first[doc] + line]
            continue
        at = offsets[doc]
        for line in range(first[doc], first[doc + 1]):
            stop, width = _next_break(data, at, offsets[doc + 1])
            start[line], end[line] = at, stop
            at = stop + width


@kernel
def hash_span(data: UInt8s, start: Any, end: Any) -> Any:
    """A 64-bit hash of ``data[start:end]``, eight bytes at a time."""
    hashed = _SEED ^ np.uint64(end - start)
    for at in range(start, end, 8):
        block = load8(data, at) & low_bytes(min(end - at, 8))
        hashed = (hashed ^ (block * _MULTIPLIER)) * _FINISH
        hashed ^= hashed >> _HALF
    return hashed


@kernel
def _hash_spans(
    data: UInt8s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
    hashes: UInt64s,
) -> None:
    """Hashes of the segments of documents that have more than one."""
    for doc in range(first.size - 1):
        if first[doc + 1] - first[doc] > 1:
            for span in range(first[doc], first[doc + 1]):
                hashes[span] = hash_span(data, start[span], end[span])


@kernel
def span_characters(data: UInt8s, start: Any, end: Any) -> Any:
    """The code points of ``data[start:end]``."""
    inner = 0
    for at in range(start, end, 8):
        block = load8(data, at) & low_bytes(min(end - at, 8))
        inner += population(block & ~(block << _ONE) & _TOP_BITS)
    return end - start - inner


@kernel
def _join_paragraphs(
    offsets: Int64s,
    block: Int64s,
    solid: UInt64s,
    line_first: Int64s,
    line_start: Int64s,
    line_end: Int64s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
) -> None:
    """A paragraph is a run of lines that are not empty, within what is left of the text when it is
    stripped.
    """
    found = 0
    for doc in range(first.size - 1):
        bits = solid[block[doc] : block[doc + 1]]
        low = offsets[doc] + next_bit(bits, np.int64(0), 64 * bits.size)
        high = offsets[doc] + last_bit(bits, np.int64(0), 64 * bits.size)
        opened = False
        for line in range(line_first[doc], line_first[doc + 1]):
            if line_end[line] <= low:
                continue
            if line_start[line] >= high:
                break
            begin = max(line_start[line], low)
            if begin == line_end[line]:
                opened = False
                continue
            if not opened:
                start[found] = begin
                found += 1
                opened = True
            end[found - 1] = min(line_end[line], high)
        first[doc + 1] = found


@kernel
def _strip(
    data: UInt8s,
    offsets: Int64s,
    block: Int64s,
    solid: UInt64s,
    from_first: Int64s,
    from_start: Int64s,
    from_end: Int64s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
    characters: Int64s,
) -> None:
    found = 0
    for doc in range(first.size - 1):
        base = offsets[doc]
        bits = solid[block[doc] : block[doc + 1]]
        for segment in range(from_first[doc], from_first[doc + 1]):
            low = next_bit(bits, from_start[segment] - base, from_end[segment] - base)
            high = last_bit(bits, low, from_end[segment] - base)
            if low < high:
                start[found], end[found] = base + low, base + high
                characters[doc] += span_characters(data, base + low, base + high)
                found += 1
        first[doc + 1] = found


@kernel
def _find_repeats(
    data: UInt8s,
    offsets: Int64s,
    block: Int64s,
    solid: UInt64s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
    hashes: UInt64s,
    table: UInt64s,
    copied: Bools,
    repeated: Int64s,
    repeated_characters: Int64s,
    repeated_blanks: Int64s,
    copies: Int64s,
    copied_characters: Int64s,
) -> None:
    for doc in range(first.size - 1):
        begin, segments = first[doc], first[doc + 1] - first[doc]
        if segments < 2:
            continue
        shift = table_shift(segments)
        clear(table, shift)
        for segment in range(begin, begin + segments):
            if start[segment] == end[segment]:
                continue
            entry = find_or_insert(table, shift, hashes[segment])
            if entry < 0:
                copied[~entry] = False
                continue
            length = span_characters(data, start[segment], end[segment])
            copies_here = 1 if copied[entry] else 2
            copied[entry] = True
            repeated[doc] += 1
            repeated_characters[doc] += length
            copies[doc] += copies_here
            copied_characters[doc] += length * copies_here
            low, high = start[segment] - offsets[doc], end[segment] - offsets[doc]
            if next_bit(solid[block[doc] : block[doc + 1]], low, high) == high:
                repeated_blanks[doc] += length
