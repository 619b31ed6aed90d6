"""What a program did to a text: the lines that went, and the strings that were replaced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Interval = tuple[int, int]
"""The first and the last of some lines."""


class Replacement(NamedTuple):
    """A string that was replaced, and how often."""

    source: str
    target: str
    times: int


class Edited(NamedTuple):
    """A text, and how it differs from what it was."""

    text: str
    removed: tuple[Interval, ...] = ()
    """Lines that went, in the numbering of the text before, in order and apart."""
    replaced: tuple[Replacement, ...] = ()


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same lines as intervals in order, with a line between any two."""
    joined: list[Interval] = []
    for first, last in sorted(intervals):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def left(lines: Sequence[str], removed: Iterable[Interval]) -> list[str]:
    """The lines that stay when some go; ``removed`` is in order."""
    stay: list[str] = []
    at = 0
    for first, last in removed:
        stay += lines[at:first]
        at = last + 1
    return stay + list(lines[at:])
