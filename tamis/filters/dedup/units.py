"""Paragraphs and lines as units of deduplication: where they are, and their 128-bit hashes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.filters.dedup.types import Int64, UInt8, UInt64
from tamis.filters.text.bitmap import (
    empty,
    last_bit,
    load8,
    low_bytes,
    next_bit,
    population,
    text_arrays,
)
from tamis.filters.text.lines import lines
from tamis.filters.text.scan import scan
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents

Unit = Literal["paragraph", "line"]
Bools = NDArray[np.bool_]

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_FINISH_1 = np.uint64(0xFF51AFD7ED558CCD)
_FINISH_2 = np.uint64(0xC4CEB9FE1A85EC53)
_ADD_1 = np.uint64(0x52DCE729)
_ADD_2 = np.uint64(0x38495AB5)
_FIVE = np.uint64(5)
_SHIFT = np.uint64(33)
_ONE = np.uint64(1)
_HIGH_BITS = np.uint64(0x8080808080808080)


class Units(NamedTuple):
    """The units of document i are ``first[i]:first[i + 1]``.

    Unit j is ``data[start[j]:end[j]]``; what lies between two units is white space and line breaks.
    """

    first: Int64
    start: Int64
    """The beginning of a line."""
    solid: Int64
    """The first byte that is no white space, or ``end`` of a blank line."""
    end: Int64
    """Behind the last byte that is no white space; of a blank line, the end of the line."""
    counted: Bools
    """Whether it is long enough to be compared with others."""

    def counts(self) -> Int64:
        """The units of each document that are long enough."""
        counts = np.zeros(len(self.first) - 1, np.int64)
        _count_units(self.first, self.counted, counts)
        return counts


def units(documents: Documents, unit: Unit, min_characters: int) -> Units:
    """The paragraphs or lines of the documents that are alive.

    A line ends at a newline (U+000A); every line is a unit, but a blank one never counts. A
    paragraph is a run of lines that are not blank. A unit of fewer characters (code points without
    the white space around it) than ``min_characters``, at least 1, does not count.
    """
    data, offsets, _ = text_arrays(documents)
    seen, split = scan(documents), lines(documents)
    first = np.zeros(len(documents) + 1, np.int64)
    start, solid, end = (empty(len(split.start), np.int64) for _ in range(3))
    _find_units(
        offsets, seen.block, seen.solid, *split, unit == "paragraph", first, start, solid, end
    )
    start, solid, end = (array[: first[-1]] for array in (start, solid, end))
    counted = empty(int(first[-1]), np.bool_)
    _count_long(data, solid, end, min_characters, counted)
    return Units(first, start, solid, end, counted)


def unit_hashes(documents: Documents, found: Units) -> UInt64:
    """MurmurHash3_x64_128 (seed 0) of every unit that counts, without the white space around it:
    (n, 2).
    """
    data, _, _ = text_arrays(documents)
    hashes = empty(2 * int(np.count_nonzero(found.counted)), np.uint64).reshape(-1, 2)
    _hash_units(data, found.solid, found.end, found.counted, hashes)
    return hashes


@kernel
def _find_units(
    offsets: Int64,
    block: Int64,
    solid_bits: UInt64,
    line_first: Int64,
    line_start: Int64,
    line_end: Int64,
    paragraphs: bool,
    first: Int64,
    start: Int64,
    solid: Int64,
    end: Int64,
) -> None:
    found = 0
    for doc in range(first.size - 1):
        base = offsets[doc]
        bits = solid_bits[block[doc] : block[doc + 1]]
        opened = False
        for line in range(line_first[doc], line_first[doc + 1]):
            high = line_end[line] - base
            low = next_bit(bits, line_start[line] - base, high)
            if paragraphs and low == high:
                opened = False
                continue
            if not (paragraphs and opened):
                start[found], solid[found] = line_start[line], base + low
                found += 1
                opened = True
            end[found - 1] = base + last_bit(bits, low, high)
        first[doc + 1] = found


@kernel
def _count_long(data: UInt8, solid: Int64, end: Int64, least: int, counted: Bools) -> None:
    """Characters are counted until there are enough."""
    for unit in range(solid.size):
        at, missing = solid[unit], least
        while at < end[unit] and missing > 0:
            size = min(end[unit] - at, 8)
            block = load8(data, at) & low_bytes(size)
            # The second and further bytes of a character: the highest bit set, the next one not.
            missing -= size - population(block & ~(block << _ONE) & _HIGH_BITS)
            at += 8
        counted[unit] = missing <= 0


@kernel
def _count_units(first: Int64, counted: Bools, counts: Int64) -> None:
    for doc in range(counts.size):
        for unit in range(first[doc], first[doc + 1]):
            counts[doc] += counted[unit]


@kernel
def _hash_units(data: UInt8, solid: Int64, end: Int64, counted: Bools, hashes: UInt64) -> None:
    place = 0
    for unit in range(solid.size):
        if counted[unit]:
            hashes[place, 0], hashes[place, 1] = murmur3_128(
                data, solid[unit], end[unit], np.uint64(0)
            )
            place += 1


@kernel
def _rotate(word: Any, bits: Any) -> Any:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@kernel
def _finish(word: Any) -> Any:
    word = (word ^ (word >> _SHIFT)) * _FINISH_1
    word = (word ^ (word >> _SHIFT)) * _FINISH_2
    return word ^ (word >> _SHIFT)


@kernel
def murmur3_128(data: UInt8, start: Any, end: Any, seed: Any) -> Any:
    """MurmurHash3_x64_128 of ``data[start:end]`` as two 64-bit words (Appleby 2011,
    github.com/aappleby/smhasher).
    """
    h1 = h2 = seed
    whole = start + ((end - start) & ~15)
    for at in range(start, whole, 16):
        h1 ^= _rotate(load8(data, at) * _C1, 31) * _C2
        h1 = (_rotate(h1, 27) + h2) * _FIVE + _ADD_1
        h2 ^= _rotate(load8(data, at + 8) * _C2, 33) * _C1
        h2 = (_rotate(h2, 31) + h1) * _FIVE + _ADD_2
    rest = end - whole
    if rest > 8:
        block = load8(data, whole + 8) & low_bytes(rest - 8)
        h2 ^= _rotate(block * _C2, 33) * _C1
    if rest > 0:
        block = load8(data, whole) & low_bytes(min(rest, 8))
        h1 ^= _rotate(block * _C1, 31) * _C2
    length = np.uint64(end - start)
    h1 ^= length
    h2 ^= length
    h1 += h2
    h2 += h1
    h1, h2 = _finish(h1), _finish(h2)
    h1 += h2
    return h1, h2 + h1
