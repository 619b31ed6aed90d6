"""A document that cannot be read, told to the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

EXCERPT_CHARACTERS = 160


class BadRecord(NamedTuple):
    """A place in the input that gave no document: where, why (one sentence), and how it begins."""

    position: str
    """``line 17``, ``byte 1234``, ``row 5 of row group 3`` ..."""
    reason: str
    excerpt: str


def excerpt(raw: bytes | bytearray | memoryview | str) -> str:
    """The beginning of ``raw`` in printable characters, for a message or a log."""
    if not isinstance(raw, str):
        raw = bytes(raw[: 4 * EXCERPT_CHARACTERS]).decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in raw[:EXCERPT_CHARACTERS])
    return shown + "..." if len(raw) > EXCERPT_CHARACTERS else shown


def nearest(name: str, names: Iterable[str]) -> str:
    """What to say about a name that is not among ``names``: the nearest one, or what there is."""
    names = [str(other) for other in names]
    if near := difflib.get_close_matches(name, names, 1, 0.5):
        return f"did you mean {excerpt(near[0])!r}?"
    if not names:
        return "there are none"
    shown = ", ".join(repr(excerpt(other)) for other in names[:8])
    return f"there are {shown}{', ...' if len(names) > 8 else ''}"
