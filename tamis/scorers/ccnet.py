"""How CCNet writes text before its language models see it (Wenzek et al. 2020, arXiv:1911.00359).

Stripped, in lower case, decomposed and without accents (NFD without Mn), every digit a 0, Unicode
punctuation as ASCII has it, and without control characters. These are the models' alphabet: a
perplexity under one of them means nothing for text that is written otherwise.
"""

from __future__ import annotations

import unicodedata
from functools import cache

_PUNCTUATION = {
    **dict.fromkeys("„”“«»」「《》", '"'),
    **dict.fromkeys("´’", "'"),
    **dict.fromkeys("∶：", ":"),
    **dict.fromkeys("–━►", "-"),
    **dict(zip("，。、？！（）；～〈〉【】％", ",.,?!();~<>[]%", strict=True)),
    "—": " - ",
    "．": ". ",
    "…": "...",
}
_CONTROL = {*range(32), *range(127, 160)}


class _Table(dict[int, str]):
    """What becomes of each character, found when it is first seen."""

    def __init__(self, keep_words_apart: bool) -> None:
        super().__init__()
        self._apart = keep_words_apart

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character) == "Mn":
            value = ""
        elif character.isdecimal():
            value = "0"
        elif code in _CONTROL:
            value = " " if self._apart and character.isspace() else ""
        else:
            value = _PUNCTUATION.get(character, character)
        self[code] = value
        return value


@cache
def _table(keep_words_apart: bool) -> _Table:
    return _Table(keep_words_apart)


def ccnet_normalize(text: str, compatible: bool = False) -> str:
    """The text as CCNet's models want it.

    CCNet deletes line breaks and tabs with the other control characters, so the last word of a line
    and the first of the next become one; here they are spaces, unless ``compatible``.
    """
    lower = unicodedata.normalize("NFD", text.strip().lower())
    return lower.translate(_table(not compatible))
