"""Gopher's quality filter: what is not running text.

Source: Rae et al. 2021, "Scaling Language Models" (Gopher), appendix A.1.1. The preset tells whose
reading of it is taken:

gopher   datatrove's, which made FineWeb: words of punctuation alone do not count towards number and
         length; # and ellipses each on their own; lines of ``splitlines()`` are stripped; a bullet
         is U+2022 or -; two *different* stop words
dolma    all words count; the *median* word length; words that contain # or U+2026; lines of
         ``split("\n")`` as they are; a bullet is * or -; of ellipses, only U+2026 counts
         at the end of a line; two stop words, also the same twice
dclm     only words that begin with a letter or digit count, but all have a length; occurrences of
         #, "...", ". . ." and U+2026 together; stripped lines that are not blank; a bullet is
         U+25CF, U+2022, * or -; two stop words in upper or lower case, also the same twice
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from tamis.filters.text.bitmap import (
    Bools,
    Int32s,
    Int64s,
    UInt8s,
    UInt64s,
    last_bit,
    next_bit,
    population,
    text_arrays,
)
from tamis.filters.text.lines import Lines, lines, split_lines, stripped
from tamis.filters.text.ratio import ratio
from tamis.filters.text.scan import scan
from tamis.filters.text.words import (
    EXACT_STOP_WORD,
    HAS_LETTER,
    NOT_SYMBOL,
    STOP_WORD_SHIFT,
    Profile,
    Words,
    per_document,
    starts_alphanumeric,
    words,
)
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Filter, Measures, Quantity, Rule, count, fraction

_ONE_SYMBOL_RULE = {"max_hash_ratio": None, "max_ellipsis_ratio": None, "max_symbol_ratio": 0.1}
_PRESETS: dict[str, dict[str, Any]] = {
    "gopher": {},
    "dolma": {
        **_ONE_SYMBOL_RULE,
        "min_mean_word_length": None,
        "max_mean_word_length": None,
        "min_median_word_length": 3,
        "max_median_word_length": 10,
    },
    "dclm": _ONE_SYMBOL_RULE,
}
_NOT_MEASURED = {
    "gopher": ("max_symbol_ratio", "min_median_word_length", "max_median_word_length"),
    "dolma": (
        *("max_hash_ratio", "max_ellipsis_ratio"),
        *("min_mean_word_length", "max_mean_word_length"),
    ),
    "dclm": (
        *("max_hash_ratio", "max_ellipsis_ratio"),
        *("min_median_word_length", "max_median_word_length"),
    ),
}

# What counts as a bullet at the beginning and an ellipsis at the end of a line.
_DASH, _STAR, _BULLET, _CIRCLE, _THREE_DOTS, _SPACED_DOTS = (np.int64(1 << k) for k in range(6))
_GOPHER_MARKS = _DASH | _BULLET | _THREE_DOTS
_DOLMA_MARKS = _DASH | _STAR
_DCLM_MARKS = _DASH | _STAR | _BULLET | _CIRCLE | _THREE_DOTS | _SPACED_DOTS


class GopherQuality(Filter):
    """Drops documents by their words: how many, how long, how many symbols, bullets and stop words.

    A ratio of a text without words or lines is NaN and drops nothing; ``min_words`` does.
    """

    kind: ClassVar[str] = "gopher_quality"

    preset: Literal["gopher", "dolma", "dclm"] = "gopher"
    words: Profile = "whitespace"
    min_words: int | None = 50
    max_words: int | None = 100_000
    min_mean_word_length: float | None = 3
    max_mean_word_length: float | None = 10
    min_median_word_length: float | None = None
    max_median_word_length: float | None = None
    max_hash_ratio: float | None = 0.1
    max_ellipsis_ratio: float | None = 0.1
    max_symbol_ratio: float | None = None
    max_bullet_lines: float | None = 0.9
    max_ellipsis_lines: float | None = 0.3
    min_alphabetic_words: float | None = 0.8
    min_stop_words: int | None = 2

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {**_PRESETS.get(values.get("preset", "gopher"), {}), **values}

    @model_validator(mode="after")
    def _check_measured(self) -> GopherQuality:
        for field in _NOT_MEASURED[self.preset]:
            if getattr(self, field) is not None:
                raise ValueError(f"{field} is not measured with preset {self.preset}")
        return self

    def provides(self) -> tuple[Quantity, ...]:
        unbounded = float("inf")
        length = "median_word_length" if self.preset == "dolma" else "mean_word_length"
        symbols: tuple[Quantity, ...] = (
            fraction("symbol_ratio", "symbols (# and ellipses) to words", unbounded),
        )
        if self.preset == "gopher":
            symbols = (
                fraction("hash_ratio", "# signs to words", unbounded),
                fraction("ellipsis_ratio", "ellipses (... or U+2026) to words", unbounded),
            )
        return (
            count("words", "words, without those the preset passes over"),
            Quantity(length, "length", "code points of a word"),
            *symbols,
            fraction("bullet_lines", "lines that begin with a bullet"),
            fraction("ellipsis_lines", "lines that end with an ellipsis"),
            fraction("alphabetic_words", "words with a letter"),
            count("stop_words", "the, be, to, of, and, that, have, with"),
        )

    def rules(self) -> tuple[Rule, ...]:
        length = "median_word_length" if self.preset == "dolma" else "mean_word_length"
        symbols = ("hash", "ellipsis") if self.preset == "gopher" else ("symbol",)
        return (
            Rule("min_words", "<", "words"),
            Rule("max_words", ">", "words"),
            Rule(f"min_{length}", "<", length),
            Rule(f"max_{length}", ">", length),
            *(Rule(f"max_{symbol}_ratio", ">", f"{symbol}_ratio") for symbol in symbols),
            Rule("max_bullet_lines", ">", "bullet_lines"),
            Rule("max_ellipsis_lines", ">", "ellipsis_lines"),
            Rule("min_alphabetic_words", "<", "alphabetic_words"),
            Rule("min_stop_words", "<", "stop_words"),
        )

    def measure(self, documents: Documents) -> Measures:
        of = {"gopher": _gopher, "dolma": _dolma, "dclm": _dclm}[self.preset]
        return of(documents, words(documents, self.words))


def _gopher(documents: Documents, spans: Words) -> Measures:
    plain, length, letters, stops = (np.zeros(len(documents), np.int64) for _ in range(4))
    _count_words(spans.first, spans.length, spans.flags, plain, length, letters, stops)
    hashes, ellipses, _ = _symbols(documents)
    total = np.diff(spans.first)
    return {
        "words": plain,
        "mean_word_length": ratio(length, plain),
        "hash_ratio": ratio(hashes, total),
        "ellipsis_ratio": ratio(ellipses, total),
        **_line_marks(documents, split_lines(documents), _GOPHER_MARKS, strip=True),
        "alphabetic_words": ratio(letters, total),
        "stop_words": stops,
    }


def _dolma(documents: Documents, spans: Words) -> Measures:
    data, _, _ = text_arrays(documents)
    symbols = np.zeros(len(documents), np.int64)
    _count_symbol_words(data, spans.first, spans.start, spans.end, symbols)
    total = np.diff(spans.first)
    return {
        "words": total,
        "median_word_length": _median_length(spans),
        "symbol_ratio": ratio(symbols, total),
        **_line_marks(documents, lines(documents), _DOLMA_MARKS, strip=False),
        "alphabetic_words": ratio(per_document(spans.first, spans.flags & HAS_LETTER), total),
        "stop_words": per_document(spans.first, spans.flags & EXACT_STOP_WORD != 0),
    }


def _dclm(documents: Documents, spans: Words) -> Measures:
    hashes, ellipses, spaced = _symbols(documents)
    filled, _ = stripped(documents, lines(documents))
    total = np.diff(spans.first)
    return {
        "words": per_document(spans.first, starts_alphanumeric(documents, spans)),
        "mean_word_length": ratio(per_document(spans.first, spans.length), total),
        "symbol_ratio": ratio(hashes + ellipses + spaced, total),
        **_line_marks(documents, filled, _DCLM_MARKS, strip=False),
        "alphabetic_words": ratio(per_document(spans.first, spans.flags & HAS_LETTER), total),
        "stop_words": per_document(spans.first, spans.flags >> STOP_WORD_SHIFT != 0),
    }


def _median_length(spans: Words) -> NDArray[np.float64]:
    """The median code points of a word of each document, the mean of the two in the middle if need
    be; NaN without words.
    """
    total = np.diff(spans.first)
    document = np.repeat(np.arange(len(total)), total)
    ordered = np.sort((document << 32) | spans.length) & 0xFFFFFFFF
    some = total > 0
    low = (spans.first[:-1] + (total - 1) // 2)[some]
    high = (spans.first[:-1] + total // 2)[some]
    median = np.full(len(total), np.nan)
    median[some] = (ordered[low] + ordered[high]) / 2
    return median


def _symbols(
    documents: Documents,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How often the text has "#", has "..." or U+2026, and has ". . .", each counted as
    ``str.count`` does.
    """
    data, offsets, alive = text_arrays(documents)
    hashes, ellipses, spaced = (np.zeros(len(documents), np.int64) for _ in range(3))
    _count_symbols(data, offsets, alive, hashes, ellipses, spaced)
    return hashes, ellipses, spaced


def _line_marks(documents: Documents, split: Lines, marks: np.int64, strip: bool) -> Measures:
    data, offsets, _ = text_arrays(documents)
    seen = scan(documents)
    bullets, ellipses = (np.zeros(len(documents), np.int64) for _ in range(2))
    _count_line_marks(
        data, offsets, seen.block, seen.solid, *split, marks, strip, bullets, ellipses
    )
    total = np.diff(split.first)
    return {"bullet_lines": ratio(bullets, total), "ellipsis_lines": ratio(ellipses, total)}


@kernel
def _count_words(
    first: Int64s,
    length: Int32s,
    flags: UInt8s,
    plain: Int64s,
    total_length: Int64s,
    letters: Int64s,
    stops: Int64s,
) -> None:
    for doc in range(first.size - 1):
        seen: Any = 0
        for word in range(first[doc], first[doc + 1]):
            flag = np.int64(flags[word])
            plain[doc] += (flag & NOT_SYMBOL) != 0
            total_length[doc] += length[word] if flag & NOT_SYMBOL else 0
            letters[doc] += flag & HAS_LETTER
            if flag & EXACT_STOP_WORD:
                seen |= 1 << (flag >> STOP_WORD_SHIFT)
        stops[doc] = population(np.uint64(seen))


@kernel
def _count_candidates(one: UInt8s, two: UInt8s, three: UInt8s) -> Any:
    """(# signs, places where an ellipsis begins, places where spaced dots may begin), all in
    ``one``.

    ``two`` and ``three`` are the text from its second and third byte on; they reach behind its end,
    so that there may be an ellipsis too many.
    """
    hashes, ellipses, spaced = 0, 0, 0
    for i in range(one.size):
        hashes += one[i] == 35
        dots = (one[i] == 46) & (three[i] == 46)
        wide = (one[i] == 0xE2) & (two[i] == 0x80) & (three[i] == 0xA6)
        ellipses += (dots & (two[i] == 46)) | wide
        spaced += dots & (two[i] == 32)
    return hashes, ellipses, spaced


@kernel
def _count_ellipses(text: UInt8s) -> Any:
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


@kernel
def _count_spaced(text: UInt8s) -> Any:
    """``text.count(". . .")``."""
    found, at = 0, 0
    while at + 5 <= text.size:
        dots = text[at] == 46 and text[at + 2] == 46 and text[at + 4] == 46
        if dots and text[at + 1] == 32 and text[at + 3] == 32:
            found += 1
            at += 5
        else:
            at += 1
    return found


@kernel
def _count_symbols(
    data: UInt8s,
    offsets: Int64s,
    alive: Bools,
    hashes: Int64s,
    ellipses: Int64s,
    spaced: Int64s,
) -> None:
    for doc in range(alive.size):
        begin, end = offsets[doc], offsets[doc + 1]
        if not alive[doc] or begin == end:
            continue
        text = data[begin:end]
        hashes[doc], single, double = _count_candidates(
            text, data[begin + 1 : end + 1], data[begin + 2 : end + 2]
        )
        if single:
            ellipses[doc] = _count_ellipses(text)
        if double:
            spaced[doc] = _count_spaced(text)


@kernel
def _count_symbol_words(
    data: UInt8s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
    symbols: Int64s,
) -> None:
    """Words that contain # or U+2026 (E2 80 A6)."""
    for doc in range(first.size - 1):
        for word in range(first[doc], first[doc + 1]):
            for at in range(start[word], end[word]):
                wide = data[at] == 0xE2 and data[at + 1] == 0x80 and data[at + 2] == 0xA6
                if wide or data[at] == 35:
                    symbols[doc] += 1
                    break


@kernel
def _is_bullet(data: UInt8s, low: Any, high: Any, marks: Any) -> Any:
    """Whether ``data[low:high]`` begins with one of the bullets among the marks: - * U+2022 (E2 80
    A2) U+25CF (E2 97 8F).
    """
    byte = data[low]
    if byte == 45 or byte == 42:
        return (marks & (_DASH if byte == 45 else _STAR)) != 0
    if byte != 0xE2 or high - low < 3:
        return False
    if data[low + 1] == 0x80 and data[low + 2] == 0xA2:
        return (marks & _BULLET) != 0
    return data[low + 1] == 0x97 and data[low + 2] == 0x8F and (marks & _CIRCLE) != 0


@kernel
def _is_ellipsis(data: UInt8s, low: Any, high: Any, marks: Any) -> Any:
    """Whether ``data[low:high]`` ends with U+2026 or an ellipsis of dots among the marks."""
    if high - low < 3:
        return False
    if data[high - 1] == 0xA6:
        return data[high - 2] == 0x80 and data[high - 3] == 0xE2
    if data[high - 1] != 46:
        return False
    if data[high - 2] == 46 and data[high - 3] == 46:
        return (marks & _THREE_DOTS) != 0
    if high - low < 5 or not marks & _SPACED_DOTS:
        return False
    spaces = data[high - 2] == 32 and data[high - 4] == 32
    return spaces and data[high - 3] == 46 and data[high - 5] == 46


@kernel
def _count_line_marks(
    data: UInt8s,
    offsets: Int64s,
    block: Int64s,
    solid: UInt64s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
    marks: Any,
    strip: Any,
    bullets: Int64s,
    ellipses: Int64s,
) -> None:
    """Lines that begin with a bullet, and lines that end with an ellipsis."""
    for doc in range(first.size - 1):
        base = offsets[doc]
        bits = solid[block[doc] : block[doc + 1]]
        for line in range(first[doc], first[doc + 1]):
            low, high = start[line], end[line]
            if strip:
                low = base + next_bit(bits, low - base, high - base)
                high = base + last_bit(bits, low - base, high - base)
            if low < high:
                bullets[doc] += _is_bullet(data, low, high, marks)
                ellipses[doc] += _is_ellipsis(data, low, high, marks)
