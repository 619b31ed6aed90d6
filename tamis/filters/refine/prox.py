"""The published executor of ProX, with every one of its quirks: ``compat: prox``.

    edited, errors = apply(text, program)

Operations are told by what a line begins with. Arguments are cut at commas and equals signs, in
strings too: a source with a comma changes nothing, one with an equals sign ends there, one with a
bracket as well. Every ``normalize`` is about the whole document, one after the other, and lines are
numbered in what comes out. Positional line numbers are errors, and so is a bracket that is missing,
which costs the last character besides. Its one difference: a replacement that makes the text longer
than ``MOST_GROWTH`` times what it was is an error, where the published one fills the memory.

Source: Zhou et al. 2024 (arXiv:2409.17115) and the code published with it (data_gen, utils).
"""

from __future__ import annotations

from collections.abc import Iterable

from tamis.filters.refine.edits import Edited, Replacement, left, merged

MOST_ERRORS = 1
"""With more, the program is ignored (``error_op`` 2)."""
MOST_REMOVED = 0.95
"""Drop a document of whose words so many went (``threshold_2``)."""
MOST_WORDS_DROPPED = 10
"""Drop a document with so few words left."""
MOST_GROWTH = 16


def keeps(program: str) -> bool:
    """Whether a document program keeps: it does unless "drop" stands in it, wherever."""
    return "drop" not in program


def apply(text: str, program: str) -> tuple[Edited, int]:
    """The text after the calls of a chunk program, whatever its errors, and how many they are."""
    lines = program.strip(" ").split("\n")
    limit = MOST_GROWTH * (len(text) + 1)
    before = text
    errors = 0
    replacements = []
    for line in lines:
        if not line.startswith("normalize"):
            continue
        arguments, wrong = _arguments(line)
        errors += wrong
        if arguments is None:
            continue
        pair = _pair(arguments)
        if pair is None:
            errors += 1
            continue
        source, target = pair
        found = before.count(source) if source else 0
        if len(before) + found * (len(target) - len(source)) > limit:
            errors += 1
        elif found:
            before = before.replace(source, target)
            replacements.append(Replacement(source, target, found))
    numbered = before.split("\n")
    intervals, wrong = _removals(lines, len(numbered))
    errors += wrong
    removed = []
    for first, last in merged(intervals):
        errors += last >= len(numbered)
        if first < len(numbered):
            removed.append((first, min(last, len(numbered) - 1)))
    after = "\n".join(left(numbered, removed)) if removed else before
    return Edited(after, tuple(removed), tuple(replacements)), errors


def _removals(lines: Iterable[str], count: int) -> tuple[list[tuple[int, int]], int]:
    """The intervals of lines that are asked for, and the errors in the calls."""
    intervals = []
    errors = 0
    for line in lines:
        if not line.startswith("remove_lines"):
            continue
        arguments, wrong = _arguments(line)
        errors += wrong
        if arguments is None:
            continue
        if arguments.strip() == "all=True":
            intervals.append((0, count - 1))
            continue
        try:
            first, last = (int(one.split("=")[1]) for one in arguments.split(",")[:2])
        except (ValueError, IndexError):
            errors += 1
            continue
        if first <= last and last >= 0:
            intervals.append((max(first, 0), last))
    return intervals, errors


def _arguments(line: str) -> tuple[str | None, int]:
    """What stands between the first brackets, and how many errors that is."""
    opening = line.find("(")
    if opening < 0:
        return None, 1
    closing = line.find(")")
    return line[opening + 1 : closing], int(closing < 0)


def _pair(arguments: str) -> tuple[str, str] | None:
    """Source and target of a replacement, ("", "") for one that does nothing, None for an error."""
    fields = arguments.split(",")
    if len(fields) > 2:
        return "", ""
    values = []
    for one in fields:
        _, equals, value = one.partition("=")
        if not equals:
            return None
        values.append(value.partition("=")[0].strip('"'))
    if len(values) == 1:
        return values[0], ""
    return ("", "") if values[0] == " " else (values[0], values[1])
