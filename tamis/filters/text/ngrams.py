"""Repeated word n-grams of a document, by the definitions of the Gopher paper's rules.

Keys of n-grams are 64-bit: with the word hashes of ``Words`` the hash of joined words comes from two prefix sums. Two n-grams are
equal when their keys are (in a document of a thousand words, a wrong repeat has a chance of 3e-14 for each n).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tamis.filters.text.hash_table import find_slot, insert, table_shift, table_size
from tamis.filters.text.words import HASH_BASE, Words

_INVERSE = np.uint64(pow(int(HASH_BASE), -1, 2**64))
_STEP = np.uint64(0xC2B2AE3D27D4EB4F)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)


def top_ngrams(words: Words, sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """``count * len(" ".join(ngram))`` in code points of the most common n-gram (of several, the one that comes first).

    Shape (documents, sizes); -1 where a document has fewer than n words. A count of 1 also counts.
    """
    found = np.full((len(words.first) - 1, len(sizes)), -1, np.int64)
    most = int(np.diff(words.first).max(initial=0))
    table = np.zeros(2 * table_size(most), np.uint64)
    count, characters = np.empty(most + 1, np.int64), np.empty(most + 1, np.int64)
    of = np.array(sizes, np.int64)
    _find_top(words.first, words.hash, words.length, of, table, count, characters, found)
    return found


def duplicated_ngrams(words: Words, sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Code points in n-grams that have occurred before, counted greedily; shape (documents, sizes).

    From left to right, an n-gram that was seen counts with its length (no spaces) and the next n words are passed over;
    any other is remembered. Two n-grams are the same when their words joined without a space are.
    """
    found = np.zeros((len(words.first) - 1, len(sizes)), np.int64)
    most = int(np.diff(words.first).max(initial=0))
    table = np.zeros(2 * table_size(most), np.uint64)
    sums, inverse = np.empty(most + 1, np.uint64), np.empty(most + 1, np.uint64)
    characters = np.empty(most + 1, np.int64)
    of = np.array(sizes, np.int64)
    _find_duplicated(*words, of, table, sums, inverse, characters, found)
    return found


@njit(cache=True, nogil=True)
def _top_ngram(
    hashes: NDArray[np.uint64],
    n: int,
    generation: int,
    table: NDArray[np.uint64],
    count: NDArray[np.int64],
    shift: Any,
) -> Any:
    """(count, index) of the most common n-gram of a document, the first of several."""
    best, best_at = 1, 0
    for at in range(hashes.size - n + 1):
        key = hashes[at]
        for word in range(at + 1, at + n):
            key = key * _STEP + hashes[word]
        slot = find_slot(table, shift, generation, key)
        if slot < 0:
            insert(table, ~slot, generation, key, at)
            count[at] = 1
            continue
        earliest = np.int64(table[slot + 1] & _LOW)
        count[earliest] += 1
        if count[earliest] > best or (count[earliest] == best and earliest < best_at):
            best, best_at = count[earliest], earliest
    return best, best_at


@njit(cache=True, nogil=True)
def _find_top(
    first: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    length: NDArray[np.int32],
    sizes: NDArray[np.int64],
    table: NDArray[np.uint64],
    count: NDArray[np.int64],
    characters: NDArray[np.int64],
    found: NDArray[np.int64],
) -> None:
    generation = 0
    for doc in range(first.size - 1):
        begin, end = first[doc], first[doc + 1]
        shift = table_shift(end - begin)
        for column in range(sizes.size):
            n = sizes[column]
            if end - begin < n:
                continue
            generation += 1
            best, at = _top_ngram(hashes[begin:end], n, generation, table, count, shift)
            joined = n - 1
            for word in range(begin + at, begin + at + n):
                joined += length[word]
            found[doc, column] = best * joined


@njit(cache=True, nogil=True)
def _power(base: Any, exponent: int) -> Any:
    """``base ** exponent`` mod 2^64."""
    result = _ONE
    while exponent > 0:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


@njit(cache=True, nogil=True)
def _greedy(
    n: int,
    generation: int,
    table: NDArray[np.uint64],
    sums: NDArray[np.uint64],
    inverse: NDArray[np.uint64],
    characters: NDArray[np.int64],
    shift: Any,
) -> int:
    """Code points of the duplicated n-grams of a document, given its prefix sums."""
    repeated = 0
    at = 0
    while at + n < sums.size:
        key = (sums[at + n] - sums[at]) * inverse[at]
        slot = find_slot(table, shift, generation, key)
        if slot < 0:
            insert(table, ~slot, generation, key, 0)
            at += 1
        else:
            repeated += characters[at + n] - characters[at]
            at += n
    return repeated


@njit(cache=True, nogil=True)
def _find_duplicated(
    first: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    length: NDArray[np.int32],
    flags: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    table: NDArray[np.uint64],
    sums: NDArray[np.uint64],
    inverse: NDArray[np.uint64],
    characters: NDArray[np.int64],
    found: NDArray[np.int64],
) -> None:
    """``sums[i]`` is the hash of the first i words joined, ``inverse[i]`` is B to minus the number of their bytes."""
    powers, back = np.empty(64, np.uint64), np.empty(64, np.uint64)
    for k in range(64):
        powers[k], back[k] = _power(HASH_BASE, k), _power(_INVERSE, k)
    generation = 0
    for doc in range(first.size - 1):
        count = first[doc + 1] - first[doc]
        sums[0], inverse[0], characters[0] = _ZERO, _ONE, 0
        power = _ONE
        for k in range(count):
            word = first[doc] + k
            size = end[word] - start[word]
            sums[k + 1] = sums[k] + power * hashes[word]
            characters[k + 1] = characters[k] + length[word]
            power *= powers[size] if size < 64 else _power(HASH_BASE, size)
            inverse[k + 1] = inverse[k] * (back[size] if size < 64 else _power(_INVERSE, size))
        shift = table_shift(count)
        for column in range(sizes.size):
            generation += 1
            found[doc, column] = _greedy(
                sizes[column], generation, table, sums[: count + 1], inverse, characters, shift
            )
