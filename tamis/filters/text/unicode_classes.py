"""Classes of characters: letters, white space and the punctuation sets of the published filters, as
one table.

The table has a byte for every code point and is made the first time it is asked for (some 50 ms),
from ``str.isalpha``, ``str.isspace`` and ``str.isalnum`` of the running Python, so that kernels
agree with it; texts in ASCII never look into it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

LETTER = 1
"""``str.isalpha``."""
PUNCTUATION_MARK = 2
"""In PUNCTUATION_SET."""
TERMINAL_MARK = 4
"""In TERMINAL_PUNCTUATION: ends a sentence."""
SPACE = 8
"""``str.isspace``, which is what ``str.split`` and ``str.strip`` go by."""
ALPHANUMERIC = 16
"""``str.isalnum``."""

CODE_POINTS = 0x110000
# Beyond this, only private use and unassigned code points, tags and variation selectors: no class
# but their own.
HIGHEST = 0x40000


def code_points(ranges: str) -> frozenset[int]:
    """The code points of a list of hexadecimal numbers and ranges, as in ``"21 2E 3A-40"``."""
    found: set[int] = set()
    for item in ranges.split():
        low, _, high = item.partition("-")
        found.update(range(int(low, 16), int(high or low, 16) + 1))
    return frozenset(found)


SENTENCE_END = code_points(
    "21 2E 3F 589 61F 6D4 700-702 7F9 964-965 104A-104B 1362 1367-1368 166E 1735-1736 1803 1809 "
    "1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 2E2E 2E3C "
    "3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB "
    "FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 11047-11048 110BE-110C1 11141-11143 "
    "111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 "
    "115C9-115D7 11641-11642 1173C-1173E 11A42-11A43 11A9B-11A9C 11C41-11C42 16A6E-16A6F 16AF5 "
    "16B37-16B38 16B44 1BC9F 1DA88"
)
"""The 128 marks after which spaCy's Sentencizer ends a sentence."""

TERMINAL_PUNCTUATION = SENTENCE_END | code_points(
    "61D-61E 837 839 83D-83E 17D4-17D6 17D9-17DA 1B7D-1B7E 2E53-2E54 10F55-10F59 10F86-10F89 "
    "11944 11946 11EF7-11EF8 11F43-11F44 16E98"
)
"""The 159 marks that end a line for FineWeb's filter; it has no quotation marks and no U+2026."""

PUNCTUATION = code_points(
    "0-8 B-1F 21-2F 3A-40 5B-60 7B-9F AB B4 BB 2013-2014 2019 201C-201E 2026 2236 2501 25BA "
    "3001-3002 3008-300D 3010-3011 FF01 FF05 FF08-FF09 FF0C FF0E FF11 FF1A-FF1B FF1F FF5E"
)
"""The 129 marks of datatrove's ``PUNCTUATION`` (the full-width digit one is among them)."""

PUNCTUATION_SET = PUNCTUATION | TERMINAL_PUNCTUATION
"""A word of these alone is a symbol for the Gopher filter (281 code points)."""


@cache
def character_classes() -> NDArray[np.uint8]:
    """For every code point the sum of its classes (LETTER, PUNCTUATION_MARK, ...); shape
    (0x110000,), not writable.
    """
    table = np.zeros(CODE_POINTS, np.uint8)
    characters = [chr(code) for code in range(HIGHEST)]
    for flag, belongs in (
        (LETTER, str.isalpha),
        (SPACE, str.isspace),
        (ALPHANUMERIC, str.isalnum),
    ):
        member = np.fromiter(map(belongs, characters), np.bool_, HIGHEST)
        table[:HIGHEST][member] |= flag
    table[list(PUNCTUATION_SET)] |= PUNCTUATION_MARK
    table[list(TERMINAL_PUNCTUATION)] |= TERMINAL_MARK
    table.flags.writeable = False
    return table
