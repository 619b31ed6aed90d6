"""How spaCy splits a chunk (what stands between white space), remembered in a hash table.

A table is never changed once other threads can see it, so look-ups need no lock. The value of a
chunk is a *code*, one uint64:

    bits  0-3    number of tokens n, or ARENA when the code cannot hold them
    bits  4-33   the bytes of the first five tokens, 6 bits each; or a place in ``lengths``,
                 where n, the four numbers of bits 34-41 and the bytes of all tokens stand
    bits 34-37   sentences that begin in the chunk if none has just ended before it (3 bits),
                 and whether one has just ended behind it
    bits 38-41   the same if a sentence has just ended before the chunk
    bit  42      fragile: a neighbour behind a single space could change how the chunk is split
    bits 43-53   bytes of the chunk
    bits 62-63   which of the tables of a look-up the code is from

A chunk of up to 16 bytes is its own key. A longer one is found by a hash, and its bytes are then
compared, so that no collision can give one chunk the tokens of another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tamis.filters.text.bitmap import load8, low_bytes
from tamis.kernel import kernel

ARENA = 15
FRAGILE = np.uint64(1 << 42)
LONGEST_CHUNK = 1024
"""Bytes; longer chunks are split anew every time."""
INLINE_TOKENS = 6
INLINE_BYTES = 63
HEADER = 5
"""Numbers in front of the token lengths in the arena: n, and the four numbers of bits 34-41."""

_ZERO = np.uint64(0)
_ROW = 4
_ODD0 = np.uint64(0x9E3779B97F4A7C15)
_ODD1 = np.uint64(0xC2B2AE3D27D4EB4F)
_ODD2 = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_ARENA_MASK = np.uint64(((1 << 30) - 1) << 4)
_SIZE_SHIFT = np.uint64(43)
_SIZE_MASK = np.uint64((1 << 11) - 1)
_FOUR = np.uint64(4)
_LOW = np.uint64(15)


class ChunkTable(NamedTuple):
    """``rows`` holds (key, key, code, hash) a chunk, open addressing, a code of 0 is a free row."""

    rows: NDArray[np.uint64]
    """Shape (4 * a power of two,)."""
    text: NDArray[np.uint8]
    """The bytes of chunks longer than 16; the second key is the place."""
    lengths: NDArray[np.int32]
    """The tokens of chunks that have too many, or too long ones, for a code."""
    used: int


def empty_table() -> ChunkTable:
    """A table without chunks."""
    return ChunkTable(
        np.zeros(64 * _ROW, np.uint64), np.zeros(8, np.uint8), np.zeros(1, np.int32), 0
    )


@njit(inline="always", nogil=True)
def code_size(code: Any) -> Any:
    """The bytes of the chunk."""
    return np.int64((code >> _SIZE_SHIFT) & _SIZE_MASK)


@njit(inline="always", nogil=True)
def _mix(value: Any) -> Any:
    value = (value ^ (value >> _HALF)) * _ODD2
    return (value ^ (value >> _HALF)) * _ODD2


@kernel
def chunk_key(data: NDArray[np.uint8], start: int, size: int) -> Any:
    """(key, key, hash) of a chunk; the second key of a long chunk is left 0."""
    first = load8(data, start) & low_bytes(min(size, 8))
    if size <= 8:
        hashed = _mix(first * _ODD0 + np.uint64(size))
        return first, _ZERO, hashed
    if size <= 16:
        second = load8(data, start + 8) & low_bytes(size - 8)
        hashed = _mix(_mix(first * _ODD0 + np.uint64(size)) + second * _ODD1)
        return first, second, hashed
    hashed = np.uint64(size) * _ODD0
    for at in range(0, size, 8):
        block = load8(data, start + at) & low_bytes(min(size - at, 8))
        hashed = _mix(hashed + block * _ODD1)
    return hashed, _ZERO, hashed


@kernel
def same_bytes(
    one: NDArray[np.uint8], at_one: Any, two: NDArray[np.uint8], at_two: Any, size: Any
) -> bool:
    """Whether two spans of ``size`` bytes are equal."""
    at = 0
    while at < size and one[at_one + at] == two[at_two + at]:
        at += 1
    return bool(at == size)


@kernel
def find(
    rows: NDArray[np.uint64],
    text: NDArray[np.uint8],
    data: NDArray[np.uint8],
    start: Any,
    size: Any,
    key: Any,
) -> Any:
    """The code of a chunk whose ``chunk_key`` is given, or 0."""
    first, second, hashed = key
    mask = np.int64(rows.size // _ROW - 1)
    slot = np.int64(hashed >> np.uint64(8)) & mask
    while True:
        row = slot * _ROW
        code = rows[row + 2]
        if code == _ZERO:
            return _ZERO
        if rows[row] == first and code_size(code) == size:
            if size <= 16:
                if rows[row + 1] == second:
                    return code
            elif same_bytes(text, np.int64(rows[row + 1]), data, start, size):
                return code
        slot = (slot + 1) & mask


@kernel
def look_up(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    table: ChunkTable,
    recent: ChunkTable,
    codes: NDArray[np.uint64],
) -> int:
    """The codes of all chunks, from ``table`` or else from ``recent``, or 0; returns how many are
    0."""
    unknown = 0
    for chunk in range(start.size):
        size = end[chunk] - start[chunk]
        code = _ZERO
        if size <= LONGEST_CHUNK:
            key = chunk_key(data, start[chunk], size)
            code = find(table.rows, table.text, data, start[chunk], size, key)
            if code == _ZERO:
                code = find(recent.rows, recent.text, data, start[chunk], size, key)
                if code != _ZERO:
                    code |= np.uint64(1 << 62)
        if code == _ZERO:
            unknown += 1
        codes[chunk] = code
    return unknown


@kernel
def _insert(rows: NDArray[np.uint64], first: Any, second: Any, code: Any, hashed: Any) -> int:
    """Put a row where it belongs; 0 if its key (for a long chunk: its hash and size) is there
    already."""
    size = code_size(code)
    mask = np.int64(rows.size // _ROW - 1)
    slot = np.int64(hashed >> np.uint64(8)) & mask
    while rows[slot * _ROW + 2] != _ZERO:
        row = slot * _ROW
        known = rows[row] == first and code_size(rows[row + 2]) == size
        if known and (size > 16 or rows[row + 1] == second):
            return 0
        slot = (slot + 1) & mask
    rows[slot * _ROW] = first
    rows[slot * _ROW + 1] = second
    rows[slot * _ROW + 2] = code
    rows[slot * _ROW + 3] = hashed
    return 1


@kernel
def _copy_rows(
    source: NDArray[np.uint64], rows: NDArray[np.uint64], text_shift: int, lengths_shift: int
) -> int:
    """Insert the rows of one table into another whose text and lengths it is appended to; returns
    how many were new."""
    added = 0
    for row in range(0, source.size, _ROW):
        code = source[row + 2]
        if code == _ZERO:
            continue
        second = source[row + 1]
        if code_size(code) > 16:
            second += np.uint64(text_shift)
        if code & _LOW == np.uint64(ARENA):
            code += np.uint64(lengths_shift) << _FOUR
        added += _insert(rows, source[row], second, code, source[row + 3])
    return added


def merged(table: ChunkTable, more: ChunkTable) -> ChunkTable:
    """A new table with the chunks of both; at most half of its rows are used."""
    capacity = len(table.rows) // _ROW
    if 2 * (table.used + more.used) <= capacity:
        rows = table.rows.copy()
        used = table.used
    else:
        while capacity < 2 * (table.used + more.used):
            capacity *= 2
        rows = np.zeros(capacity * _ROW, np.uint64)
        used = int(_copy_rows(table.rows, rows, 0, 0))
    used += int(_copy_rows(more.rows, rows, len(table.text), len(table.lengths)))
    return ChunkTable(
        rows,
        np.concatenate([table.text, more.text]),
        np.concatenate([table.lengths, more.lengths]),
        used,
    )


@kernel
def _fill(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    codes: NDArray[np.uint64],
    rows: NDArray[np.uint64],
    text: NDArray[np.uint8],
) -> int:
    used = 0
    at = 0
    for chunk in range(start.size):
        size = end[chunk] - start[chunk]
        first, second, hashed = chunk_key(data, start[chunk], size)
        if size > 16:
            second = np.uint64(at)
            for k in range(start[chunk], end[chunk]):
                text[at] = data[k]
                at += 1
        used += _insert(rows, first, second, codes[chunk], hashed)
    return used


def table_of(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    codes: NDArray[np.uint64],
    lengths: NDArray[np.int32],
) -> ChunkTable:
    """A table of the chunks ``data[start:end]`` (of at most LONGEST_CHUNK bytes), whose codes point
    into ``lengths``."""
    sizes = end - start
    capacity = 64
    while capacity < 2 * len(start):
        capacity *= 2
    rows = np.zeros(capacity * _ROW, np.uint64)
    text = np.zeros(int(sizes[sizes > 16].sum()) + 8, np.uint8)
    used = int(_fill(data, start, end, codes, rows, text))
    return ChunkTable(rows, text, lengths, used)


@kernel
def distinct(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    chosen: NDArray[np.int64],
    slots: NDArray[np.int64],
    which: NDArray[np.int64],
    first_of: NDArray[np.int64],
) -> int:
    """Number the different chunks among ``chosen``: chunk ``chosen[j]`` has the number
    ``which[j]``, and number u is first seen as chunk ``first_of[u]``. ``slots`` (a power of two,
    all -1) is scratch. Returns how many there are."""
    count = 0
    mask = np.int64(slots.size - 1)
    for j in range(chosen.size):
        chunk = chosen[j]
        size = end[chunk] - start[chunk]
        _, _, hashed = chunk_key(data, start[chunk], size)
        slot = np.int64(hashed >> np.uint64(8)) & mask
        while slots[slot] >= 0:
            other = first_of[slots[slot]]
            if end[other] - start[other] == size and same_bytes(
                data, start[other], data, start[chunk], size
            ):
                break
            slot = (slot + 1) & mask
        if slots[slot] < 0:
            slots[slot] = count
            first_of[count] = chunk
            count += 1
        which[j] = slots[slot]
    return count


@kernel
def token_counts(
    first: NDArray[np.int64],
    codes: NDArray[np.uint64],
    lengths: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
    counts: NDArray[np.int64],
) -> None:
    """The tokens of every document: ``counts[i]`` of the chunks ``first[i]:first[i + 1]``."""
    for doc in range(counts.size):
        total = np.int64(0)
        for chunk in range(first[doc], first[doc + 1]):
            code = codes[chunk]
            tokens = np.int64(code & _LOW)
            if tokens == ARENA:
                place = np.int64((code & _ARENA_MASK) >> _FOUR)
                tokens = np.int64(arena(lengths, code)[place])
            total += tokens
        counts[doc] = total


@njit(inline="always", nogil=True)
def arena(lengths: Any, code: Any) -> Any:
    """The lengths that the code points into."""
    table = code >> np.uint64(62)
    return lengths[0] if table == _ZERO else lengths[1] if table == np.uint64(1) else lengths[2]


@njit(inline="always", nogil=True)
def arena_place(code: Any) -> Any:
    """Where in its arena the code points."""
    return np.int64((code & _ARENA_MASK) >> _FOUR)


@kernel
def token_spans(
    chunk_start: NDArray[np.int64],
    chunk_end: NDArray[np.int64],
    codes: NDArray[np.uint64],
    lengths: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> None:
    """The spans of the tokens of all chunks, one after the other."""
    at = 0
    for chunk in range(codes.size):
        code = codes[chunk]
        tokens = np.int64(code & _LOW)
        place = chunk_start[chunk]
        if tokens == ARENA:
            record = arena(lengths, code)
            begin = arena_place(code)
            for k in range(begin + HEADER, begin + HEADER + record[begin]):
                start[at] = place
                place += record[k]
                end[at] = place
                at += 1
            continue
        code >>= _FOUR
        for _ in range(tokens - 1):
            start[at] = place
            place += np.int64(code & np.uint64(63))
            end[at] = place
            code >>= np.uint64(6)
            at += 1
        start[at] = place
        end[at] = chunk_end[chunk]
        at += 1


@njit(inline="always", nogil=True)
def sentence_step(lengths: Any, code: Any, ended: int) -> Any:
    """(sentences that begin in the chunk, whether one has ended behind it), given whether one has
    ended before it."""
    if np.int64(code & _LOW) == ARENA:
        record = arena(lengths, code)
        place = arena_place(code) + 1 + 2 * ended
        return np.int64(record[place]), np.int64(record[place + 1])
    step = np.int64(code >> np.uint64(34 + 4 * ended))
    return step & 7, (step >> 3) & 1


@kernel
def encode(
    first: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    ends_sentence: NDArray[np.uint8],
    punctuation: NDArray[np.uint8],
    fragile: NDArray[np.uint8],
    base: int,
    codes: NDArray[np.uint64],
    lengths: NDArray[np.int32],
) -> int:
    """The codes of chunks whose tokens are ``start[j]:end[j]``, j in ``first[i]:first[i + 1]``;
    what does not fit goes into ``lengths``, which will lie behind ``base`` other numbers. Returns
    how many of ``lengths`` were written."""
    filled = 0
    for chunk in range(codes.size):
        low, high = first[chunk], first[chunk + 1]
        count = high - low
        fits = count <= INLINE_TOKENS
        packed = _ZERO
        for j in range(low, high - 1):
            fits = fits and end[j] - start[j] <= INLINE_BYTES
            if fits:
                packed |= np.uint64(end[j] - start[j]) << np.uint64(4 + 6 * (j - low))
        begun0, after0 = _sentences_of(ends_sentence, punctuation, low, high, 0)
        begun1, after1 = _sentences_of(ends_sentence, punctuation, low, high, 1)
        if fits:
            packed |= np.uint64(count)
            steps = begun0 | (after0 << 3) | (begun1 << 4) | (after1 << 7)
            packed |= np.uint64(steps) << np.uint64(34)
        else:
            packed = np.uint64(ARENA) | (np.uint64(base + filled) << _FOUR)
            lengths[filled] = count
            lengths[filled + 1], lengths[filled + 2] = begun0, after0
            lengths[filled + 3], lengths[filled + 4] = begun1, after1
            for j in range(low, high):
                lengths[filled + HEADER + j - low] = end[j] - start[j]
            filled += HEADER + count
        size = min(end[high - 1] - start[low], LONGEST_CHUNK + 1)
        packed |= np.uint64(size) << _SIZE_SHIFT
        if fragile[chunk]:
            packed |= FRAGILE
        codes[chunk] = packed
    return filled


@kernel
def _sentences_of(
    ends_sentence: NDArray[np.uint8],
    punctuation: NDArray[np.uint8],
    low: int,
    high: int,
    ended: int,
) -> Any:
    """spaCy's Sentencizer over the tokens ``low:high``: (sentences that begin, whether one has
    ended)."""
    begun = 0
    for j in range(low, high):
        if ends_sentence[j]:
            ended = 1
        elif ended and not punctuation[j]:
            begun += 1
            ended = 0
    return begun, ended
