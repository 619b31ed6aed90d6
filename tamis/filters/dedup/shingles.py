"""Shingles: hashes of n consecutive words, computed from the word spans of a batch.

A word counts without case and without punctuation (``fold.fold_word``); a word of which nothing is
left is skipped. Its hash takes the UTF-8 bytes of the folded word in blocks b of eight bytes
(little-endian, zero padded), arithmetic mod 2^64:

    h = 0; for each block: h = (h ^ b) * 9E3779B97F4A7C15; h ^= h >> 32
    word hash = high 32 bits of (h ^ length in bytes) * D6E8FEB86659FD93

A shingle's hash is the polynomial sum over its words w_j of w_j * P^(n-1-j) mod 2^32, P = 01000193,
finished by MurmurHash3's fmix32. A document of fewer than n words has one shingle of all its words;
one without words has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tamis.filters.dedup.fold import FOLD_LIMIT
from tamis.filters.dedup.types import Int64, UInt8, UInt32
from tamis.filters.text.bitmap import load8, low_bytes, trailing_zeros
from tamis.kernel import kernel

_U32 = np.uint32
_U64 = np.uint64
_PRIME = _U32(0x01000193)
_BLOCK = _U64(0x9E3779B97F4A7C15)
_FINISH = _U64(0xD6E8FEB86659FD93)
_ONES = _U64(0x0101010101010101)
HIGH_BITS = _U64(0x8080808080808080)
_NOTHING = -1
_UNUSUAL = -2


@kernel
def _in_range(block: Any, low: int, behind: int) -> Any:
    """0x80 in every byte of the block (all below 0x80) that lies in low..behind-1."""
    at_least = block + _U64(0x80 - low) * _ONES
    too_high = block + _U64(0x80 - behind) * _ONES
    return at_least & ~too_high & HIGH_BITS


@kernel
def lower_case(block: Any) -> Any:
    """The block with its ASCII capitals as small letters; a byte of 0x80 or more stays one."""
    return block | (_in_range(block, 0x41, 0x5B) >> _U64(2))


@kernel
def _letters_and_digits(block: Any) -> Any:
    """0x80 in every byte of the block (lower case) that is an ASCII letter or digit."""
    return _in_range(block, 0x61, 0x7B) | _in_range(block, 0x30, 0x3A)


@kernel
def _run(letters: Any) -> Any:
    """How many bytes from the lowest on are letters or digits."""
    others = ~letters & HIGH_BITS
    return trailing_zeros(others) >> 3 if others else 8


@kernel
def _mix(state: Any, block: Any) -> Any:
    state = (state ^ block) * _BLOCK
    return state ^ (state >> _U64(32))


@kernel
def _finish(state: Any, length: int) -> Any:
    return np.int64(((state ^ _U64(length)) * _FINISH) >> _U64(32))


@kernel
def folded_character(data: UInt8, position: int, fold: UInt32) -> tuple[Any, int]:
    """(UTF-8 bytes of the folded character at ``position``, first byte lowest; bytes read)."""
    lead = np.uint32(data[position])
    if lead < 0x80:
        return fold[lead], 1
    size = 2 if lead < 0xE0 else (3 if lead < 0xF0 else 4)
    code = lead & np.uint32(0x7F >> size)
    packed = lead
    for k in range(1, size):
        byte = np.uint32(data[position + k])
        code = (code << np.uint32(6)) | (byte & np.uint32(0x3F))
        packed |= byte << np.uint32(8 * k)
    if code >= FOLD_LIMIT:
        return packed, size
    return fold[code], size


@kernel
def packed_size(packed: Any) -> Any:
    """How many bytes of UTF-8 ``folded_character`` gave; the last byte of a character is never
    zero.
    """
    if packed == 0:
        return 0
    return 1 + (packed > 0xFF) + (packed > 0xFFFF) + (packed > 0xFFFFFF)


@kernel
def _hash_any_word(data: UInt8, start: int, end: int, fold: UInt32) -> Any:
    """The word hash, character by character; -1 if nothing is left of the word."""
    state = _U64(0)
    block = _U64(0)
    length = 0
    while start < end:
        packed, step = folded_character(data, start, fold)
        start += step
        size = packed_size(packed)
        filled = length & 7
        block |= _U64(packed) << _U64(8 * filled)
        length += size
        if filled + size >= 8:
            state = _mix(state, block)
            block = _U64(packed) >> _U64(8 * (8 - filled))
    if length & 7:
        state = _mix(state, block)
    return _finish(state, length) if length else np.int64(_NOTHING)


@kernel
def _hash_block(block: Any, letters: Any) -> Any:
    """The word hash of a block (lower case, ASCII) whose letters and digits stand together."""
    leading = _U64(trailing_zeros(letters) & 0x38)
    letters >>= leading
    length = _run(letters)
    within = low_bytes(length)
    if letters & ~within:
        return np.int64(_UNUSUAL)
    return _finish(_mix(_U64(0), (block >> leading) & within), length)


@kernel
def _hash_blocks(data: UInt8, start: int, end: int) -> Any:
    """The word hash of ASCII letters and digits that stand together from ``start`` on."""
    state = _U64(0)
    position = start
    while position < end:
        block = lower_case(load8(data, position) & low_bytes(min(8, end - position)))
        letters = _letters_and_digits(block)
        length = _run(letters)
        last = position + 8 >= end
        if block & HIGH_BITS or (length < 8 and not last):
            return np.int64(_UNUSUAL)
        if length == 0:
            if letters:
                return np.int64(_UNUSUAL)
            break
        within = low_bytes(length)
        if letters & ~within:
            return np.int64(_UNUSUAL)
        state = _mix(state, block & within)
        position += length
        if last:
            break
    return _finish(state, position - start)


@kernel
def word_hashes(data: UInt8, start: Int64, end: Int64, fold: UInt32, hashes: UInt32) -> int:
    """The hashes of one document's words ``data[start[w]:end[w]]`` (none is empty), into the front
    of ``hashes``; returns how many words count.

    Words of ASCII letters and digits with punctuation around them go eight bytes at a time, and
    those of up to eight bytes, which most are, without a loop; the others go by character.
    """
    count = 0
    for word in range(start.size):
        begin = start[word]
        size = end[word] - begin
        block = lower_case(load8(data, begin) & low_bytes(min(8, size)))
        letters = _letters_and_digits(block)
        value = np.int64(_UNUSUAL)
        if letters and not block & HIGH_BITS:
            if size <= 8:
                value = _hash_block(block, letters)
            else:
                value = _hash_blocks(data, begin + (trailing_zeros(letters) >> 3), end[word])
        if value == _UNUSUAL:
            value = _hash_any_word(data, begin, end[word], fold)
        hashes[count] = _U32(value)
        count += int(value >= 0)
    return count


@kernel
def shingle_hashes(words: UInt32, begin: int, length: int, ngram: int, shingles: UInt32) -> None:
    """The hashes of ``length`` shingles from word ``begin`` on, to the front of ``shingles``."""
    for j in range(length):
        shingles[j] = words[begin + j]
    for k in range(1, ngram):
        for j in range(length):
            shingles[j] = _U32(_U32(shingles[j] * _PRIME) + words[begin + j + k])
    for j in range(length):
        value = shingles[j]
        value = _U32((value ^ (value >> _U32(16))) * _U32(0x85EBCA6B))
        value = _U32((value ^ (value >> _U32(13))) * _U32(0xC2B2AE35))
        shingles[j] = value ^ (value >> _U32(16))
