"""Gopher's quality filter: what is not running text.

Source: Rae et al. 2021, "Scaling Language Models" (Gopher), appendix A.1.1.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tamis.filters.text.bitmap import last_bit, next_bit, population, text_arrays
from tamis.filters.text.lines import split_lines
from tamis.filters.text.ratio import ratio
from tamis.filters.text.scan import scan
from tamis.filters.text.words import (
    EXACT_STOP_WORD,
    HAS_LETTER,
    NOT_SYMBOL,
    STOP_WORD_SHIFT,
    Profile,
    words,
)
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Filter, Measures, Quantity, Rule, count, fraction


class GopherQuality(Filter):
    """Drops documents by their words: how many, how long, how many symbols, bullets and stop words."""

    kind: ClassVar[str] = "gopher_quality"

    min_words: int | None = 50
    max_words: int | None = 100_000
    min_mean_word_length: float | None = 3
    max_mean_word_length: float | None = 10
    max_hash_ratio: float | None = 0.1
    max_ellipsis_ratio: float | None = 0.1
    max_bullet_lines: float | None = 0.9
    max_ellipsis_lines: float | None = 0.3
    min_alphabetic_words: float | None = 0.8
    min_stop_words: int | None = 2
    words: Profile = "whitespace"

    def provides(self) -> tuple[Quantity, ...]:
        return (
            count("words", "words that are not punctuation alone"),
            Quantity("mean_word_length", "length", "code points of those words"),
            fraction("hash_ratio", "# signs to words", float("inf")),
            fraction("ellipsis_ratio", "ellipses (... or U+2026) to words", float("inf")),
            fraction("bullet_lines", "lines that begin with U+2022 or -"),
            fraction("ellipsis_lines", "lines that end with an ellipsis"),
            fraction("alphabetic_words", "words with a letter"),
            count("stop_words", "different words among the, be, to, of, and, that, have, with"),
        )

    def rules(self) -> tuple[Rule, ...]:
        return (
            Rule("min_words", "<", "words"),
            Rule("max_words", ">", "words"),
            Rule("min_mean_word_length", "<", "mean_word_length"),
            Rule("max_mean_word_length", ">", "mean_word_length"),
            Rule("max_hash_ratio", ">", "hash_ratio"),
            Rule("max_ellipsis_ratio", ">", "ellipsis_ratio"),
            Rule("max_bullet_lines", ">", "bullet_lines"),
            Rule("max_ellipsis_lines", ">", "ellipsis_lines"),
            Rule("min_alphabetic_words", "<", "alphabetic_words"),
            Rule("min_stop_words", "<", "stop_words"),
        )

    def measure(self, documents: Documents) -> Measures:
        data, offsets, alive = text_arrays(documents)
        size, seen, split = len(documents), scan(documents), split_lines(documents)
        spans = words(documents, self.words)
        plain, length, letters, stops, hashes, ellipses, bullets, trailing = (
            np.zeros(size, np.int64) for _ in range(8)
        )
        _count_words(spans.first, spans.length, spans.flags, plain, length, letters, stops)
        _count_symbols(data, offsets, alive, hashes, ellipses)
        _count_line_ends(data, offsets, seen.block, seen.solid, *split, bullets, trailing)
        total, line_count = np.diff(spans.first), np.diff(split.first)
        return {
            "words": plain,
            "mean_word_length": ratio(length, plain),
            "hash_ratio": ratio(hashes, total),
            "ellipsis_ratio": ratio(ellipses, total),
            "bullet_lines": ratio(bullets, line_count),
            "ellipsis_lines": ratio(trailing, line_count),
            "alphabetic_words": ratio(letters, total),
            "stop_words": stops,
        }


@njit(cache=True, nogil=True)
def _count_words(
    first: NDArray[np.int64],
    length: NDArray[np.int32],
    flags: NDArray[np.uint8],
    plain: NDArray[np.int64],
    total_length: NDArray[np.int64],
    letters: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> None:
    for doc in range(first.size - 1):
        seen = 0
        for word in range(first[doc], first[doc + 1]):
            flag = np.int64(flags[word])
            plain[doc] += (flag & NOT_SYMBOL) != 0
            total_length[doc] += length[word] if flag & NOT_SYMBOL else 0
            letters[doc] += flag & HAS_LETTER
            if flag & EXACT_STOP_WORD:
                seen |= 1 << (flag >> STOP_WORD_SHIFT)
        stops[doc] = population(np.uint64(seen))


@njit(cache=True, nogil=True)
def _count_hashes(text: NDArray[np.uint8]) -> int:
    found = 0
    for i in range(text.size):
        found += np.int64(text[i] == 35)
    return found


@njit(cache=True, nogil=True)
def _may_be_ellipsis(
    one: NDArray[np.uint8], two: NDArray[np.uint8], three: NDArray[np.uint8]
) -> int:
    """At how many places three dots or U+2026 (E2 80 A6) begin, given the text from its first, second and third byte on."""
    found = 0
    for i in range(three.size):
        dots = (one[i] == 46) & (two[i] == 46) & (three[i] == 46)
        found += np.int64(dots | ((one[i] == 0xE2) & (two[i] == 0x80) & (three[i] == 0xA6)))
    return found


@njit(cache=True, nogil=True)
def _count_ellipses(text: NDArray[np.uint8]) -> int:
    """``text.count("...") + text.count("\\u2026")``: runs of dots are counted by threes."""
    found, dots = 0, 0
    for i in range(text.size):
        dots = dots + 1 if text[i] == 46 else 0
        if dots == 3:
            found += 1
            dots = 0
        if text[i] == 0xA6 and i >= 2 and text[i - 1] == 0x80 and text[i - 2] == 0xE2:
            found += 1
    return found


@njit(cache=True, nogil=True)
def _count_symbols(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    alive: NDArray[np.bool_],
    hashes: NDArray[np.int64],
    ellipses: NDArray[np.int64],
) -> None:
    for doc in range(alive.size):
        begin, end = offsets[doc], offsets[doc + 1]
        if not alive[doc] or begin == end:
            continue
        hashes[doc] = _count_hashes(data[begin:end])
        if end - begin < 3:
            continue
        if _may_be_ellipsis(data[begin : end - 2], data[begin + 1 : end - 1], data[begin + 2 : end]):
            ellipses[doc] = _count_ellipses(data[begin:end])


@njit(cache=True, nogil=True)
def _count_line_ends(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    block: NDArray[np.int64],
    solid: NDArray[np.uint64],
    first: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    bullets: NDArray[np.int64],
    ellipses: NDArray[np.int64],
) -> None:
    """Lines that begin with a bullet (U+2022 or -) or end with an ellipsis once white space is stripped."""
    for doc in range(first.size - 1):
        base = offsets[doc]
        bits = solid[block[doc] : block[doc + 1]]
        for line in range(first[doc], first[doc + 1]):
            low = base + next_bit(bits, start[line] - base, end[line] - base)
            high = base + last_bit(bits, start[line] - base, end[line] - base)
            if low >= high:
                continue
            wide = high - low >= 3
            bullet = wide and data[low] == 0xE2 and data[low + 1] == 0x80 and data[low + 2] == 0xA2
            bullets[doc] += bullet or data[low] == 45
            if wide and (data[high - 1] == 46 or data[high - 1] == 0xA6):
                a, b, c = data[high - 3], data[high - 2], data[high - 1]
                dots = a == 46 and b == 46 and c == 46
                ellipses[doc] += dots or (a == 0xE2 and b == 0x80 and c == 0xA6)
