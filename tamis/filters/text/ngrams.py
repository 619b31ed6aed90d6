"""Repeated word n-grams of a document, by the definitions of the Gopher paper's rules.

Keys of n-grams are 64-bit: with the word hashes of ``Words`` the hash of joined words comes from
two prefix sums. Two n-grams are equal when their keys are (in a document of a thousand words, a
wrong repeat has a chance of 3e-14 for each n).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tamis.filters.text.bitmap import Int32s, Int64s, UInt64s
from tamis.filters.text.hash_table import clear, find_or_insert, table_shift, table_size
from tamis.filters.text.words import HASH_BASE, Words
from tamis.kernel import kernel

_INVERSE = np.uint64(pow(int(HASH_BASE), -1, 2**64))
_STEP = np.uint64(0xC2B2AE3D27D4EB4F)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)


class TopNgrams(NamedTuple):
    """The most common n-gram of each document; both of shape (documents, sizes)."""

    occurrences: NDArray[np.int64]
    """How often it occurs; 0 where a document has fewer than n words."""
    characters: NDArray[np.int64]
    """The code points of its words, without spaces."""


def top_ngrams(words: Words, sizes: tuple[int, ...], longest: bool = False) -> TopNgrams:
    """The most common n-gram for each n; of several the one that comes first, or the longest."""
    shape = (len(words.first) - 1, len(sizes))
    found = TopNgrams(np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    most = int(np.diff(words.first).max(initial=0))
    table = np.empty(table_size(most), np.uint64)
    earliest = np.empty(len(table), np.int64)
    scratch = earliest, np.empty(most + 1, np.int64), np.empty(most + 1, np.int64)
    of = np.array(sizes, np.int64)
    _find_top(words.first, words.hash, words.length, of, longest, table, *scratch, *found)
    return found


def duplicated_ngrams(words: Words, sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Code points in n-grams that have occurred before, counted greedily; shape (documents, sizes).

    From left to right, an n-gram that was seen counts with its length (no spaces) and the next n
    words are passed over; any other is remembered. Two n-grams are the same when their words joined
    without a space are.
    """
    found = np.zeros((len(words.first) - 1, len(sizes)), np.int64)
    most = int(np.diff(words.first).max(initial=0))
    table = np.empty(table_size(most), np.uint64)
    sums, inverse = np.empty(most + 1, np.uint64), np.empty(most + 1, np.uint64)
    characters = np.empty(most + 1, np.int64)
    of = np.array(sizes, np.int64)
    spans = words.first, words.start, words.end, words.length, words.hash
    _find_duplicated(*spans, of, table, sums, inverse, characters, found)
    return found


class RepeatedNgrams(NamedTuple):
    """Code points in n-grams of which a document has more than one; each of shape (documents,
    sizes).
    """

    occurrences: NDArray[np.int64]
    """The lengths of all occurrences of those n-grams, added; where they overlap a word counts more
    than once.
    """
    total: NDArray[np.int64]
    """The lengths of all n-grams, added."""
    covered: NDArray[np.int64]
    """The lengths of the words that lie in any of those occurrences; each word counts once."""


def repeated_ngrams(words: Words, sizes: tuple[int, ...]) -> RepeatedNgrams:
    """All occurrences of the n-grams that occur more than once (same words, not only same
    characters).
    """
    shape = (len(words.first) - 1, len(sizes))
    found = RepeatedNgrams(*(np.zeros(shape, np.int64) for _ in range(3)))
    most = int(np.diff(words.first).max(initial=0))
    table = np.empty(table_size(most), np.uint64)
    earliest = np.empty(len(table), np.int64)
    scratch = earliest, np.empty(most + 1, np.int64), np.empty(most + 1, np.int64)
    of = np.array(sizes, np.int64)
    _find_repeated(words.first, words.hash, words.length, of, table, *scratch, *found)
    return found


@njit(inline="always", nogil=True)
def _ngram_key(hashes: UInt64s, at: Any, n: Any) -> Any:
    """The key of the words ``at`` to ``at + n``, which depends on where one word ends and the next
    begins.
    """
    key = hashes[at]
    for word in range(at + 1, at + n):
        key = key * _STEP + hashes[word]
    return key


@kernel
def _prefix_lengths(length: Int32s, characters: Int64s) -> None:
    """``characters[i]``: code points of the first i words."""
    characters[0] = 0
    for word in range(length.size):
        characters[word + 1] = characters[word] + length[word]


@kernel
def _top_ngram(
    hashes: UInt64s,
    n: Any,
    longest: Any,
    table: UInt64s,
    earliest: Int64s,
    count: Int64s,
    characters: Int64s,
    shift: Any,
) -> Any:
    """The index of the most common n-gram of a document; ``count`` of it is how often it occurs."""
    best: Any = 0
    count[0] = 1
    clear(table, shift)
    for at in range(hashes.size - n + 1):
        key = _ngram_key(hashes, at, n)
        entry = find_or_insert(table, shift, key)
        if entry < 0:
            earliest[~entry] = at
            count[at] = 1
            continue
        here = earliest[entry]
        count[here] += 1
        if count[here] < count[best]:
            continue
        gain: Any = count[here] - count[best]
        if longest and gain == 0:
            gain = characters[here + n] - characters[here] - characters[best + n] + characters[best]
        if gain > 0 or (gain == 0 and here < best):
            best = here
    return best


@kernel
def _find_top(
    first: Int64s,
    hashes: UInt64s,
    length: Int32s,
    sizes: Int64s,
    longest: Any,
    table: UInt64s,
    earliest: Int64s,
    count: Int64s,
    characters: Int64s,
    top_count: Int64s,
    top_characters: Int64s,
) -> None:
    for doc in range(first.size - 1):
        begin, end = first[doc], first[doc + 1]
        shift = table_shift(end - begin)
        _prefix_lengths(length[begin:end], characters)
        for column in range(sizes.size):
            n = sizes[column]
            if end - begin < n:
                continue
            best = _top_ngram(
                hashes[begin:end], n, longest, table, earliest, count, characters, shift
            )
            top_count[doc, column] = count[best]
            top_characters[doc, column] = characters[best + n] - characters[best]


@kernel
def _cover(at: Any, n: Any, generation: Any, characters: Int64s, covered: Int64s) -> Any:
    """Mark the words of an n-gram; returns the code points of those that were not marked."""
    added = 0
    for word in range(at, at + n):
        if covered[word] != generation:
            covered[word] = generation
            added += characters[word + 1] - characters[word]
    return added


@kernel
def _find_repeated(
    first: Int64s,
    hashes: UInt64s,
    length: Int32s,
    sizes: Int64s,
    table: UInt64s,
    earliest: Int64s,
    covered: Int64s,
    characters: Int64s,
    occurrences: Int64s,
    total: Int64s,
    covering: Int64s,
) -> None:
    generation = 0
    covered[:] = 0
    for doc in range(first.size - 1):
        begin, end = first[doc], first[doc + 1]
        shift = table_shift(end - begin)
        _prefix_lengths(length[begin:end], characters)
        for column in range(sizes.size):
            n = sizes[column]
            generation += 1
            clear(table, shift)
            for at in range(end - begin - n + 1):
                size = characters[at + n] - characters[at]
                total[doc, column] += size
                key = _ngram_key(hashes[begin:end], at, n)
                entry = find_or_insert(table, shift, key)
                if entry < 0:
                    earliest[~entry] = 2 * at
                    continue
                earlier = earliest[entry]
                earliest[entry] |= 1
                occurrences[doc, column] += size * (2 - (earlier & 1))
                covering[doc, column] += _cover(at, n, generation, characters, covered)
                if not earlier & 1:
                    covering[doc, column] += _cover(
                        earlier >> 1, n, generation, characters, covered
                    )


@kernel
def _power(base: Any, exponent: Any) -> Any:
    """``base ** exponent`` mod 2^64."""
    result = _ONE
    while exponent > 0:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


@kernel
def _greedy(
    n: Any,
    table: UInt64s,
    sums: UInt64s,
    inverse: UInt64s,
    characters: Int64s,
    shift: Any,
) -> Any:
    """Code points of the duplicated n-grams of a document, given its prefix sums."""
    repeated = 0
    at = 0
    clear(table, shift)
    while at + n < sums.size:
        key = (sums[at + n] - sums[at]) * inverse[at]
        if find_or_insert(table, shift, key) < 0:
            at += 1
        else:
            repeated += characters[at + n] - characters[at]
            at += n
    return repeated


@kernel
def _find_duplicated(
    first: Int64s,
    start: Int64s,
    end: Int64s,
    length: Int32s,
    hashes: UInt64s,
    sizes: Int64s,
    table: UInt64s,
    sums: UInt64s,
    inverse: UInt64s,
    characters: Int64s,
    found: Int64s,
) -> None:
    """``sums[i]`` is the hash of the first i words joined, ``inverse[i]`` is B to minus the number
    of their bytes.
    """
    powers, back = np.empty(64, np.uint64), np.empty(64, np.uint64)
    for k in range(64):
        powers[k], back[k] = _power(HASH_BASE, k), _power(_INVERSE, k)
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
            found[doc, column] = _greedy(
                sizes[column], table, sums[: count + 1], inverse, characters, shift
            )
