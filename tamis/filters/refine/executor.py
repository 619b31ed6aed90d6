"""What a program makes of a document.

    execute(text, program)                   the text after it, None for a document that is dropped
    execute(text, program, compat="prox")    the same by the published rules, all quirks included
    run(text, program)                       what was done, what was wrong, and why it was dropped

``remove_lines`` and ``normalize`` act on the lines of their chunk alone (``# lines 40-79``, see
``program``). All strings are looked for in the text as the model saw it: at a place where several
match, the longest is replaced, and what took its place is not looked at again. A program with more
than one error is ignored, and a document is dropped for what is left of it: 95 % of its words or
more went, or 10 words or fewer stay (both only if the program changed it). Words stand between
white space; in a text of a script without spaces they are those of the profile ``unicode``.

Time is linear in text and program, whatever the program says.

Source: Zhou et al. 2024 (arXiv:2409.17115); thresholds of the code published with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import polars as pl
import pyarrow as pa

from tamis.filters.refine import prox
from tamis.filters.refine.edits import Edited, Interval, Replacement, left, merged
from tamis.filters.refine.program import Normalize, Part, Program, parse
from tamis.filters.text.words import word_spans
from tamis.pipeline.documents import ID, TEXT, Documents

Compat = Literal["prox"]

# Thai, Lao, Myanmar, Khmer; hiragana, katakana; ideographs.
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FEW, _SHORT = 16, 256
"""So many strings of so many characters at most are looked for one by one: more, or longer ones
that overlap, could take time beyond all bounds.
"""
_SPACELESS_SHARE = 0.2
"""Of the characters of a text whose words do not stand between spaces."""


class Limits(NamedTuple):
    """When a program is ignored, and when a document is dropped for what is left of it."""

    max_errors: int = prox.MOST_ERRORS
    max_removed_fraction: float | None = prox.MOST_REMOVED
    """Drop if such a part of the words went, or more."""
    min_words_left: int | None = prox.MOST_WORDS_DROPPED + 1
    """Drop if fewer words are left."""


PUBLISHED = Limits()
"""Those of the published executor."""


class Outcome(NamedTuple):
    """What a program did to a document."""

    edited: str
    """The text after the program; as it was, if the program was ignored."""
    dropped_by: str | None = None
    """``drop_doc``, or the limit that dropped the document; None for one that is kept."""
    removed: tuple[Interval, ...] = ()
    """First and last of the lines that went, from 0, in order and apart."""
    replaced: tuple[Replacement, ...] = ()
    errors: int = 0
    problems: tuple[str, ...] = ()
    """The errors in words (not of ``compat: prox``)."""
    unknown: int = 0
    """Lines of the program that are no calls."""
    cut: int = 0
    """Calls that the end of an answer cut off."""
    ignored: bool = False
    """Whether there were so many errors that nothing was done."""
    removed_fraction: float = math.nan
    """Of the words; NaN where the limits do not look at it."""
    words_left: float = math.nan

    @property
    def text(self) -> str | None:
        """The text after the program, None for a document that is dropped."""
        return None if self.dropped_by else self.edited


def execute(text: str, program: str, compat: Compat | None = None) -> str | None:
    """The text that a program leaves of a document; None if it drops it. The program is data: it is
    parsed, never evaluated.

    Args:
        text: The document, with ``\\n`` between its lines.
        program: The calls, as a model wrote them: ``program`` has the language.
        compat: "prox" for the rules of the published executor of chunk programs.

    Raises:
        ValueError: if the text holds lone surrogates, or there is no such ``compat``.
    """
    return run(text, program, compat).text


def keeps(program: str, compat: Compat | None = None) -> bool:
    """Whether a document program keeps its document. Only ``drop_doc()`` drops; with ``compat:
    prox`` the word "drop" does, wherever it stands.
    """
    if compat == "prox":
        return prox.keeps(program)
    read = parse(program)
    return not read.drops or len(read.errors) > PUBLISHED.max_errors


def run(
    text: str, program: str, compat: Compat | None = None, limits: Limits = PUBLISHED
) -> Outcome:
    """``execute`` with an account of it.

    Raises:
        ValueError: as ``execute``.
    """
    if compat == "prox":
        return _run_prox(text, program, limits)
    if compat is not None:
        raise ValueError(f"there is no compat {compat!r}; there is prox")
    read = parse(program)
    edited, problems = apply(text, read)
    account = Outcome(
        edited.text,
        "drop_doc" if read.drops else None,
        edited.removed,
        edited.replaced,
        len(problems),
        tuple(problems),
        read.unknown,
        read.cut,
    )
    if account.errors > limits.max_errors:
        return account._replace(edited=text, dropped_by=None, removed=(), replaced=(), ignored=True)
    if edited.text == text:
        return account
    profile = word_profile(text)
    before, after = count_words(text, profile), count_words(edited.text, profile)
    account = account._replace(
        removed_fraction=max(0.0, (before - after) / before) if before else math.nan,
        words_left=float(after),
    )
    return account if read.drops else account._replace(dropped_by=_dropped_by(account, limits))


def _run_prox(text: str, program: str, limits: Limits) -> Outcome:
    """By the published rules: a document is also dropped for the few words that a program with
    errors, or one that does nothing, would leave.
    """
    edited, errors = prox.apply(text, program)
    before, after = len(text.split()), len(edited.text.split())
    ignored = errors > limits.max_errors
    account = Outcome(
        text if ignored else edited.text,
        None,
        () if ignored else edited.removed,
        () if ignored else edited.replaced,
        errors,
        ignored=ignored,
        removed_fraction=math.nan if ignored or not before else max(0.0, (before - after) / before),
        words_left=float(after),
    )
    return account._replace(dropped_by=_dropped_by(account, limits))


def _dropped_by(account: Outcome, limits: Limits) -> str | None:
    most, least = limits.max_removed_fraction, limits.min_words_left
    if most is not None and account.removed_fraction >= most:
        return "max_removed_fraction"
    if least is not None and account.words_left < least:
        return "min_words_left"
    return None


def apply(text: str, program: Program) -> tuple[Edited, list[str]]:
    """The text after the calls of a program, whatever its errors, and these in words."""
    problems = list(program.errors)
    if not any(part.removals or part.replacements for part in program.parts):
        return Edited(text), problems
    lines = text.split("\n")
    intervals = merged(
        one for part in program.parts for one in _removals(part, len(lines), problems)
    )
    gone = bytearray(len(lines))
    for first, last in intervals:
        gone[first : last + 1] = b"\1" * (last + 1 - first)
    replaced: list[Replacement] = []
    for part in program.parts:
        if not part.replacements:
            continue
        stay = [at for at in _lines_of(part, len(lines)) if not gone[at]]
        after, done = _replace("\n".join(lines[at] for at in stay), part.replacements, problems)
        if done:
            replaced += done
            for at, line in zip(stay, after.split("\n"), strict=True):
                lines[at] = line
    if not intervals and not replaced:
        return Edited(text), problems
    return Edited("\n".join(left(lines, intervals)), tuple(intervals), tuple(replaced)), problems


def _lines_of(part: Part, count: int) -> range:
    """The lines that a part is about, of those that a document has."""
    return range(part.first, count if part.last is None else min(part.last + 1, count))


def _removals(part: Part, count: int, problems: list[str]) -> list[Interval]:
    """The lines that go, within those of the part; what lies outside is an error."""
    about = _lines_of(part, count)
    found = []
    for first, last in part.removals:
        if last is None:
            last = about.stop - 1
            first = about.start
        # A negative number counts as 0, as it does in the published executor.
        first = max(first, 0)
        if last < first:
            continue
        if first < about.start or last >= about.stop:
            lines = f"{about.start} to {about.stop - 1}" if about else "none"
            problems.append(f"lines {first} to {last} are asked for, there is {lines}")
        if max(first, about.start) < min(last + 1, about.stop):
            found.append((max(first, about.start), min(last, about.stop - 1)))
    return found


def _replace(
    text: str, calls: Sequence[Normalize], problems: list[str]
) -> tuple[str, list[Replacement]]:
    """All replacements in one pass: leftmost first, of those that begin together the longest."""
    targets: dict[str, str] = {}
    for source, target in calls:
        targets.setdefault(source, target)
    pieces, sources = _split(text, targets)
    grown = sum(len(targets[one]) - len(one) for one in sources)
    if grown > len(text):
        problems.append(f"the replacements would add {grown} characters to {len(text)}")
        return text, []
    times = dict.fromkeys(targets, 0)
    joined = [pieces[0]]
    for source, piece in zip(sources, pieces[1:], strict=True):
        times[source] += 1
        joined += (targets[source], piece)
    found = [
        Replacement(source, targets[source], count) for source, count in times.items() if count
    ]
    return "".join(joined), found


def _split(text: str, sources: Collection[str]) -> tuple[list[str], list[str]]:
    """What stands around the occurrences of the sources, and the source at each cut."""
    if len(sources) == 1:
        (source,) = sources
        pieces = text.split(source)
        return pieces, [source] * (len(pieces) - 1)
    # The longest stands first, so that it is the one that is found where several begin.
    longest_first = sorted(sources, key=len, reverse=True)
    if len(sources) <= _FEW and len(longest_first[0]) <= _SHORT:
        found = _occurrences_of_few(text, longest_first)
    else:
        found = _occurrences_of_many(text, longest_first)
    around, at = [], 0
    for start, source in found:
        around.append(text[at:start])
        at = start + len(source)
    return [*around, text[at:]], [source for _, source in found]


def _occurrences_of_few(text: str, sources: Sequence[str]) -> list[tuple[int, str]]:
    """Where the sources stand, in order and without overlaps: each is looked for by itself."""
    absent = len(text)
    following = [text.find(one) for one in sources]
    following = [absent if at < 0 else at for at in following]
    found = []
    while (start := min(following)) < absent:
        source = sources[following.index(start)]
        found.append((start, source))
        end = start + len(source)
        for number, at in enumerate(following):
            if at < end:
                at = text.find(sources[number], end)
                following[number] = absent if at < 0 else at
    return found


def _occurrences_of_many(text: str, sources: Sequence[str]) -> list[tuple[int, str]]:
    """The same in one pass for all of them, by an automaton."""
    # Lone surrogates are in no text.
    known = [one for one in sources if one.isascii() or not _SURROGATE.search(one)]
    if not known:
        return []
    column = pl.Series([text]).str
    starts = column.find_many(known, leftmost=True)[0].to_list()
    found = column.extract_many(known, leftmost=True)[0].to_list()
    if not text.isascii():
        starts = _characters(text, starts)
    return list(zip(starts, found, strict=True))


def _characters(text: str, places: Sequence[int]) -> list[int]:
    """Places in bytes, in order, as places in characters."""
    data = text.encode()
    counted, total, at = [], 0, 0
    for place in places:
        total += len(data[at:place].decode())
        at = place
        counted.append(total)
    return counted


def word_profile(text: str) -> Literal["whitespace", "unicode"]:
    """``unicode`` for a text of which a fifth or more is of scripts without spaces."""
    if text.isascii():
        return "whitespace"
    spaceless = sum(1 for _ in _SPACELESS.finditer(text))
    return "unicode" if spaceless >= _SPACELESS_SHARE * len(text) else "whitespace"


def count_words(text: str, profile: Literal["whitespace", "unicode"]) -> int:
    """The words of a text."""
    if profile == "whitespace":
        return len(text.split())
    columns = {ID: pa.array([""]), TEXT: pa.array([text], pa.large_string())}
    first, _, _ = word_spans(Documents(pa.RecordBatch.from_pydict(columns)), profile)
    return int(first[-1])
