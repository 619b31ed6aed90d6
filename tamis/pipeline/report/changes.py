"""What a refining stage did to a text: a diff by lines, with the changed words of a line marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tamis.pipeline.report.figures import shown

# Bounds that keep a diff readable and its cost (quadratic in the worst case) small.
LINES_COMPARED = 400
LINES_SHOWN = 60
LINE_LIMIT = 2_000
WORDS_COMPARED = 400
_CONTEXT_LINES = 2
# So many lines before, then so many after: close enough together to be compared.
_BLOCK = 6
_CONTEXT_WORDS = 12
_REMOVED = Markup("<del>{}</del>")
_ADDED = Markup("<ins>{}</ins>")


@dataclass(frozen=True)
class Line:
    """A line of a diff; ``sign`` is "-" (before), "+" (after), " " (both) or "…" (left out)."""

    sign: str
    html: Markup


@dataclass(frozen=True)
class Diff:
    """The lines to show, and whether the texts go on beyond them."""

    lines: tuple[Line, ...]
    cut: bool


def diff(before: str, after: str) -> Diff:
    """Both texts line by line, unchanged stretches left out; at most ``LINES_SHOWN`` lines."""
    limit = LINES_COMPARED * LINE_LIMIT
    old, new = before[:limit].split("\n"), after[:limit].split("\n")
    cut = max(len(old), len(new)) > LINES_COMPARED or max(len(before), len(after)) > limit
    old, new = old[:LINES_COMPARED], new[:LINES_COMPARED]
    lines = list(_lines(old, new))
    return Diff(tuple(lines[:LINES_SHOWN]), cut or len(lines) > LINES_SHOWN)


def _lines(old: Sequence[str], new: Sequence[str]) -> Iterator[Line]:
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    end = 0
    for group in matcher.get_grouped_opcodes(_CONTEXT_LINES):
        yield from _left_out(group[0][1] - end)
        for tag, i, j, k, m in group:
            if tag == "equal":
                yield from (Line(" ", shown(line, LINE_LIMIT, exact=True)) for line in old[i:j])
            else:
                for start in range(0, max(j - i, m - k), _BLOCK):
                    stop = start + _BLOCK
                    yield from _replaced(old[i:j][start:stop], new[k:m][start:stop])
        end = group[-1][2]
    yield from _left_out(len(old) - end)


def _left_out(lines: int) -> Iterator[Line]:
    if lines:
        what = "line" if lines == 1 else "lines"
        yield Line("…", Markup("{} unchanged {}").format(lines, what))


def _replaced(old: Sequence[str], new: Sequence[str]) -> Iterator[Line]:
    """Lines that stand for each other are compared word by word if they come in equal number."""
    if len(old) == len(new):
        pairs = [_words(before, after) for before, after in zip(old, new, strict=True)]
        yield from (Line("-", before) for before, _ in pairs)
        yield from (Line("+", after) for _, after in pairs)
    else:
        yield from (Line("-", shown(line, LINE_LIMIT, exact=True)) for line in old)
        yield from (Line("+", shown(line, LINE_LIMIT, exact=True)) for line in new)


def _words(before: str, after: str) -> tuple[Markup, Markup]:
    """The two lines with the words that differ marked, long stretches that agree shortened."""
    # White space is a word of its own: that it changed is often all that changed.
    old = re.findall(r"\s+|\S+", before[:LINE_LIMIT])[:WORDS_COMPARED]
    new = re.findall(r"\s+|\S+", after[:LINE_LIMIT])[:WORDS_COMPARED]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    removed: list[Markup] = []
    added: list[Markup] = []
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            same = _shortened(old[i:j])
            removed.append(same)
            added.append(same)
        else:
            removed.append(_marked(_REMOVED, "".join(old[i:j])))
            added.append(_marked(_ADDED, "".join(new[k:m])))
    if len(before) > len("".join(old)) or len(after) > len("".join(new)):
        removed.append(Markup("…"))
        added.append(Markup("…"))
    return Markup("").join(removed), Markup("").join(added)


def _marked(element: Markup, text: str) -> Markup:
    return element.format(shown(text, LINE_LIMIT, exact=True)) if text else Markup("")


def _shortened(words: Sequence[str]) -> Markup:
    if len(words) <= 2 * _CONTEXT_WORDS + 8:
        return shown("".join(words), LINE_LIMIT, exact=True)
    head = shown("".join(words[:_CONTEXT_WORDS]), LINE_LIMIT, exact=True)
    tail = shown("".join(words[-_CONTEXT_WORDS:]), LINE_LIMIT, exact=True)
    return head + Markup(' <span class="more">…</span> ') + tail
