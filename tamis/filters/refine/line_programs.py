"""From labels of lines to programs and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from tamis.filters.refine.chunks import Chunk
from tamis.filters.refine.line_features import REMOVE
from tamis.filters.refine.program import (
    about_lines,
    normalize,
    parse,
    remove_lines,
)

# Case counts in what follows the scheme: the Kelvin sign, which is no part of an address, is a k.
_ADDRESS = re.compile(r"(?i:https?://|ftp://|www\.)[^\s\"'<>()\[\]{}`\u2000-\u3fff]+")
_BRACKETS = {"(": ")", "[": "]", "<": ">", "{": "}"}
_NOTHING = "keep_chunk()"


def addresses(line: str) -> list[tuple[int, int]]:
    """Where the addresses of a line begin and end, without the marks that end a sentence."""
    found = []
    for one in _ADDRESS.finditer(line):
        size = len(one[0].rstrip("!,.:;?*_"))
        if size > 8:
            found.append((one.start(), one.start() + size))
    return found


def address_sources(line: str) -> list[str]:
    """What goes with each address of a line: brackets around it, and a space in front of it (behind
    it at the beginning of the line).
    """
    sources = []
    for start, end in addresses(line):
        if _BRACKETS.get(line[start - 1 : start], " ") == line[end : end + 1] != " ":
            start, end = start - 1, end + 1
        if line[start - 1 : start] == " ":
            start -= 1
        elif start == 0 and line[end : end + 1] == " ":
            end += 1
        sources.append(line[start:end])
    return list(dict.fromkeys(sources))


def intervals(lines: Iterable[int]) -> list[tuple[int, int]]:
    """Line numbers, ascending, as first and last of those that follow each other."""
    found: list[tuple[int, int]] = []
    for line in lines:
        if found and line == found[-1][1] + 1:
            found[-1] = (found[-1][0], line)
        else:
            found.append((line, line))
    return found


def line_program(labels: Sequence[int], sources: Mapping[int, Sequence[str]]) -> str:
    """The program that removes the lines labelled REMOVE and the ``sources`` of other lines.

    A replacement is limited to its line by a comment, so that the same string stays elsewhere.
    """
    calls: list[str] = []
    removed = [line for line, label in enumerate(labels) if label == REMOVE]
    places = [line for line in sorted(sources) if sources[line] and labels[line] != REMOVE]
    if not places:
        return "\n".join(remove_lines(*one) for one in intervals(removed)) or _NOTHING
    begin, at = 0, 0
    for place in [*places, len(labels)]:
        here = at
        while at < len(removed) and removed[at] < place:
            at += 1
        if here < at:
            calls.append(about_lines(begin, place - 1))
            calls += [remove_lines(*one) for one in intervals(removed[here:at])]
        if place < len(labels):
            calls.append(about_lines(place, place))
            calls += [normalize(one) for one in sources[place]]
        begin = place + 1
    return "\n".join(calls)


def removed_lines(program: str, count: int) -> set[int]:
    """The numbers of the lines that a program removes of a document of ``count`` lines."""
    found: set[int] = set()
    for part in parse(program).parts:
        last = count - 1 if part.last is None else min(part.last, count - 1)
        for start, end in part.removals:
            begin = part.first if end is None else max(start, part.first, 0)
            found.update(range(begin, (last if end is None else min(end, last)) + 1))
    return found


def replaced_lines(program: str, lines: Sequence[str]) -> set[int]:
    """The numbers of the lines in which a program replaces something."""
    found: set[int] = set()
    for part in parse(program).parts:
        last = len(lines) - 1 if part.last is None else min(part.last, len(lines) - 1)
        for source, _ in part.replacements:
            found.update(line for line in range(part.first, last + 1) if source in lines[line])
    return found


def window_program(program: str, lines: Sequence[str], window: Chunk) -> str:
    """The part of the program of a document that a model can write which sees one window of it: the
    lines that go there, and the strings that are replaced in lines that stay and that are shown.

    The comments that limit a replacement to single lines are no part of an answer: within the
    window every occurrence goes.
    """
    shown = range(window.first, window.last + 1)
    gone = removed_lines(program, len(lines))
    calls = [remove_lines(*one) for one in intervals(line for line in shown if line in gone)]
    for part in parse(program).parts:
        last = len(lines) - 1 if part.last is None else part.last
        stay = [lines[at] for at in shown if part.first <= at <= last and at not in gone]
        calls += [
            normalize(source, target)
            for source, target in part.replacements
            if source in window.text and any(source in line for line in stay)
        ]
    return "\n".join(dict.fromkeys(calls)) or _NOTHING
