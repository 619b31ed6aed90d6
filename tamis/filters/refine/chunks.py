"""A document as a model is shown it: with numbered lines, in windows that fit; and the programs of
the windows as one.

    [000]Home | About | Contact
    [001]The river is low in August.

Numbers count from the beginning of the document in every window, so that the programs of all of
them go together. Source: Zhou et al. 2024 (arXiv:2409.17115), algorithm 1, and the code published
with it, which counts a line with its number and one token more (the beginning of a sequence), does
not count line breaks, and shows a line that is longer than the window alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from tamis.filters.refine.program import about_lines, is_about_lines

WINDOW = 1500
"""Tokens of a window."""
CountTokens = Callable[[Sequence[str]], list[int]]
"""How many tokens each text has, as ``Generator.count_tokens``."""
LongLines = Literal["cut", "whole", "skip"]
"""What becomes of a line that is longer than the window: its beginning is shown (all of it can be
removed none the less), it is shown whole, as by the published code, or not at all, as in the paper.
"""


class Chunk(NamedTuple):
    """A window: lines ``first`` to ``last`` of a document, both included, as they are shown."""

    first: int
    last: int
    text: str


def count_words(texts: Sequence[str]) -> list[int]:
    """The words between white space: what the paper counts in place of tokens."""
    return [len(one.split()) for one in texts]


def number_lines(text: str) -> list[str]:
    """The lines of a text with their numbers in front, three digits at least."""
    return [f"[{number:03d}]{line}" for number, line in enumerate(text.split("\n"))]


def chunks(
    text: str,
    count_tokens: CountTokens = count_words,
    window: int = WINDOW,
    long_lines: LongLines = "cut",
) -> list[Chunk]:
    """The windows of one document; see ``chunk_documents``."""
    return chunk_documents([text], count_tokens, window, long_lines)[0]


def chunk_documents(
    texts: Sequence[str],
    count_tokens: CountTokens = count_words,
    window: int = WINDOW,
    long_lines: LongLines = "cut",
) -> list[list[Chunk]]:
    """The windows of each document: as many lines as have ``window`` tokens, then the next.

    Args:
        texts: The documents; all their lines are counted in one call.
        count_tokens: The model's own tokenizer, without what it puts in front of every sequence.
        window: The most tokens of a window, at least 1; one is counted with every line beside its
            own, as the published code does.
        long_lines: What becomes of lines that are longer than the window.

    Raises:
        ValueError: if the window has no tokens.
    """
    if window < 1:
        raise ValueError(f"a window of {window} tokens holds no line")
    numbered = [number_lines(text) for text in texts]
    sizes = iter(count_tokens([line for lines in numbered for line in lines]))
    found = []
    for lines in numbered:
        counted = [next(sizes) + 1 for _ in lines]
        if long_lines == "cut":
            for at, size in enumerate(counted):
                if size > window:
                    lines[at] = fitting(lines[at], count_tokens, window - 1)
        found.append(list(_windows(lines, counted, window, long_lines == "skip")))
    return found


def _windows(
    lines: Sequence[str], sizes: Sequence[int], window: int, skips_long: bool
) -> Iterator[Chunk]:
    first, total = 0, 0
    for at, size in enumerate(sizes):
        if at > first and total + size > window:
            yield _chunk(lines, first, at)
            first, total = at, 0
        if size > window and skips_long:
            first, total = at + 1, 0
        else:
            total += size
    if first < len(lines):
        yield _chunk(lines, first, len(lines))


def _chunk(lines: Sequence[str], first: int, end: int) -> Chunk:
    return Chunk(first, end - 1, "\n".join(lines[first:end]))


def fitting(text: str, count_tokens: CountTokens, most: int) -> str:
    """The longest beginning of a text that has ``most`` tokens or fewer, found by halving; what
    lies far behind it is not counted.
    """
    low, high = 0, 2 * most
    while high < len(text) and count_tokens([text[:high]])[0] <= most:
        low, high = high, 2 * high
    if high >= len(text):
        if count_tokens([text])[0] <= most:
            return text
        high = len(text)
    while high - low > 1:
        middle = (low + high) // 2
        if count_tokens([text[:middle]])[0] <= most:
            low = middle
        else:
            high = middle
    return text[:low]


def join_programs(programs: Sequence[str], windows: Sequence[Chunk]) -> str:
    """The programs of the windows of one document as its program: each behind a comment that says
    which lines it is about. A comment of this kind in an answer of the model is left out.
    """
    if len(programs) == 1:
        (program,) = programs
        return _without_parts(program)
    parts = []
    for program, window in zip(programs, windows, strict=True):
        parts += [about_lines(window.first, window.last), _without_parts(program)]
    return "\n".join(parts)


def _without_parts(program: str) -> str:
    return "\n".join(line for line in program.split("\n") if not is_about_lines(line))
