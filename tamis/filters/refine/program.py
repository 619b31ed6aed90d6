"""The language of the programs: what a model writes, read with a tokenizer and never evaluated.

A program is lines, each at most one call:

    drop_doc()  keep_doc()                              the first of them decides
    remove_lines(line_start=0, line_end=3)              both ends included, from 0; also start, end
    remove_lines(all=True)
    normalize(source_str="Share this", target_str="")   every occurrence; no target deletes
    keep_chunk()  keep_all()  untouch_doc()             nothing
    # lines 40-79                                       what follows is about these lines alone

Strings are in double or single quotes. In them a backslash escapes a quote and a backslash, and
stands for itself before anything else. A quote that nothing escapes ends the string only in front
of the next argument or the end of the call, so that ``"say "hi" once"`` is read as it is meant.
White space around lines and between tokens does not count. Other comments, blank lines and code
fences say nothing; lines that are no call of the language are ignored and counted; a call that is
wrong is an error. A call that the end of its chunk's program cuts off is left out alone.

Source: Zhou et al. 2024 (arXiv:2409.17115), table 1; quoting, escapes and ``# lines`` are ours.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import NamedTuple

BEYOND = 10**18
"""Stands for line numbers with more digits."""
_DIGITS = 18
_CALL = re.compile(
    r"(remove_lines|normalize|drop_doc|keep_doc|keep_chunk|keep_all|untouch_doc)(?!\w)\s*"
)
_PART = re.compile(r"#\s*lines\s+(\d{1,18})\s*-\s*(\d{1,18})\s*")
_ARGUMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*")
_NUMBER = re.compile(r"([+-]?)([0-9]+)")
_TRUTH = re.compile(r"(True|False)(?!\w)")
_NAME = string.ascii_letters + string.digits + "_"
_NOTHING = re.compile(r"\s*\)")
_AFTER = re.compile(r"\s*([,)])")
_STRING_ENDS = re.compile(
    r"\s*(?:,\s*(?:source_str|target_str|line_start|line_end|start|end|all)\s*=|\)\s*(?:#|$))"
)
_PLAIN = {quote: re.compile(rf"[^\\{quote}]*") for quote in "\"'"}
_FIRST, _LAST = ("line_start", "start"), ("line_end", "end")

Value = str | int | bool


class RemoveLines(NamedTuple):
    """Lines ``first`` to ``last`` go, both included; None for the last there is."""

    first: int
    last: int | None


class Normalize(NamedTuple):
    """Every ``source`` becomes ``target``."""

    source: str
    target: str


@dataclass
class Part:
    """The calls about lines ``first`` to ``last`` (None for the last there is), in their order."""

    first: int
    last: int | None
    removals: list[RemoveLines] = field(default_factory=list)
    replacements: list[Normalize] = field(default_factory=list)


@dataclass
class Program:
    """A program that was read."""

    parts: list[Part]
    drops: bool = False
    """Whether it says ``drop_doc()``."""
    errors: list[str] = field(default_factory=list)
    """What is wrong with calls, and in which line of the program (from 1)."""
    unknown: int = 0
    """Lines that are no calls."""
    cut: int = 0
    """Calls that the end of the program, or of a chunk's, cut off."""


class _CutError(Exception):
    """The line ends within the call."""


class _WrongError(Exception):
    """The call is not one of the language."""


def parse(program: str) -> Program:
    """Read a program. Takes time linear in its length, and never raises."""
    read = Program([Part(0, None)])
    decided = False
    unfinished = 0
    for number, line in enumerate(program.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("```"):
            continue
        if line.startswith("#"):
            if _opens_part(line, read) and unfinished:
                read.cut, unfinished = read.cut + 1, 0
            continue
        if unfinished:
            read.errors.append(f"line {unfinished}: the call does not end")
            unfinished = 0
        call = _CALL.match(line)
        if call is None:
            read.unknown += 1
            continue
        name = call[1]
        try:
            arguments = _arguments(line, call.end())
            if name in ("drop_doc", "keep_doc"):
                read.drops = read.drops if decided else name == "drop_doc"
                decided = True
            else:
                _add(name, arguments, read.parts[-1])
        except _CutError:
            unfinished = number
        except _WrongError as wrong:
            read.errors.append(f"line {number}: {wrong}")
    read.cut += bool(unfinished)
    return read


def remove_lines(first: int, last: int) -> str:
    """The call that removes these lines, both included."""
    return f"remove_lines(line_start={first}, line_end={last})"


def normalize(source: str, target: str = "") -> str:
    """The call that replaces a string.

    Raises:
        ValueError: for a string with a line break, which a call cannot hold.
    """
    return f"normalize(source_str={_quoted(source)}, target_str={_quoted(target)})"


def about_lines(first: int, last: int) -> str:
    """The comment that limits the calls behind it to these lines, both included."""
    return f"# lines {first}-{last}"


def is_about_lines(line: str) -> bool:
    """Whether a line of a program is such a comment."""
    return _PART.fullmatch(line.strip()) is not None


def _quoted(text: str) -> str:
    if "\n" in text:
        raise ValueError("a string of a program has no line breaks")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _opens_part(line: str, read: Program) -> bool:
    """Whether the comment opens a part; parts follow each other without overlapping."""
    found = _PART.fullmatch(line)
    if found is None:
        return False
    first, last = int(found[1]), int(found[2])
    latest = read.parts[-1]
    # The first part, of the whole document, ends where one is named.
    is_free = latest.last is None or first > latest.last
    if not is_free or last < first:
        return False
    if latest.last is None and (latest.removals or latest.replacements):
        return False
    read.parts.append(Part(first, last))
    return True


def _add(name: str, arguments: dict[str, Value], part: Part) -> None:
    """The call, if it is one that does something."""
    if name == "remove_lines":
        part.removals.append(_removal(arguments))
    elif name == "normalize":
        part.replacements.append(_replacement(arguments))


def _removal(arguments: dict[str, Value]) -> RemoveLines:
    if arguments == {"all": True}:
        return RemoveLines(0, None)
    first = [name for name in _FIRST if name in arguments]
    last = [name for name in _LAST if name in arguments]
    if len(first) != 1 or len(last) != 1 or len(arguments) != 2:
        raise _WrongError("remove_lines takes line_start and line_end, or all=True")
    start, end = arguments[first[0]], arguments[last[0]]
    if type(start) is not int or type(end) is not int:
        raise _WrongError("line_start and line_end are numbers")
    return RemoveLines(start, end)


def _replacement(arguments: dict[str, Value]) -> Normalize:
    source, target = arguments.get("source_str"), arguments.get("target_str", "")
    if not {"source_str"} <= arguments.keys() <= {"source_str", "target_str"}:
        raise _WrongError("normalize takes source_str and target_str")
    if not isinstance(source, str) or not isinstance(target, str):
        raise _WrongError("source_str and target_str are strings")
    if not source.strip():
        raise _WrongError("source_str is empty")
    return Normalize(source, target)


def _arguments(line: str, at: int) -> dict[str, Value]:
    """The arguments of a call whose name ends at ``at``, and nothing but a comment behind it."""
    arguments: dict[str, Value] = {}
    if at == len(line):
        raise _CutError
    if line[at] != "(":
        raise _WrongError("a call has brackets")
    after = _NOTHING.match(line, at + 1)
    if after is None:
        at += 1
        separator = ","
        while separator == ",":
            name, value, at = _argument(line, at)
            if name in arguments:
                raise _WrongError(f"{name} stands there twice")
            arguments[name] = value
            after = _AFTER.match(line, at)
            if after is None:
                raise (
                    _CutError
                    if not line[at:].strip()
                    else _WrongError("a comma or a bracket is missing")
                )
            separator, at = after[1], after.end()
    assert after is not None
    rest = line[after.end() :].lstrip()
    if rest and not rest.startswith("#"):
        raise _WrongError("there is something behind the call")
    return arguments


def _argument(line: str, at: int) -> tuple[str, Value, int]:
    """Name and value of the argument at ``at``, and where it ends."""
    named = _ARGUMENT.match(line, at)
    if named is None:
        rest = line[at:].strip()
        raise _CutError if not rest.strip(_NAME) else _WrongError("an argument has no name")
    at = named.end()
    if at == len(line):
        raise _CutError
    if line[at] in "\"'":
        text, at = _string(line, at)
        return named[1], text, at
    if number := _NUMBER.match(line, at):
        size = number[2].lstrip("0")
        value = int(size or "0") if len(size) <= _DIGITS else BEYOND
        return named[1], -value if number[1] == "-" else value, number.end()
    if truth := _TRUTH.match(line, at):
        return named[1], truth[1] == "True", truth.end()
    rest = line[at:]
    is_begun = any(word.startswith(rest) for word in ("True", "False", "-", "+"))
    raise _CutError if is_begun else _WrongError("a value is of no known kind")


def _string(line: str, at: int) -> tuple[str, int]:
    """The string that begins with the quote at ``at``, and where it ends."""
    quote = line[at]
    plain = _PLAIN[quote]
    pieces: list[str] = []
    at += 1
    while True:
        run = plain.match(line, at)
        assert run is not None
        pieces.append(run[0])
        at = run.end()
        if at == len(line):
            raise _CutError
        following = line[at + 1 : at + 2]
        if line[at] == "\\":
            escapes = following in (quote, "\\") and following != ""
            pieces.append(following if escapes else "\\")
            at += 1 + escapes
        elif _STRING_ENDS.match(line, at + 1):
            return "".join(pieces), at + 1
        else:
            pieces.append(quote)
            at += 1
