"""A hash set that is emptied in no time: what the kernels use to find repeats within one document.

``table`` holds entries of two uint64: the key, and ``generation << 32 | value``. An entry of
another generation than the present one is free, so a table serves document after document without
being cleared. Of a large table a small document uses the beginning only, which stays in the
first-level cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tamis.filters.text.bitmap import UInt64s

_SPREAD = np.uint64(0xA0761D6478BD642F)
_HALF = np.uint64(32)
_SMALLEST = 5


def table_size(items: int) -> int:
    """Entries of a table for so many items: a power of two, at most half full."""
    return 1 << max(_SMALLEST, (2 * max(items, 1) - 1).bit_length())


@njit(cache=True, nogil=True)
def table_shift(items: Any) -> Any:
    """What a spread key is shifted by to give an entry, for a document of so many items."""
    bits = _SMALLEST
    while (1 << bits) < 2 * items:
        bits += 1
    return np.uint64(64 - bits)


@njit(inline="always", nogil=True)
def find_slot(table: UInt64s, shift: Any, generation: Any, key: Any) -> Any:
    """The index in ``table`` of the key's entry; ``~index`` of the free entry where it belongs when
    there is none.
    """
    mask = (np.int64(1) << np.int64(np.uint64(64) - shift)) - 1
    entry = np.int64((key * _SPREAD) >> shift)
    while np.int64(table[2 * entry + 1] >> _HALF) == generation:
        if table[2 * entry] == key:
            return 2 * entry
        entry = (entry + 1) & mask
    return ~(2 * entry)


@njit(inline="always", nogil=True)
def insert(table: UInt64s, slot: Any, generation: Any, key: Any, value: Any) -> None:
    """Fill a free entry; the value is below 2^32."""
    table[slot] = key
    table[slot + 1] = (np.uint64(generation) << _HALF) | np.uint64(value)
