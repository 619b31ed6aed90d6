"""Signatures equal to datatrove's, for corpora that were signed with it.

The defaults of its ``MinhashConfig``: the text is simplified, cut into words by spaCy's English
tokenizer, and a shingle is the XXH64 hash (seed 0) of n words with one space between them. With M =
2^61 - 1, position i of the signature is the minimum of ((a_i * h + b_i) mod 2^64) mod M over the
shingles h; a and b come from numpy's RandomState. A document of fewer than n words has no
signature.

Simplified means: in lower case, every number as 0, punctuation as spaces, one space for each run of
white space, and without diacritics (NFD, then no Mn).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from tamis.filters.dedup.types import Int64, UInt8, UInt64
from tamis.filters.text.unicode_classes import PUNCTUATION
from tamis.filters.text.words import words
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents

_MERSENNE = np.uint64((1 << 61) - 1)
_U61 = np.uint64(61)
_NOTHING = np.uint64(2**64 - 1)
# Digits of any script, with one decimal mark of several scripts.
_NUMBER = re.compile(r"\d+(?:[.,\u060C\u066B\u2396-\u2398]\d+)?")


class Permutations61(NamedTuple):
    """h -> ((multiplier * h + addend) mod 2^64) mod 2^61 - 1, one entry a permutation."""

    multiplier: UInt64
    addend: UInt64


class WordShingles(NamedTuple):
    """The shingles of document i, in order: ``value[first[i]:first[i + 1]]``."""

    first: Int64
    value: UInt64
    words: Int64
    """Words of each document."""


def permutations61(count: int, seed: int) -> Permutations61:
    """datatrove's ``count`` permutations for a seed below 2^32."""
    generator = np.random.RandomState(seed)
    multiplier = generator.randint(1, _MERSENNE, dtype=np.uint64, size=count)
    return Permutations61(multiplier, generator.randint(0, _MERSENNE, dtype=np.uint64, size=count))


@functools.cache
def _spaces() -> dict[int, str]:
    return dict.fromkeys(PUNCTUATION, " ")


def simplified(text: str) -> str:
    """The text as datatrove hashes it; see the module."""
    text = _NUMBER.sub("0", text.lower()).translate(_spaces())
    text = " ".join(text.split())
    if text.isascii():
        return text
    letters = unicodedata.normalize("NFD", text)
    return "".join(c for c in letters if unicodedata.category(c) != "Mn").strip()


def word_shingles(documents: Documents, rows: Int64, ngram: int) -> WordShingles:
    """The shingles of the documents in ``rows``.

    Raises:
        TamisError: if spaCy is not installed.
    """
    texts = documents.text.take(pa.array(rows)).fill_null("").to_pylist()
    simple = pa.array([simplified(text) for text in texts], pa.large_string())
    part = Documents(pa.RecordBatch.from_pydict({"text": simple}))
    spans = words(part, "spacy")
    data, _ = part.utf8()
    readable = data.view()
    readable.flags.writeable = False
    behind = np.cumsum(spans.end - spans.start + 1)
    joined = np.full(int(behind[-1]) if len(behind) else 0, 0x20, np.uint8)
    _join_words(readable, spans.start, spans.end, joined)
    view = joined.data
    low, high = behind - (spans.end - spans.start + 1), behind - 1
    counts = np.diff(spans.first)
    first = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.maximum(counts - ngram + 1, 0), out=first[1:])
    begin = np.repeat(spans.first[:-1] - first[:-1], np.diff(first)) + np.arange(first[-1])
    digest = xxhash.xxh64_intdigest
    bounds = zip(low[begin].tolist(), high[begin + ngram - 1].tolist(), strict=True)
    value = np.fromiter((digest(view[a:b]) for a, b in bounds), np.uint64, int(first[-1]))
    return WordShingles(first, value, counts)


def signatures61(shingles: WordShingles, permuted: Permutations61) -> UInt64:
    """The MinHash of each document, shape (documents, permutations); all 2^64-1 if it has none."""
    shape = (len(shingles.first) - 1, len(permuted.multiplier))
    signature = np.full(shape, _NOTHING)
    _signatures61(shingles.first, shingles.value, *permuted, signature)
    return signature


@kernel
def _join_words(data: UInt8, start: Int64, end: Int64, joined: UInt8) -> None:
    """Copy the words, each with the space that is already behind it."""
    position = 0
    for word in range(start.size):
        for at in range(start[word], end[word]):
            joined[position] = data[at]
            position += 1
        position += 1


@kernel
def _signatures61(
    first: Int64, shingles: UInt64, multiplier: UInt64, addend: UInt64, signature: UInt64
) -> None:
    for document in range(first.size - 1):
        for j in range(first[document], first[document + 1]):
            shingle = shingles[j]
            for i in range(multiplier.size):
                value = multiplier[i] * shingle + addend[i]
                value = (value & _MERSENNE) + (value >> _U61)
                value = value - _MERSENNE if value >= _MERSENNE else value
                signature[document, i] = min(signature[document, i], value)
