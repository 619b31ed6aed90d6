"""Difficulty: how hard a document is to read and to predict, without a model.

The metrics of "Beyond Random Sampling" (arXiv:2506.11300), where curricula are ordered by them:

compression_ratio   bytes / bytes that zlib makes of them at level 9; higher is easier
mtld                lexical diversity (McCarthy and Jarvis 2010, doi:10.3758/BRM.42.2.381): the
                    mean number of words that it takes until the running share of different words
                    among them is .72 or less, what remains at the end counted as the part
                    (1 - share) / (1 - .72) of one more; the mean of reading forwards and backwards.
                    A document in which no word comes twice has its number of words. Higher is
                    harder; of fewer than 100 words it says little
flesch              Flesch 1948, doi:10.1037/h0057532: 206.835 - 1.015 words / sentences
                    - 84.6 syllables / words; higher is easier. For English
fertility           tokens / words, by a tokenizer of yours; higher is harder

Words are those of the profile that have a letter or digit, without case and without punctuation.

Syllables of a word are the runs of vowels (a e i o u y, with or without accents). A run is cut in
"ia" and "io" (but not behind t, c, s, g, x: nation, special), "ua" and "uo" (not behind q, g), "eo"
(not behind p, g), "iu" inside the word, and before the ending "ing". A silent e does not count: at
the end behind a consonant, where "-le" behind a consonant is heard; in "-ed" behind a consonant
other than t and d; in "-es" behind one other than s, x, z, c, g, sh, ch and l behind a consonant.
Every word has at least one. Of the English words of CMUdict in web text, 97 % have that many.
"""

from __future__ import annotations

import unicodedata
import zlib
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamis.filters.once import once
from tamis.filters.text.bitmap import Int64s, UInt8s, UInt64s, empty, readonly, text_arrays
from tamis.filters.text.hash_table import clear, find_or_insert, table_shift, table_size
from tamis.filters.text.sentences import sentences
from tamis.filters.text.unicode_classes import ALPHANUMERIC, PUNCTUATION_MARK, character_classes
from tamis.filters.text.words import Profile, decode, word_spans
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Measure, Measures, Quantity, count
from tamis.scorers.tokens import count_tokens, open_tokenizer

LEVEL = 9
DIVERSITY = 0.72
# No character at or above this code point has a lower case.
_CASED = 0x20000
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_A, _C, _D, _E, _G, _H, _I, _L, _N, _O, _P, _Q, _S, _T, _U = (
    np.uint8(ord(letter)) for letter in "acdeghilnopqstu"
)
_VOWELS = tuple(np.uint8(ord(letter)) for letter in "aeiouy")
_SOFTENED = tuple(np.uint8(ord(letter)) for letter in "tcsgx")
_HISSING = tuple(np.uint8(ord(letter)) for letter in "sxzcg")
# What a character is to a word: not part of it, part of it, a letter or digit, a Latin letter.
_NOTHING, _PART, _ALPHANUMERIC, _LATIN = 0, 1, 2, 3


class Difficulty(Measure):
    """Adds how well a document compresses, its lexical diversity (MTLD), its reading ease (Flesch)
    and, with a tokenizer, its tokens a word.

    Values of a document without words are NaN; so is ``flesch`` if fewer than half of the words
    are of Latin letters.
    """

    kind: ClassVar[str] = "difficulty"

    words: Profile = "whitespace"
    tokenizer: Path | None = None
    """A tokenizer.json, or a folder with one: adds ``tokens`` and ``fertility``."""
    diversity: float = Field(default=DIVERSITY, gt=0, lt=1)
    """The share of different words at which MTLD counts on."""

    def provides(self) -> tuple[Quantity, ...]:
        quantities = (
            Quantity("compression_ratio", "score", "bytes / bytes after zlib at level 9"),
            Quantity("mtld", "score", "words until few of them are new (MTLD)"),
            Quantity("flesch", "score", "Flesch reading ease", low=float("-inf")),
            count("words", "words with a letter or digit"),
        )
        if self.tokenizer is None:
            return quantities
        fertility = Quantity("fertility", "score", "tokens / words")
        return (*quantities, count("tokens", "tokens of the tokenizer"), fertility)

    def models(self) -> tuple[Path, ...]:
        return () if self.tokenizer is None else (self.tokenizer,)

    def measure(self, documents: Documents) -> Measures:
        """The columns of ``provides``.

        Raises:
            TamisError: if the tokenizer cannot be read or its package is missing.
        """
        found = word_traits(documents, self.words)
        words = found.words.astype(np.float64)
        full = words > 0
        per = np.where(full, words, 1.0)
        ends = np.maximum(sentences(documents, self.words), 1)
        flesch = 206.835 - 1.015 * words / ends - 84.6 * found.syllables / per
        measures: Measures = {
            "compression_ratio": compression_ratios(documents),
            "mtld": np.where(full, mtld(found, self.diversity), np.nan),
            "flesch": np.where(full & (2 * found.latin >= words), flesch, np.nan),
            "words": found.words,
        }
        if self.tokenizer is not None:
            tokenizer = once(open_tokenizer, self.tokenizer, "there is no tokenizer {path}")
            tokens = count_tokens(tokenizer, documents)
            fertility = np.where(full, tokens / per, np.nan)
            measures |= {"tokens": tokens, "fertility": fertility}
        return measures


def compression_ratios(documents: Documents) -> NDArray[np.float64]:
    """Bytes / bytes after zlib at level 9 of the documents that are alive; NaN for empty ones."""
    data, offsets = documents.utf8()
    ratios = np.full(len(documents), np.nan)
    bounds = offsets.tolist()
    for row in np.flatnonzero(documents.alive & (np.diff(offsets) > 0)).tolist():
        text = data[bounds[row] : bounds[row + 1]].data
        ratios[row] = len(text) / len(zlib.compress(text, LEVEL))
    return ratios


class WordTraits(NamedTuple):
    """The words that have a letter or digit; those of document i are ``first[i]:first[i + 1]``."""

    first: NDArray[np.int64]
    hash: NDArray[np.uint64]
    """Of the word without case and punctuation."""
    words: NDArray[np.int64]
    """By document: how many, their syllables, and how many are Latin letters by half at least."""
    syllables: NDArray[np.int64]
    latin: NDArray[np.int64]


def word_traits(documents: Documents, profile: Profile) -> WordTraits:
    """The words of the documents that are alive; the others have none."""
    data, _, _ = text_arrays(documents)
    first, start, end = word_spans(documents, profile)
    longest = int((end - start).max(initial=0))
    size = len(documents)
    found = WordTraits(
        np.zeros(size + 1, np.int64),
        empty(len(start), np.uint64),
        *(np.zeros(size, np.int64) for _ in range(3)),
    )
    spans = readonly(first), readonly(start), readonly(end)
    _describe(data, spans, _characters(), np.empty(longest + 1, np.uint8), tuple(found))
    return found._replace(hash=found.hash[: found.first[-1]])


def mtld(found: WordTraits, diversity: float = DIVERSITY) -> NDArray[np.float64]:
    """The measure of textual lexical diversity of each document; 0 without words."""
    longest = int(found.words.max(initial=0))
    values = np.zeros(len(found.words))
    scratch = (
        np.zeros(table_size(longest), np.uint64),
        np.empty(table_size(longest), np.int64),
        np.empty((longest, 2), np.int64),
    )
    _mtld(readonly(found.first), readonly(found.hash), diversity, scratch, values)
    return values


@cache
def _characters() -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.uint8]]:
    """For every code point what it is to a word; for those below ``_CASED`` the lower case, and the
    Latin small letter without its accent (a vowel with one is y), 0 for none.
    """
    classes = character_classes()
    kinds = np.where(classes & PUNCTUATION_MARK, _NOTHING, _PART)
    kinds[(classes & ALPHANUMERIC > 0) & (kinds == _PART)] = _ALPHANUMERIC
    lower = np.arange(_CASED, dtype=np.int32)
    letters = np.zeros(_CASED, np.uint8)
    for code in range(_CASED):
        small = chr(code).lower()
        if len(small) == 1:
            lower[code] = ord(small)
        if code < 0x2000 and "a" <= (base := unicodedata.normalize("NFD", small)[0]) <= "z":
            # With an accent it is never silent, and in no rule.
            accented = base in "aeiou" and small != base
            letters[code] = ord("y" if accented else base)
    kinds[:_CASED][letters > 0] = _LATIN
    return readonly(kinds.astype(np.uint8)), readonly(lower), readonly(letters)


@kernel
def _is_vowel(letter: Any) -> bool:
    """Whether a small Latin letter is one of a e i o u y."""
    return letter in _VOWELS


@kernel
def _parts(letters: UInt8s, k: int, length: int) -> bool:
    """Whether the vowels at ``k - 1`` and ``k`` are of two syllables."""
    first, second = letters[k - 1], letters[k]
    if k + 3 == length and second == _I and letters[k + 1] == _N and letters[k + 2] == _G:
        return True
    before = letters[k - 2] if k > 1 else 0
    if first == _I and second == _U:
        return k + 1 < length
    if first == _I:
        return second in (_A, _O) and before not in _SOFTENED
    if first == _U:
        return second in (_A, _O) and before != _Q and before != _G
    return first == _E and second == _O and before != _P and before != _G


@kernel
def _silent(letters: UInt8s, length: int) -> int:
    """1 if the word ends in an e that is not heard, with or without d or s."""
    last = letters[length - 1]
    at = length - 1 if last == _E else length - 2
    if at < 2 or letters[at] != _E or _is_vowel(letters[at - 1]):
        return 0
    before, earlier = letters[at - 1], letters[at - 2]
    if last == _D:
        return 0 if before in (_T, _D) else 1
    if before == _L and not _is_vowel(earlier):
        return 0
    if last == _S:
        hissed = before == _H and earlier in (_S, _C)
        return 0 if hissed or before in _HISSING else 1
    return 1 if last == _E else 0


@kernel
def syllables(letters: UInt8s, length: int) -> int:
    """The syllables of a word of so many small Latin letters; at least 1."""
    found = 0
    for k in range(length):
        if _is_vowel(letters[k]) and (
            k == 0 or not _is_vowel(letters[k - 1]) or _parts(letters, k, length)
        ):
            found += 1
    if length > 2 and found > 1:
        found -= _silent(letters, length)
    return max(found, 1)


@kernel
def _describe(data: UInt8s, spans: Any, characters: Any, letters: UInt8s, found: Any) -> None:
    first, start, end = spans
    kinds, lower, base = characters
    bounds, hashes, words, heard, latin = found
    known = 0
    for document in range(words.size):
        before = known
        for word in range(first[document], first[document + 1]):
            state, others, length = np.uint64(0), 0, 0
            at = start[word]
            while at < end[word]:
                code = np.int64(data[at])
                size = 1
                if code >= 0x80:
                    code = decode(data, at)
                    size = 2 + (code >= 0x800) + (code >= 0x10000)
                at += size
                kind = kinds[code]
                if kind == _NOTHING:
                    continue
                if kind == _LATIN:
                    letters[length] = base[code]
                    length += 1
                others += kind == _ALPHANUMERIC
                if code < _CASED:
                    code = np.int64(lower[code])
                state = (state ^ np.uint64(code)) * _SPREAD
                state ^= state >> _HALF
            if others + length > 0:
                hashes[known] = state
                known += 1
                heard[document] += syllables(letters, length)
                latin[document] += length >= max(others, 1)
        words[document] = known - before
        bounds[document + 1] = known


@kernel
def _neighbours(keys: UInt64s, table: UInt64s, last: Int64s, near: Int64s) -> None:
    """For every word the place of the same word before it, or -1, and after it, or their number."""
    shift = table_shift(keys.size)
    clear(table, shift)
    for k in range(keys.size):
        entry = find_or_insert(table, shift, keys[k])
        near[k, 0], near[k, 1] = -1, keys.size
        if entry >= 0:
            near[k, 0] = last[entry]
            near[last[entry], 1] = k
        else:
            entry = ~entry
        last[entry] = k


@kernel
def _factors(near: Int64s, words: int, diversity: float, backwards: bool) -> float:
    """How often the diversity falls to its limit in one direction, the rest as a part."""
    full, rest = 0, 0.0
    types, tokens = 0, 0
    for step in range(words):
        place = words - 1 - step if backwards else step
        # The stretch has the words of the last ``tokens`` steps.
        again = near[place, 1] <= place + tokens if backwards else near[place, 0] >= place - tokens
        types += not again
        tokens += 1
        if types / tokens <= diversity:
            full += 1
            types, tokens = 0, 0
    if tokens:
        rest = (1.0 - types / tokens) / (1.0 - diversity)
    return full + rest


@kernel
def _mtld(first: Int64s, hashes: UInt64s, diversity: float, scratch: Any, values: Any) -> None:
    table, last, near = scratch
    for document in range(values.size):
        begin, end = first[document], first[document + 1]
        words = end - begin
        if words == 0:
            continue
        _neighbours(hashes[begin:end], table, last, near)
        total = 0.0
        for backwards in (False, True):
            factors = _factors(near, words, diversity, backwards)
            total += words / factors if factors > 0 else float(words)
        values[document] = total / 2
