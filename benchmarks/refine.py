"""Programs of ProX: how fast they are executed, beside the published rules written down plainly.

The programs are like those of a model: lines at the ends of a document go, and addresses in it,
and one call in ten is wrong. Both sides read the same programs, and give the same texts.
"""

from __future__ import annotations

import random
import re
from typing import Any

import xxhash

from benchmarks import generation
from benchmarks.harness import Side, clock, compare, side_by_side
from benchmarks.texts import Part, read_records
from tamis.filters.refine.program import normalize, remove_lines

_ADDRESS = re.compile(r"https?://[^\s,=()\"\\]+")


def programs(texts: list[str], seed: int = 1) -> list[str]:
    """A program for each text, the same every time."""
    chance = random.Random(seed)
    written = []
    for text in texts:
        last = text.count("\n")
        calls = []
        if chance.random() < 0.6:
            calls.append(remove_lines(0, chance.randint(0, 3)))
        if chance.random() < 0.6:
            calls.append(remove_lines(last - chance.randint(0, 3), last))
        calls += [normalize(one) for one in dict.fromkeys(_ADDRESS.findall(text)[:4])]
        if chance.random() < 0.1:
            calls.append("remove_lines(0, 1)")
        written.append("\n".join(calls) or "keep_all()")
    return written


def plain_execute(text: str, program: str) -> str:
    """The published executor's rules, one after the other."""
    original = text
    errors = 0
    wanted: set[tuple[int, int]] = set()
    for call in program.strip(" ").split("\n"):
        inside = call[call.find("(") + 1 : call.find(")")]
        if call.startswith("normalize"):
            strings = [one.split("=")[1].strip('"') for one in inside.split(",")]
            if len(strings) == 1:
                text = text.replace(strings[0], "")
            elif len(strings) == 2 and strings[0] not in ("", " "):
                text = text.replace(strings[0], strings[1])
        elif call.startswith("remove_lines"):
            try:
                first, last = (int(one.split("=")[1]) for one in inside.split(",")[:2])
            except (IndexError, ValueError):
                errors += 1
                continue
            if first <= last:
                wanted.add((max(first, 0), last))
    lines = text.split("\n")
    gone: set[int] = set()
    end = -2
    for first, last in sorted(wanted):
        # Intervals that touch are one, which can be out of range once.
        errors += last >= len(lines) > end if first <= end + 1 else last >= len(lines)
        end = max(end, last)
        gone.update(range(first, min(last + 1, len(lines))))
    return _decide(
        original, "\n".join(one for at, one in enumerate(lines) if at not in gone), errors
    )


def _decide(before: str, after: str, errors: int) -> str:
    words, left = len(before.split()), len(after.split())
    if (words == 0 or left / words <= 0.05) and errors < 2:
        return ""
    if left <= 10:
        return ""
    return after if errors < 2 else before


def tamis_subject(path: str, compat: str | None) -> dict[str, Any]:
    """``execute`` on every text."""
    from tamis.filters.refine import execute

    texts = [record["text"] for record in read_records(path)]
    written = programs(texts)
    execute("河" * 99, normalize("河河"))  # Loads what counts words without spaces.
    with clock() as spent:
        found = [execute(*one, compat) or "" for one in zip(texts, written, strict=True)]  # type: ignore[arg-type]
    return spent.result(len(texts), _size(texts), texts=_digest(found))


def plain_subject(path: str) -> dict[str, Any]:
    """``plain_execute`` on every text."""
    texts = [record["text"] for record in read_records(path)]
    written = programs(texts)
    with clock() as spent:
        found = [plain_execute(*one) for one in zip(texts, written, strict=True)]
    return spent.result(len(texts), _size(texts), texts=_digest(found))


def _size(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _digest(texts: list[str]) -> str:
    return xxhash.xxh3_128_hexdigest("\0".join(texts).encode(errors="replace"))


def run(part: Part) -> str:
    """The section of the results."""
    path = part.path("jsonl")
    plain = Side(plain_subject, {"path": path})
    published = compare(Side(tamis_subject, {"path": path, "compat": "prox"}), plain)
    better = compare(Side(tamis_subject, {"path": path, "compat": None}), plain)
    same = {one.facts["texts"] for one in (*published.ours, *published.peer)}
    equal = "the same texts" if len(same) == 1 else "other texts: this is wrong"
    rows = [
        (f"compat: prox ({equal})", "the rules written down plainly", published),
        ("the default", "the rules written down plainly", better),
    ]
    return (
        "## Refining programs\n\nThe executor, one call a document:\n\n"
        f"{side_by_side(rows)}\nGeneration. {generation.run(part)}"
    )
