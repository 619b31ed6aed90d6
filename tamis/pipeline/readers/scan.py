"""A kernel for lines of JSON: the values of the declared keys, straight from the bytes to Arrow's
layout.

It handles the lines that look as expected: an object whose strings, numbers, booleans and nulls are
where the declared types allow them. Anything else (an unknown key, a key twice, an escape in a key,
a lone surrogate, a malformed number, whatever is no JSON) makes the line *odd*, and a JSON parser
decides about it. So the kernel must never accept what the parser would refuse, or read it
differently; it may refuse anything.

The bytes are looked at 32 at a time, as LLVM vectors: a load, three compares and a bit mask on any
recent processor. It relies on every line being ended by a newline, on 64 readable bytes behind the
last line, and on the block being UTF-8.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from tamis.kernel import kernel

Bytes = NDArray[np.uint8]

WIDTH = 32
"""Bytes looked at, and copied, at once: output buffers need as much room behind what is written."""

TEXT, STRING, STRING_OR_INTEGER, INTEGER, FLOAT, BOOLEAN, NESTED, IGNORED, ODD = range(9)
"""What may stand under a key. ``IGNORED``: any value but an object or a list; ``ODD``: nothing but
null.
"""

ABSENT, PRESENT, NULL = range(3)

_SPACE, _TAB, _NEWLINE, _RETURN = 32, 9, 10, 13
_QUOTE, _BACKSLASH, _COMMA, _COLON, _MINUS, _PLUS, _POINT, _ZERO = 34, 92, 44, 58, 45, 43, 46, 48
_OPEN_BRACE, _CLOSE_BRACE, _OPEN_BRACKET, _CLOSE_BRACKET = 123, 125, 91, 93
_LONGEST_NUMBER, _LONGEST_INTEGER = 40, 18  # an integer of 18 characters fits into 64 bits

_ESCAPED = np.zeros(256, np.uint8)
for _letter, _meant in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_letter] = _meant
_HEX = np.full(256, 255, np.uint8)
for _value, _letters in enumerate(zip(b"0123456789abcdef", b"0123456789ABCDEF", strict=True)):
    _HEX[list(_letters)] = _value
_TRUE, _FALSE, _NULL = (np.frombuffer(_word, np.uint8) for _word in (b"true", b"false", b"null"))


def _vector_at(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """A pointer to the ``WIDTH`` bytes at ``array[index]``, of any alignment."""
    data = context.make_array(array_type)(context, builder, array).data
    vector = ir.VectorType(ir.IntType(8), WIDTH)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _specials_intrinsic(_typing: Any, source: Any, _index: Any) -> Any:
    """Bit k is set if source[index + k] is a quote, a backslash or a control character."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = builder.load(_vector_at(context, builder, signature.args[0], *args))
        loaded.align = 1
        vector = loaded.type

        def every(value: int) -> Any:
            return ir.Constant(vector, [value] * WIDTH)

        found = builder.icmp_unsigned("==", loaded, every(_QUOTE))
        found = builder.or_(found, builder.icmp_unsigned("==", loaded, every(_BACKSLASH)))
        found = builder.or_(found, builder.icmp_unsigned("<", loaded, every(_SPACE)))
        return builder.bitcast(found, ir.IntType(WIDTH))

    return types.uint32(source, types.intp), codegen


def _copy_intrinsic(_typing: Any, target: Any, _to: Any, source: Any, _index: Any) -> Any:
    """Copies ``WIDTH`` bytes from source[index] to target[to]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = builder.load(_vector_at(context, builder, signature.args[2], args[2], args[3]))
        loaded.align = 1
        stored = builder.store(loaded, _vector_at(context, builder, signature.args[0], *args[:2]))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), codegen


def _lowest_bit_intrinsic(_typing: Any, _mask: Any) -> Any:
    """The position of the lowest bit that is set in a mask that is not zero."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        zeros = builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.zext(zeros, ir.IntType(64))

    return types.int64(types.uint32), codegen


_specials: Any = intrinsic(_specials_intrinsic)
_copy: Any = intrinsic(_copy_intrinsic)
_lowest_bit: Any = intrinsic(_lowest_bit_intrinsic)


@njit(inline="always", nogil=True)
def _skip_spaces(source: Bytes, at: int) -> int:
    while source[at] == _SPACE or source[at] == _TAB or source[at] == _RETURN:
        at += 1
    return at


@kernel
def _code_unit(source: Bytes, at: int) -> int:
    """The number in four hexadecimal digits, or -1."""
    unit = 0
    for index in range(at, at + 4):
        digit = _HEX[source[index]]
        if digit == 255:
            return -1
        unit = unit << 4 | digit
    return unit


@kernel
def _unicode_escape(source: Bytes, at: int, target: Bytes, to: int) -> tuple[int, int]:
    """Writes the character of ``\\uXXXX`` (or of a pair) at ``at``; what follows, or -1 if odd."""
    code = _code_unit(source, at + 2)
    at += 6
    if 0xD800 <= code < 0xE000:
        if code >= 0xDC00 or source[at] != _BACKSLASH or source[at + 1] != 117:
            return -1, to
        low = _code_unit(source, at + 2)
        if low < 0xDC00 or low > 0xDFFF:
            return -1, to
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        at += 6
    if code < 0:
        return -1, to
    if code < 0x80:
        target[to] = code
        return at, to + 1
    if code < 0x800:
        target[to] = 0xC0 | code >> 6
    elif code < 0x10000:
        target[to] = 0xE0 | code >> 12
    else:
        target[to] = 0xF0 | code >> 18
        to += 1
        target[to] = 0x80 | (code >> 12 & 0x3F)
    if code >= 0x800:
        to += 1
        target[to] = 0x80 | (code >> 6 & 0x3F)
    target[to + 1] = 0x80 | (code & 0x3F)
    return at, to + 2


@kernel
def _string(source: Bytes, at: int, target: Bytes, to: int) -> tuple[int, int]:
    """Copies the string that begins at ``at`` without its escapes; what follows, or -1 if odd."""
    while True:
        _copy(target, to, source, at)
        mask = _specials(source, at)
        if mask == 0:
            at += WIDTH
            to += WIDTH
            continue
        ordinary = _lowest_bit(mask)
        at += ordinary
        to += ordinary
        if source[at] == _QUOTE:
            return at + 1, to
        if source[at] != _BACKSLASH:
            return -1, to
        character = _ESCAPED[source[at + 1]]
        if character:
            target[to] = character
            at += 2
            to += 1
        elif source[at + 1] == 117:
            at, to = _unicode_escape(source, at, target, to)
            if at < 0:
                return -1, to
        else:
            return -1, to


@kernel
def _digits(source: Bytes, at: int) -> int:
    while _ZERO <= source[at] <= 57:
        at += 1
    return at


@kernel
def _number(source: Bytes, at: int, integer: bool) -> int:
    """What follows the number at ``at``; -1 if it is none, very long, or not as wanted."""
    start = at
    if source[at] == _MINUS:
        at += 1
    first = at
    at = _digits(source, at)
    if at == first or (source[first] == _ZERO and at > first + 1):
        return -1
    if source[at] == _POINT:
        after = _digits(source, at + 1)
        if integer or after == at + 1:
            return -1
        at = after
    if source[at] | 32 == 101:
        at += 1
        if source[at] == _MINUS or source[at] == _PLUS:
            at += 1
        after = _digits(source, at)
        if integer or after == at or after > at + 2:
            return -1
        at = after
    if integer and (
        at - start > _LONGEST_INTEGER or (source[start] == _MINUS and source[first] == _ZERO)
    ):
        return -1
    return at if at - start <= _LONGEST_NUMBER else -1


@kernel
def _word(source: Bytes, at: int, word: Bytes) -> int:
    for index in range(len(word)):
        if source[at + index] != word[index]:
            return -1
    return at + len(word)


@kernel
def _nested(source: Bytes, at: int) -> int:
    """What follows the object or list at ``at`` if its brackets match, whatever is in it; or -1."""
    depth = 0
    while True:
        byte = source[at]
        at += 1
        if byte in (_OPEN_BRACE, _OPEN_BRACKET):
            depth += 1
        elif byte in (_CLOSE_BRACE, _CLOSE_BRACKET):
            depth -= 1
            if depth == 0:
                return at
        elif byte == _QUOTE:
            while source[at] != _QUOTE:
                if source[at] == _NEWLINE:
                    return -1
                at += 1 + (source[at] == _BACKSLASH and source[at + 1] != _NEWLINE)
            at += 1
        elif byte == _NEWLINE:
            return -1


@kernel
def _raw_value(source: Bytes, at: int, kind: int) -> int:
    """What follows a value that is no string if ``kind`` allows it; or -1."""
    byte = source[at]
    if byte == _MINUS or _ZERO <= byte <= 57:
        if kind in (STRING_OR_INTEGER, INTEGER, FLOAT, IGNORED):
            return _number(source, at, kind in (STRING_OR_INTEGER, INTEGER))
    elif byte in (_OPEN_BRACE, _OPEN_BRACKET):
        if kind == NESTED:
            return _nested(source, at)
    elif kind in (BOOLEAN, IGNORED):
        return _word(source, at, _TRUE) if byte == 116 else _word(source, at, _FALSE)
    return -1


@kernel
def _column(
    source: Bytes, at: int, length: int, keys: Bytes, offsets: NDArray[np.int64], first: int
) -> int:
    """The index of the key at source[at:at + length] or -1; ``first`` is the likeliest."""
    count = len(offsets) - 1
    for step in range(count):
        column = first + step if first + step < count else first + step - count
        start = offsets[column]
        if offsets[column + 1] - start != length:
            continue
        index = 0
        while index < length and keys[start + index] == source[at + index]:
            index += 1
        if index == length:
            return column
    return -1


class Expected(NamedTuple):
    """What the lines may hold: the names of the columns, one after the other, and what each takes.

    ``keys[offsets[column]:offsets[column + 1]]`` may hold ``kinds[column]``, any other key
    ``other`` (``IGNORED`` or ``ODD``). One column is of kind ``TEXT``.
    """

    keys: Bytes
    offsets: NDArray[np.int64]
    kinds: NDArray[np.int64]
    other: int


class Found(NamedTuple):
    """What the lines hold, written by the kernel; ``scan_lines`` says what is where."""

    text: Bytes
    text_offsets: NDArray[np.int64]
    values: Bytes
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    state: NDArray[np.uint8]
    lines: NDArray[np.int64]
    odd: NDArray[np.bool_]


@kernel
def _key(source: Bytes, at: int) -> int:
    """Where the key that begins at ``at`` ends (its closing quote), or -1 if it has an escape."""
    while source[at] != _QUOTE:
        if source[at] < _SPACE or source[at] == _BACKSLASH:
            return -1
        at += 1
    return at


@kernel
def _present(
    source: Bytes, at: int, kind: int, text: Bytes, text_used: int, values: Bytes, used: int
) -> tuple[int, int, int]:
    """Reads what is no null at ``at``; returns as ``_object`` does."""
    if source[at] == _QUOTE:
        if kind == TEXT:
            at, text_used = _string(source, at + 1, text, text_used)
            return at, text_used, used
        if kind in (STRING, STRING_OR_INTEGER, IGNORED):
            at, used = _string(source, at + 1, values, used)
            return at, text_used, used
        return -1, text_used, used
    stop = _raw_value(source, at, kind)
    for index in range(at, stop, WIDTH):
        _copy(values, used + index - at, source, index)
    return stop, text_used, used + max(stop - at, 0)


@kernel
def _object(
    source: Bytes, at: int, expected: Expected, row: int, found: Found, text_used: int, used: int
) -> tuple[int, int, int]:
    """Reads the object at ``at``: (what follows it or -1, used of ``text``, used of ``values``)."""
    if source[at] != _OPEN_BRACE:
        return -1, text_used, used
    keys, offsets, kinds, other = expected
    text, values, state = found.text, found.values, found.state
    column = -1
    while True:
        at = _skip_spaces(source, at + 1)
        stop = _key(source, at + 1) if source[at] == _QUOTE else -1
        if stop < 0:
            return -1, text_used, used
        column = _column(source, at + 1, stop - at - 1, keys, offsets, column + 1)
        kind = kinds[column] if column >= 0 else other
        at = _skip_spaces(source, stop + 1)
        if source[at] != _COLON or (column >= 0 and state[column, row] != ABSENT):
            return -1, text_used, used
        at = _skip_spaces(source, at + 1)
        seen, begin = PRESENT, used
        if source[at] == 110:
            seen = NULL
            nullable = kind != TEXT and (column >= 0 or kind == IGNORED)
            at = _word(source, at, _NULL) if nullable else -1
        else:
            at, text_used, used = _present(source, at, kind, text, text_used, values, used)
        if at < 0:
            return -1, text_used, used
        if column >= 0:
            state[column, row] = seen
            found.starts[column, row] = begin
            found.stops[column, row] = used
        at = _skip_spaces(source, at)
        if source[at] == _CLOSE_BRACE:
            return at + 1, text_used, used
        if source[at] != _COMMA:
            return -1, text_used, used


@kernel
def scan_lines(
    source: Bytes, at: int, end: int, longest: int, expected: Expected, found: Found
) -> tuple[int, int, int]:
    """Reads lines of source[at:end] until the rows are full: (where it stopped, rows, lines).

    A line is a row unless it is blank; ``lines[:, row]`` is where it starts and ends (its newline).
    The text is ``text[text_offsets[row]:text_offsets[row + 1]]``, the other values are
    ``values[starts[column, row]:stops[column, row]]`` where ``state[column, row]`` is ``PRESENT``.
    A row with ``odd[row]`` has an empty text and no values; so has one of more than ``longest``
    bytes or without a text.
    """
    row = blank = text_used = used = text_column = 0
    state, odd = found.state, found.odd
    while expected.kinds[text_column] != TEXT:
        text_column += 1
    while at < end and row < len(odd):
        begin = _skip_spaces(source, at)
        if source[begin] == _NEWLINE:
            at = begin + 1
            blank += 1
            continue
        state[:, row] = ABSENT
        stop, text_end, used = _object(source, begin, expected, row, found, text_used, used)
        if stop >= 0:
            stop = _skip_spaces(source, stop)
        odd[row] = stop < 0 or source[stop] != _NEWLINE or state[text_column, row] != PRESENT
        if odd[row]:
            stop = begin
            while source[stop] != _NEWLINE:
                stop += 1
        odd[row] |= stop - at > longest
        if odd[row]:
            state[:, row] = ABSENT
        else:
            text_used = text_end
        found.lines[0, row] = at
        found.lines[1, row] = stop
        found.text_offsets[row + 1] = text_used
        row += 1
        at = stop + 1
    return at, row, row + blank


@kernel
def gather(
    values: Bytes,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    state: NDArray[np.uint8],
    target: Bytes,
    offsets: NDArray[np.int32],
) -> None:
    """Puts a column's present values one after the other into ``target``; ``offsets`` cut them."""
    to = 0
    for row in range(len(state)):
        if state[row] == PRESENT:
            for index in range(starts[row], stops[row], WIDTH):
                _copy(target, to + index - starts[row], values, index)
            to += stops[row] - starts[row]
        offsets[row + 1] = to
