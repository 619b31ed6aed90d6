"""Hashed word n-grams as DSIR has them: tokens in lower case, n-grams into buckets by SHA-256.

Tokens are the matches of ``\\w+|[^\\w\\s]+`` in ``text.lower()``: runs of letters, digits and
underscores, and runs of what is neither that nor white space, by Python's own tables of characters.
An n-gram is its tokens with one space between, its bucket SHA-256 of that in UTF-8, read as one big
number, modulo the number of buckets. All n-grams of 1 to n tokens count.

SHA-256 takes a quarter of a microsecond, so buckets are remembered by a 64-bit hash of the n-gram,
in a table of fixed size that all threads share: an entry holds what is left of the hash beside its
place, and the bucket, in one word, so that it is never read half written. Two n-grams are taken for
one with a chance of about 2^-41 a look-up.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.filters.text.bitmap import (
    Bools,
    Int64s,
    UInt8s,
    UInt64s,
    load8,
    low_bytes,
    readonly,
)
from tamis.filters.text.unicode_classes import ALPHANUMERIC, SPACE, character_classes
from tamis.filters.text.words import decode
from tamis.kernel import kernel
from tamis.pipeline.documents import PADDING, Documents, utf8_view
from tamis.scorers.sha256 import padded_size, sha256

MOST_BUCKETS = 1 << 20
# A power of two: the last tokens are in a ring of so many.
MOST_NGRAMS = 8
_RING = MOST_NGRAMS - 1
# Log 2 of the entries of the table of buckets: 32 MB.
_MEMORY_BITS = 22
_BUCKET_MASK = np.uint64(MOST_BUCKETS - 1)
_USED = np.uint64(1 << 63)

_SYMBOL, _WORD, _SPACE = 0, 1, 2
# No character at or above this code point has a lower case.
_CASED = 0x20000
# The longest that lower case makes a text: "Ⱥ", two bytes, becomes "ⱥ", three.
_GROWTH = 1.5
# Its lower case depends on its neighbours, that of no other character does.
_SIGMA = "Σ"

_ONES = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xD6E8FEB86659FD93)
_K3 = np.uint64(0xA0761D6478BD642F)
_HALF = np.uint64(32)

_known: dict[int, NDArray[np.uint64]] = {}


class NgramSums(NamedTuple):
    """What the n-grams of each document add up to."""

    tokens: NDArray[np.int64]
    sums: NDArray[np.float64]
    """(documents, columns of the weights)."""


def ngram_sums(documents: Documents, ngrams: int, weights: NDArray[np.float64]) -> NgramSums:
    """For every document that is alive the sum of ``weights[bucket]`` over its n-grams of 1 to
    ``ngrams`` tokens, in their order; zeros for the others. ``weights`` is (buckets, columns).
    """
    counts = np.zeros(1, np.int64)
    return _run(documents, ngrams, len(weights), np.ascontiguousarray(weights), counts)


def ngram_counts(documents: Documents, ngrams: int, buckets: int) -> NDArray[np.int64]:
    """How many n-grams of 1 to ``ngrams`` tokens the documents that are alive have, by bucket."""
    counts = np.zeros(buckets, np.int64)
    _run(documents, ngrams, buckets, np.zeros((buckets, 0)), counts)
    return counts


def _run(
    documents: Documents,
    ngrams: int,
    buckets: int,
    weights: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> NgramSums:
    data, offsets = _text_without_sigma(documents)
    alive = documents.alive
    longest = int((np.diff(offsets) * alive).max(initial=0))
    room = int(longest * _GROWTH) + PADDING
    found = NgramSums(
        np.zeros(len(alive), np.int64), np.zeros((len(alive), weights.shape[1]), np.float64)
    )
    _sum_up(
        *(readonly(data), readonly(offsets), readonly(alive), _tables()),
        *(np.int64(ngrams), np.uint64(buckets), _memory(buckets), _scratch(room, ngrams)),
        *(readonly(weights), counts, found.tokens, found.sums),
    )
    return found


def _text_without_sigma(documents: Documents) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The text, that of documents with a capital sigma in lower case already: to lower it again
    changes nothing.
    """
    text = documents.text
    has_sigma = pc.match_substring(text, _SIGMA).fill_null(False)
    if not pc.any(has_sigma).as_py():
        return documents.utf8()
    lowered = pa.array([one.lower() for one in text.filter(has_sigma).to_pylist()], text.type)
    return utf8_view(pc.replace_with_mask(text, has_sigma, lowered))


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """For every code point whether it is a symbol, part of a word or white space; for those below
    ``_CASED`` the UTF-8 of their lower case, the first byte lowest.
    """
    classes = character_classes()
    kinds = np.where(classes & ALPHANUMERIC, _WORD, np.where(classes & SPACE, _SPACE, _SYMBOL))
    kinds[ord("_")] = _WORD
    lower = np.zeros(_CASED, np.uint32)
    for code in range(_CASED):
        if not 0xD800 <= code < 0xE000:
            lower[code] = int.from_bytes(chr(code).lower().encode(), "little")
    return readonly(kinds.astype(np.uint8)), readonly(lower)


def _memory(buckets: int) -> NDArray[np.uint64]:
    """The table of the buckets of n-grams in this process, which fills as it is used."""
    if buckets not in _known:
        _known[buckets] = np.zeros(1 << _MEMORY_BITS, np.uint64)
    return _known[buckets]


def _scratch(room: int, ngrams: int) -> tuple[Any, ...]:
    """Text in lower case, where its last tokens are and their hashes; the message for SHA-256, its
    words and its state.
    """
    return (
        np.empty(room, np.uint8),
        np.empty((MOST_NGRAMS, 2), np.int64),
        np.empty(MOST_NGRAMS, np.uint64),
        (
            np.empty(padded_size(room + ngrams), np.uint8),
            np.empty(64, np.uint32),
            np.empty(8, np.uint32),
        ),
    )


@kernel
def _write_character(packed: Any, out: UInt8s, position: int) -> int:
    """The bytes of a character of which the last is not zero; gives the place behind them."""
    out[position] = packed & np.uint32(0xFF)
    position += 1
    packed >>= np.uint32(8)
    while packed:
        out[position] = packed & np.uint32(0xFF)
        position += 1
        packed >>= np.uint32(8)
    return position


@kernel
def _lower(data: UInt8s, at: int, end: int, lower: Any, out: UInt8s) -> int:
    """``data[at:end]`` in lower case into ``out``; gives its length."""
    position = 0
    while at < end:
        block = load8(data, at)
        if end - at >= 8 and block & _HIGH_BITS == 0:
            capital = (block + np.uint64(0x80 - 0x41) * _ONES) & ~(
                block + np.uint64(0x80 - 0x5B) * _ONES
            )
            block |= (capital & _HIGH_BITS) >> np.uint64(2)
            for k in range(8):
                out[position + k] = np.uint8(block >> np.uint64(8 * k))
            at += 8
            position += 8
            continue
        code = decode(data, at)
        size = 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
        if code < _CASED:
            position = _write_character(lower[code], out, position)
        else:
            out[position : position + 4] = data[at : at + 4]
            position += 4
        at += size
    return position


@kernel
def _token_hash(text: UInt8s, start: int, end: int) -> Any:
    state = _K3
    for at in range(start, end, 8):
        block = load8(text, at) & low_bytes(min(end - at, 8))
        state = (state ^ block) * _K1
        state ^= state >> _HALF
    state = (state ^ np.uint64(end - start)) * _K2
    return state ^ (state >> _HALF)


@kernel
def _longer(state: Any, token: Any) -> Any:
    """The hash of an n-gram and one more token."""
    state = (state + _K3) * _K1
    state = ((state ^ (state >> _HALF)) + token) * _K2
    return state ^ (state >> np.uint64(29))


@kernel
def _bucket(text: UInt8s, spans: Any, first: int, last: int, buckets: Any, work: Any) -> Any:
    """The bucket of the n-gram of tokens ``first`` to ``last``, by SHA-256."""
    message, words, state = work
    length = 0
    for token in range(first, last + 1):
        start, end = spans[token & _RING, 0], spans[token & _RING, 1]
        if token > first:
            message[length] = 0x20
            length += 1
        for at in range(start, end):
            message[length + at - start] = text[at]
        length += end - start
    sha256(message, length, words, state)
    found = np.uint64(0)
    for k in range(8):
        found = ((found << _HALF) | np.uint64(state[k])) % buckets
    return found


@kernel
def _token_end(text: UInt8s, at: int, end: int, kinds: UInt8s, kind: Any) -> int:
    """The first place from ``at`` on with a character that is not of this kind."""
    while at < end:
        code = np.int64(text[at])
        size = 1
        if code >= 0x80:
            code = decode(text, at)
            size = 2 + (code >= 0x800) + (code >= 0x10000)
        if kinds[np.uint64(code)] != kind:
            break
        at += size
    return at


@kernel
def _sum_up(
    data: UInt8s,
    offsets: Int64s,
    alive: Bools,
    tables: Any,
    ngrams: Any,
    buckets: Any,
    memory: UInt64s,
    scratch: Any,
    weights: Any,
    counts: Int64s,
    tokens: Int64s,
    sums: Any,
) -> None:
    kinds, lower = tables
    text, spans, hashes, work = scratch
    last_place = np.uint64(memory.size - 1)
    for document in range(alive.size):
        if not alive[document]:
            continue
        end = _lower(data, offsets[document], offsets[document + 1], lower, text)
        at, token = 0, 0
        while at < end:
            begin = at
            kind = kinds[decode(text, at)]
            at = _token_end(text, at, end, kinds, kind)
            if kind == _SPACE:
                continue
            place = np.uint64(token & _RING)
            spans[place, 0], spans[place, 1] = begin, at
            hashes[place] = _token_hash(text, begin, at)
            key = np.uint64(0)
            for first in range(token, max(token - ngrams, -1), -1):
                key = _longer(key, hashes[np.uint64(first & _RING)])
                place = key & last_place
                entry = memory[place]
                known = (key | _USED) & ~_BUCKET_MASK
                if entry & ~_BUCKET_MASK != known:
                    entry = known | _bucket(text, spans, first, token, buckets, work)
                    memory[place] = entry
                bucket = entry & _BUCKET_MASK
                if counts.size > 1:
                    counts[bucket] += 1
                for column in range(sums.shape[1]):
                    sums[document, column] += weights[bucket, column]
            token += 1
        tokens[document] = token
