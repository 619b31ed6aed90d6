"""The first look at the text of a batch: where there is white space, where lines end, how many
characters there are.

White space is what ``str.isspace`` says: U+0009-000D, 001C-0020, 0085, 00A0, 1680, 2000-200A, 2028,
2029, 202F, 205F and 3000.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.filters.text.bitmap import (
    Bools,
    Int64s,
    UInt8s,
    UInt64s,
    pack,
    population,
    text_arrays,
    trailing_zeros,
)
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents

_CHUNK = 4096
_ONE = np.uint64(1)
_TOP_BIT = np.uint64(63)
_ZERO = np.uint64(0)


class Scan(NamedTuple):
    """Bit ``64 * block[i] + k`` of a bitmap belongs to byte ``offsets[i] + k`` of document i; bits
    behind its end are 0.
    """

    block: NDArray[np.int64]
    """First 64-bit word of each document (n_docs + 1)."""
    solid: NDArray[np.uint64]
    """1 for the bytes of characters that are no white space."""
    newline: NDArray[np.uint64]
    """1 for U+000A."""
    words: NDArray[np.int64]
    """Runs of solid characters in each document: ``len(text.split())``."""
    characters: NDArray[np.int64]
    """Code points in each document: ``len(text)``."""
    newlines: NDArray[np.int64]
    """``text.count("\\n")``."""


def scan(documents: Documents) -> Scan:
    """Bitmaps and counts of the documents that are alive (0 for the others); once a batch.

    A document may cease to be alive afterwards, but one that is not now must not be later.
    """
    return documents.memo("text.scan", lambda: _scan(documents))


def _scan(documents: Documents) -> Scan:
    data, offsets, alive = text_arrays(documents)
    count = len(documents)
    block = np.zeros(count + 1, np.int64)
    np.cumsum(np.where(alive, (np.diff(offsets) + 63) >> 6, 0), out=block[1:])
    solid = np.empty(block[-1], np.uint64)
    newline = np.empty(block[-1], np.uint64)
    words, characters, newlines = (np.zeros(count, np.int64) for _ in range(3))
    _scan_text(data, offsets, alive, block, solid, newline, words, characters, newlines)
    return Scan(block, solid, newline, words, characters, newlines)


@kernel
def _ascii_masks(text: UInt8s, solid: UInt8s, newline: UInt8s) -> Any:
    """0/1 masks of a piece of text, taking ASCII white space only; returns the code points."""
    started = 0
    for i in range(text.size):
        byte = text[i]
        started += (byte & np.uint8(0xC0)) != np.uint8(0x80)
        space = (np.uint8(byte - np.uint8(9)) < np.uint8(5)) | (
            np.uint8(byte - np.uint8(28)) < np.uint8(5)
        )
        solid[i] = np.uint8(not space)
        newline[i] = np.uint8(byte == np.uint8(10))
    return started


@kernel
def _space_width(data: UInt8s, at: Any, end: Any) -> Any:
    """The bytes of the white space character above U+007F that begins at ``at``, or 0."""
    lead = data[at]
    second = data[at + 1]
    if lead == 0xC2:
        return 2 if at + 2 <= end and (second == 0x85 or second == 0xA0) else 0
    if at + 3 > end:
        return 0
    third = data[at + 2]
    if lead == 0xE2 and second == 0x80:
        return 3 if third <= 0x8A or 0xA8 <= third <= 0xA9 or third == 0xAF else 0
    if lead == 0xE2 and second == 0x81:
        return 3 if third == 0x9F else 0
    if lead == 0xE3:
        return 3 if second == 0x80 and third == 0x80 else 0
    return 3 if lead == 0xE1 and second == 0x9A and third == 0x80 else 0


@kernel
def _clear_wide_spaces(
    data: UInt8s,
    begin: Any,
    chunk: Any,
    end: Any,
    mask: UInt8s,
    bits: UInt64s,
    solid: UInt64s,
) -> None:
    """Clear the bits of white space that is not ASCII and begins in the chunk; only four bytes can
    begin one.
    """
    text = data[chunk : min(chunk + mask.size, end)]
    for i in range(text.size):
        byte = text[i]
        mask[i] = np.uint8(
            (byte == np.uint8(0xC2)) | (np.uint8(byte - np.uint8(0xE1)) < np.uint8(3))
        )
    mask[text.size :] = 0
    pack(mask, bits)
    for word in range((text.size + 63) >> 6):
        left = bits[word]
        while left != _ZERO:
            at = chunk + word * 64 + trailing_zeros(left)
            left &= left - _ONE
            for k in range(at - begin, at - begin + _space_width(data, at, end)):
                solid[k >> 6] &= ~(_ONE << np.uint64(k & 63))


@kernel
def _count_words(solid: UInt64s) -> Any:
    """The number of runs of one bits."""
    runs = 0
    before = _ZERO
    for i in range(solid.size):
        runs += population(solid[i] & ~((solid[i] << _ONE) | before))
        before = solid[i] >> _TOP_BIT
    return runs


@kernel
def _scan_text(
    data: UInt8s,
    offsets: Int64s,
    alive: Bools,
    block: Int64s,
    solid: UInt64s,
    newline: UInt64s,
    words: Int64s,
    characters: Int64s,
    newlines: Int64s,
) -> None:
    solid_mask = np.zeros(_CHUNK, np.uint8)
    newline_mask = np.zeros(_CHUNK, np.uint8)
    bits = np.zeros(_CHUNK // 64, np.uint64)
    for doc in range(alive.size):
        if not alive[doc]:
            continue
        begin, end = offsets[doc], offsets[doc + 1]
        mine = solid[block[doc] : block[doc + 1]]
        breaks = newline[block[doc] : block[doc + 1]]
        for chunk in range(begin, end, _CHUNK):
            text = data[chunk : min(chunk + _CHUNK, end)]
            size = text.size
            characters[doc] += _ascii_masks(text, solid_mask[:size], newline_mask[:size])
            filled = ((size + 63) >> 6) << 6
            solid_mask[size:filled] = 0
            newline_mask[size:filled] = 0
            here = (chunk - begin) >> 6
            pack(solid_mask[:filled], mine[here : here + (filled >> 6)])
            pack(newline_mask[:filled], breaks[here : here + (filled >> 6)])
        if characters[doc] < end - begin:
            for chunk in range(begin, end, _CHUNK):
                _clear_wide_spaces(data, begin, chunk, end, solid_mask, bits, mine)
        words[doc] = _count_words(mine)
        for i in range(breaks.size):
            newlines[doc] += population(breaks[i])
