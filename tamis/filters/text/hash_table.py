"""A small hash set of 64-bit keys: what the kernels find repeats within one document with.

A table serves document after document. Of a large one a small document uses the beginning only,
which stays in the first-level cache and takes next to no time to clear. Most of the time goes into
keys that meet another one in their place, so a table has room to spare: at most a quarter of it is
filled, half of it for long documents, whose tables would be large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tamis.filters.text.bitmap import UInt64s
from tamis.kernel import kernel

_SPREAD = np.uint64(0xA0761D6478BD642F)
_BITS = np.uint64(64)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_SMALLEST = 5
_LONG = 1 << 14


@kernel
def _table_bits(items: Any) -> Any:
    bits = _SMALLEST
    while (1 << bits) < (2 * items if items >= _LONG else min(4 * items, 2 * _LONG)):
        bits += 1
    return bits


def table_size(items: int) -> int:
    """Entries of a table for documents of at most so many items: a power of two."""
    return 1 << int(_table_bits(items))


@kernel
def table_shift(items: Any) -> Any:
    """What a spread key is shifted by to give an entry, for a document of so many items."""
    return np.uint64(64 - _table_bits(items))


@kernel
def clear(table: UInt64s, shift: Any) -> None:
    """Empty the part of the table that a document uses."""
    table[: np.int64(_ONE << (_BITS - shift))] = _ZERO


@njit(nogil=True)
def find_or_insert(table: UInt64s, shift: Any, key: Any) -> Any:
    """The key's entry, and ``~entry`` when it was not there before; it is from now on.

    Entries are unsigned, which spares the kernel the question whether an index is negative.
    """
    mask = (_ONE << (_BITS - shift)) - _ONE
    key |= np.uint64(key == _ZERO)
    entry = (key * _SPREAD) >> shift
    while True:
        kept = table[entry]
        if kept == _ZERO:
            table[entry] = key
            return ~np.int64(entry)
        if kept == key:
            return np.int64(entry)
        entry = (entry + _ONE) & mask
