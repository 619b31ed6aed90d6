"""Words by the default word boundaries of Unicode Standard Annex 29, which need no dictionary and
serve every language.

Runs of letters and digits are words ("can't", "3.14", "U.S", "foo_bar" are one each), so are runs
of katakana and of hangul; an ideograph, a hiragana and a Thai, Lao, Khmer or Burmese character
(with its marks) is a word by itself. Of the segments between two boundaries those with no letter or
digit (``str.isalnum``) are not words and are left out: spaces, punctuation, symbols, emoji.

Source: UAX 29, section 4 (rules WB4 to WB13b); the properties come from ``unicodedata`` and the
lists of table 3.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.filters.text.bitmap import Bools, Int64s, UInt8s, text_arrays
from tamis.filters.text.scan import scan
from tamis.filters.text.unicode_classes import (
    ALPHANUMERIC,
    CODE_POINTS,
    HIGHEST,
    character_classes,
    code_points,
)
from tamis.filters.text.words import Spans, decode
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents

# The word break properties, as far as they matter to words.
_OTHER, _LETTER, _HEBREW, _NUMERIC, _KATAKANA, _CONNECTOR, _EXTEND = range(7)
_MID_LETTER, _MID_NUMBER, _MID_EITHER, _SINGLE_QUOTE, _DOUBLE_QUOTE = range(7, 12)
_PROPERTY = 15
_WORDLIKE = 16

_LISTED = (
    # Letters of modifier symbol or punctuation category, and circled letters.
    (
        _LETTER,
        "2C2-2C5 2D2-2D7 2DE-2DF 2E5-2EB 2ED 2EF-2FF 55A-55C 55E 58A 5F3 A708-A716 A720-A721",
    ),
    (_LETTER, "A789-A78A AB5B 24B6-24E9 1F130-1F149 1F150-1F169 1F170-1F189"),
    (
        _HEBREW,
        "5D0-5EA 5EF-5F2 FB1D FB1F-FB28 FB2A-FB36 FB38-FB3C FB3E FB40-FB41 FB43-FB44 FB46-FB4F",
    ),
    # Scripts without spaces, whose words only a dictionary tells.
    (_OTHER, "E01-E30 E32-E33 E40-E46 E81-EB0 EB2-EB3 EBD-EC6 EDC-EDF 1000-102A 103F 1050-1055"),
    (_OTHER, "105A-105D 1061 1065-1066 106E-1070 1075-1081 108E 1780-17B3 17D7 17DC 1950-19C9"),
    (
        _OTHER,
        "1A20-1A54 1AA7 A9E0-A9E4 A9E6-A9EF A9FA-A9FE AA60-AA76 AA7A AA7E-AAAF AAB1 AAB5-AAB6",
    ),
    (_OTHER, "AAB9-AABD AAC0 AAC2 AADB-AADD 11700-1171A 11740-11746"),
    # Ideographs and hiragana.
    (_OTHER, "3005-3007 3021-3029 3038-303B 3041-3096 309D-309F 3400-4DBF 4E00-9FFF F900-FAFF"),
    (_OTHER, "16FE4 17000-18CFF 18D00-18D08 1B001-1B11F 1B150-1B152 1B170-1B2FB 1F200 20000-323AF"),
    (_KATAKANA, "3031-3035 309B-309C 30A0-30FA 30FC-30FF 31F0-31FF 32D0-32FE 3300-3357 FF66-FF9D"),
    (_KATAKANA, "1AFF0-1AFF3 1AFF5-1AFFB 1AFFD-1AFFE 1B000 1B120-1B122 1B155 1B164-1B167"),
    (_EXTEND, "200C-200D FF9E-FF9F 1F3FB-1F3FF E0001 E0020-E007F E0100-E01EF"),
    (_OTHER, "200B"),
    (_CONNECTOR, "202F"),
    (_NUMERIC, "66B"),
    (_MID_LETTER, "3A B7 387 55F 5F4 2027 FE13 FE55 FF1A"),
    (_MID_NUMBER, "2C 3B 37E 589 60C-60D 66C 7F8 2044 FE10 FE14 FE50 FE54 FF0C FF1B"),
    (_MID_EITHER, "2E 2018-2019 2024 FE52 FF07 FF0E"),
    (_SINGLE_QUOTE, "27"),
    (_DOUBLE_QUOTE, "22"),
)

_BY_CATEGORY = {
    **dict.fromkeys(("Lu", "Ll", "Lt", "Lm", "Lo", "Nl"), _LETTER),
    **dict.fromkeys(("Mn", "Mc", "Me", "Cf"), _EXTEND),
    "Nd": _NUMERIC,
    "Pc": _CONNECTOR,
}


@cache
def word_break_properties() -> NDArray[np.uint8]:
    """The word break property of every code point, + 16 for those that make a segment a word; shape
    (0x110000,).
    """
    table = np.zeros(CODE_POINTS, np.uint8)
    categories = map(unicodedata.category, map(chr, range(HIGHEST)))
    table[:HIGHEST] = [_BY_CATEGORY.get(category, _OTHER) for category in categories]
    for value, ranges in _LISTED:
        table[list(code_points(ranges))] = value
    table[character_classes() & ALPHANUMERIC != 0] |= _WORDLIKE
    table.flags.writeable = False
    return table


def unicode_spans(documents: Documents) -> Spans:
    """The spans of the words of the documents that are alive."""
    data, offsets, alive = text_arrays(documents)
    most = int(scan(documents).characters.sum())
    first = np.zeros(len(documents) + 1, np.int64)
    start, end = np.empty(most, np.int64), np.empty(most, np.int64)
    _segment(data, offsets, alive, word_break_properties(), first, start, end)
    return first, start[: first[-1]].copy(), end[: first[-1]].copy()


@kernel
def _joins(last: Any, middle: Any, kind: Any) -> Any:
    """Whether a character continues a word whose last character, and the mark in between (0 for
    none), are given.
    """
    last_letter = last in (_LETTER, _HEBREW)
    if middle:
        if kind in (_LETTER, _HEBREW):
            if middle == _DOUBLE_QUOTE:
                return last == _HEBREW and kind == _HEBREW
            return last_letter and middle != _MID_NUMBER
        return kind == _NUMERIC and last == _NUMERIC and middle not in (_MID_LETTER, _DOUBLE_QUOTE)
    if last == _OTHER or kind == _OTHER:
        return False
    if kind == _KATAKANA or last == _KATAKANA:
        return last == kind or _CONNECTOR in (last, kind)
    return True


@kernel
def _width(lead: Any) -> Any:
    """The bytes of a character by its first byte."""
    return 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)


@kernel
def _segment_document(
    data: UInt8s,
    begin: Any,
    stop: Any,
    properties: UInt8s,
    start: Int64s,
    end: Int64s,
    found: Any,
) -> Any:
    """Write the words of one document from index ``found`` on; returns the index behind them."""
    opened: Any = False
    wordlike: Any = False
    middle: Any = 0
    last: Any = _OTHER
    at = begin
    while at < stop:
        value = np.int64(properties[decode(data, at)])
        after = at + _width(data[at])
        kind = value & _PROPERTY
        if kind == _EXTEND:
            # Marks belong to what they follow (WB4), be it the one in the middle that may yet join
            # two letters and is no part of the word before it does.
            if opened and end[found] == at:
                end[found] = after
        elif opened and kind < _EXTEND and _joins(last, middle, kind):
            end[found], last, middle = after, kind, 0
            wordlike |= value >= _WORDLIKE
        elif opened and kind >= _MID_LETTER and not middle and last != _OTHER:
            middle = kind
            if last == _HEBREW and kind == _SINGLE_QUOTE:
                end[found] = after
        else:
            found += opened and wordlike
            opened, middle, last = kind < _EXTEND, 0, kind
            wordlike = value >= _WORDLIKE
            if opened:
                start[found], end[found] = at, after
        at = after
    return found + (opened and wordlike)


@kernel
def _segment(
    data: UInt8s,
    offsets: Int64s,
    alive: Bools,
    properties: UInt8s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
) -> None:
    found = 0
    for doc in range(alive.size):
        if alive[doc]:
            begin, stop = offsets[doc], offsets[doc + 1]
            found = _segment_document(data, begin, stop, properties, start, end, found)
        first[doc + 1] = found
