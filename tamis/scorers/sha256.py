"""SHA-256 (FIPS 180-4) in a kernel: many short strings without a Python call for each."""

from __future__ import annotations

from typing import Any

import numpy as np

from tamis.filters.text.bitmap import UInt8s
from tamis.kernel import kernel

_U32 = np.uint32
_BLOCK = 64
# A message ends with one bit and the 64 bits of its length.
_ENDING = 9


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _root_bits(number: int, root: int) -> int:
    """The first 32 bits behind the point of the square or cube root of a number."""
    scaled = number << (32 * root)
    low, high = 0, 1 << 40
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**root <= scaled else (low, middle)
    return low & 0xFFFFFFFF


_START = np.array([_root_bits(prime, 2) for prime in _primes(8)], np.uint32)
_ROUND = np.array([_root_bits(prime, 3) for prime in _primes(64)], np.uint32)


def padded_size(length: int) -> int:
    """Bytes that a message of so many takes with its ending."""
    return (length + _ENDING + _BLOCK - 1) // _BLOCK * _BLOCK


@kernel
def _rotated(word: Any, bits: int) -> Any:
    return _U32(word >> _U32(bits)) | _U32(word << _U32(32 - bits))


@kernel
def _schedule(message: UInt8s, at: int, words: Any) -> None:
    """The 64 words of the block at ``message[at:]``."""
    for k in range(16):
        place = at + 4 * k
        word = _U32(0)
        for j in range(4):
            word = _U32(word << _U32(8)) | _U32(message[place + j])
        words[k] = word
    for k in range(16, 64):
        early, late = words[k - 15], words[k - 2]
        small = _rotated(early, 7) ^ _rotated(early, 18) ^ _U32(early >> _U32(3))
        large = _rotated(late, 17) ^ _rotated(late, 19) ^ _U32(late >> _U32(10))
        words[k] = _U32(words[k - 16] + small + words[k - 7] + large)


@kernel
def _compress(words: Any, state: Any) -> None:
    """One block into the state."""
    a, b, c, d = state[0], state[1], state[2], state[3]
    e, f, g, h = state[4], state[5], state[6], state[7]
    for k in range(64):
        mixed = _rotated(e, 6) ^ _rotated(e, 11) ^ _rotated(e, 25)
        chosen = (e & f) ^ (~e & g)
        first = _U32(h + mixed + chosen + _ROUND[k] + words[k])
        mixed = _rotated(a, 2) ^ _rotated(a, 13) ^ _rotated(a, 22)
        majority = (a & b) ^ (a & c) ^ (b & c)
        second = _U32(mixed + majority)
        h, g, f, e = g, f, e, _U32(d + first)
        d, c, b, a = c, b, a, _U32(first + second)
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e
    state[5] += f
    state[6] += g
    state[7] += h


@kernel
def sha256(message: UInt8s, length: int, words: Any, state: Any) -> None:
    """The hash of ``message[:length]`` as the eight uint32 of ``state``, highest first.

    Writes the ending behind the message, which has room for it (``padded_size``); ``words`` is room
    for 64 uint32.
    """
    size = (length + _ENDING + _BLOCK - 1) // _BLOCK * _BLOCK
    message[length:size] = 0
    message[length] = 0x80
    for k in range(8):
        message[size - 1 - k] = ((8 * length) >> (8 * k)) & 0xFF
    state[:] = _START
    for at in range(0, size, _BLOCK):
        _schedule(message, at, words)
        _compress(words, state)
