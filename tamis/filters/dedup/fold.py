"""Letters without case: what makes "Ångström," and "ångström" the same word.

A character becomes its Unicode case folding when that is a single character, else its lower case
when that is, else it stays. Working character by character keeps the fold independent of context,
so it can be applied to any slice of a text.
"""

from __future__ import annotations

import functools
import string
import unicodedata

import numpy as np

from tamis.filters.dedup.types import UInt32

# No character at or above this code point has a case or is ignored; they stay as they are.
FOLD_LIMIT = 0x20000


def fold_character(character: str) -> str:
    """The character without case, always one character."""
    for folded in (character.casefold(), character.lower()):
        if len(folded) == 1:
            return folded
    return character


def is_ignored(character: str) -> bool:
    """Whether it does not count in a word: ASCII punctuation and symbols (``string.punctuation``),
    every character of a Unicode category P*, white space and control characters.
    """
    if character in string.punctuation or character.isspace():
        return True
    category = unicodedata.category(character)
    return category.startswith("P") or category == "Cc"


def fold_word(word: str) -> str:
    """The word as it counts in a shingle: case folded, ignored characters removed. May be empty."""
    return "".join(fold_character(c) for c in word if not is_ignored(c))


@functools.cache
def fold_table(*, ignore: bool) -> UInt32:
    """For each code point below ``FOLD_LIMIT`` the UTF-8 bytes of its fold, the first byte lowest.

    0 stands for nothing: for NUL, for surrogates, which are not in UTF-8 text, and with ``ignore``
    for the characters that ``is_ignored`` names.
    """
    table = np.zeros(FOLD_LIMIT, np.uint32)
    for code in range(FOLD_LIMIT):
        character = chr(code)
        if 0xD800 <= code < 0xE000 or (ignore and is_ignored(character)):
            continue
        table[code] = int.from_bytes(fold_character(character).encode(), "little")
    table.flags.writeable = False
    return table
