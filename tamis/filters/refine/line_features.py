"""What the embedded refiner sees of a line: hashed words, its shape, its place, its neighbours.

A line has up to ``MOST_FEATURES`` binary features, each a bucket of 2^bits: words and pairs of
words in lower case with all digits alike, pairs of characters in scripts without spaces, the line
as a whole, and its shape (length, letters, digits, capitals, separators, how it ends, whether it is
or has an address) alone and together with its place from the top and the bottom, with the shapes of
the lines around it, and with whether it stood in the document before.

A document as a whole has features of the same kind: how much of it the lines that go are, how long,
how varied and how repetitive it is, and its first words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tamis.filters.text.bitmap import Int64s, UInt8s
from tamis.kernel import kernel

MOST_FEATURES = 112
MOST_DOCUMENT_FEATURES = 192
KEEP, REMOVE, ADDRESS = 0, 1, 2
"""The labels of a line: it stays, it goes, an address in it goes."""
LABELS = 3

# Columns of a line's shape.
LENGTH, WORDS, MARK_SHARE, CAPITALS, DIGITS, MARKS, SENTENCES, FIRST, LAST, URL, SHAPES = range(11)
NO_URL, HAS_URL, IS_URL = 0, 1, 2
# Columns of a line's hashes, and of what is counted in it.
WHOLE, FIRST_WORD, LAST_WORD, HASHES = range(4)
CHARACTERS, WORD_COUNT, DIGIT_COUNT, CAPITAL_COUNT, SENTENCE_COUNT, COUNTS = range(6)

_FRONT_WORDS, _MOST_WORDS, _MOST_PAIRS = 14, 22, 14
_MIXED, _OF_DOCUMENT = 20, 16
"""Features that are no words: of a line beside its shape, of a document."""
_K = np.uint64(0x9E3779B97F4A7C15)
_M = np.uint64(0xD6E8FEB86659FD93)
_S = np.uint64(32)
_ZERO = np.uint64(0)


@kernel
def mix(one: Any, other: Any) -> Any:
    """A hash of two numbers."""
    found = (one * _K) ^ other
    found = (found ^ (found >> _S)) * _M
    return found ^ (found >> _S)


@kernel
def _bucketed(value: Any) -> Any:
    """0, 1, 2, 3, 4, then finer than powers of two: four steps each."""
    if value < 4:
        return value
    power = 0
    rest = value
    while rest >= 8:
        rest >>= 1
        power += 1
    return 4 * power + rest


@kernel
def _share(part: Any, whole: Any) -> Any:
    """Tenths, with none and all apart."""
    if whole == 0 or part == 0:
        return 0
    return 11 if part >= whole else 1 + (10 * part) // whole


@kernel
def _word_byte(byte: Any) -> Any:
    return (
        byte >= 128
        or (byte >= 48 and byte <= 57)
        or (byte >= 65 and byte <= 90)
        or (byte >= 97 and byte <= 122)
    )


@kernel
def _lower(byte: Any) -> Any:
    """In lower case, and digits alike."""
    if byte >= 65 and byte <= 90:
        return byte + 32
    return 48 if byte >= 48 and byte <= 57 else byte


@kernel
def _kind(data: UInt8s, at: Any) -> Any:
    """What a line begins or ends with."""
    byte = data[at]
    if byte >= 48 and byte <= 57:
        return 1
    if byte >= 65 and byte <= 90:
        return 2
    if byte >= 97 and byte <= 122:
        return 3
    return 4 if byte >= 128 else np.int64(byte)


@kernel
def _begins(data: UInt8s, at: Any, end: Any, word: UInt8s) -> Any:
    """Whether ``word`` (lower case) stands at ``at``."""
    if at + word.size > end:
        return False
    for k in range(word.size):
        if (data[at + k] | 32 if 65 <= data[at + k] <= 90 else data[at + k]) != word[k]:
            return False
    return True


@kernel
def address_end(data: UInt8s, at: Any, end: Any, prefixes: Any) -> Any:
    """Where the address that begins at ``at`` ends; ``at`` if there is none. It goes on to white
    space, a bracket or a quotation mark, without the marks that end a sentence.
    """
    found = False
    for prefix in prefixes:
        found = found or _begins(data, at, end, prefix)
    if not found:
        return at
    stop = at
    while stop < end:
        byte = data[stop]
        # White space, quotation marks, angle and other brackets; 0xE2 and 0xE3 begin the marks of
        # other scripts.
        if byte <= 32 or byte in (34, 39, 60, 62, 40, 41, 91, 93, 123, 125, 96, 0xE2, 0xE3, 0xC2):
            break
        stop += 1
    while stop > at and data[stop - 1] in (33, 44, 46, 58, 59, 63, 42, 95):
        stop -= 1
    return stop if stop > at + 8 else at


@kernel
def _put(out: Any, found: Any, template: Any, value: Any, mask: Any) -> Any:
    """One feature more, if there is room."""
    if found >= out.size:
        return found
    out[found] = np.int32(mix(np.uint64(template), value) & mask)
    return found + 1


@kernel
def _put_all(out: Any, found: Any, template: Any, values: Any, mask: Any) -> Any:
    """A feature for each of the values, with templates from ``template`` on."""
    for k in range(len(values)):
        found = _put(out, found, template + k, np.uint64(values[k]), mask)
    return found


@kernel
def describe(
    data: UInt8s, start: Any, end: Any, prefixes: Any, shape: Any, hashes: Any, counts: Any
) -> None:
    """The shape of a line, its hashes, and what is counted in it."""
    for k in range(COUNTS):
        counts[k] = 0
    whole = first = last = _ZERO
    marks, urls, others = 0, 0, 0
    at = start
    while at < end:
        stop = address_end(data, at, end, prefixes)
        if stop > at and (at == start or not _word_byte(data[at - 1])):
            urls += 1
            counts[CHARACTERS] += stop - at
            whole = mix(whole, np.uint64(7))
            at = stop
            continue
        byte = data[at]
        if _word_byte(byte):
            word = _ZERO
            capital = 65 <= byte <= 90
            while at < end and _word_byte(data[at]):
                byte = data[at]
                counts[CHARACTERS] += (byte & 0xC0) != 0x80
                counts[DIGIT_COUNT] += 48 <= byte <= 57
                word = mix(word, np.uint64(_lower(byte)))
                at += 1
            counts[CAPITAL_COUNT] += capital
            counts[WORD_COUNT] += 1
            others += 1
            whole = mix(whole, word)
            first = word if counts[WORD_COUNT] == 1 else first
            last = word
            continue
        ends = byte in (46, 33, 63) and (at + 1 == end or data[at + 1] <= 32)
        counts[SENTENCE_COUNT] += ends and at > start and _word_byte(data[at - 1])
        if byte > 32:
            marks += 1
            whole = mix(whole, np.uint64(byte))
            counts[CHARACTERS] += 1
        else:
            counts[CHARACTERS] += 1
        at += 1
    hashes[WHOLE], hashes[FIRST_WORD], hashes[LAST_WORD] = whole, first, last
    _note_shape(data, start, end, marks, urls, others, counts, shape)


@kernel
def _note_shape(
    data: UInt8s,
    start: Any,
    end: Any,
    marks: Any,
    urls: Any,
    others: Any,
    counts: Any,
    shape: Any,
) -> None:
    while end > start and data[end - 1] <= 32:
        end -= 1
    indent = start
    while indent < end and data[indent] <= 32:
        indent += 1
    blank = indent == end
    characters = 0 if blank else counts[CHARACTERS]
    shape[LENGTH] = _bucketed(characters)
    shape[WORDS] = _bucketed(counts[WORD_COUNT])
    shape[MARK_SHARE] = _share(marks, characters)
    shape[CAPITALS] = _share(counts[CAPITAL_COUNT], counts[WORD_COUNT])
    shape[DIGITS] = _share(counts[DIGIT_COUNT], characters)
    shape[MARKS] = min(marks, 12)
    shape[SENTENCES] = min(counts[SENTENCE_COUNT], 4)
    shape[FIRST] = 0 if blank else _kind(data, indent)
    shape[LAST] = 0 if blank else _kind(data, end - 1)
    shape[URL] = NO_URL if urls == 0 else HAS_URL if others > 0 else IS_URL


@kernel
def _word_features(
    data: UInt8s, start: Any, end: Any, total: Any, mask: Any, out: Any, found: Any
) -> Any:
    """Words and pairs of words from both ends of the line, pairs of characters of three bytes."""
    number, pairs, before = 0, 0, _ZERO
    at = start
    while at < end:
        if not _word_byte(data[at]):
            at += 1
            continue
        word = _ZERO
        while at < end and _word_byte(data[at]):
            if data[at] >= 0xE3 and at + 5 < end and data[at + 3] >= 0xE3 and pairs < _MOST_PAIRS:
                code = _ZERO
                for k in range(6):
                    code = mix(code, np.uint64(data[at + k]))
                found = _put(out, found, 70, code, mask)
                pairs += 1
            word = mix(word, np.uint64(_lower(data[at])))
            at += 1
        number += 1
        if number <= _FRONT_WORDS or total - number < _MOST_WORDS - _FRONT_WORDS:
            found = _put(out, found, 71, word, mask)
            found = _put(out, found, 72, mix(before, word), mask)
        before = word
    return found


@kernel
def _around(lines: Any, line: Any, step: Any, shapes: Any) -> Any:
    """The next line that is not blank, in a direction; -1 if there is none."""
    at = line + step
    while at >= 0 and at < lines and shapes[at, LENGTH] == 0:
        at += step
    return at if at < lines else -1


@kernel
def _shape_values(
    place: Any, shapes: Any, before: Any, after: Any, repeated: Any, values: Any
) -> None:
    """The shape of a line, alone and together with its place, with that of the lines ``before`` and
    ``after`` it (-1 for none), and with whether it stood in the document before.
    """
    line, top, bottom = place
    shape = shapes[line]
    length, last, first = shape[LENGTH], shape[LAST], shape[FIRST]
    one = shapes[before, LENGTH] if before >= 0 else 63
    two = shapes[after, LENGTH] if after >= 0 else 63
    gaps = 2 * (line > 0 and before != line - 1)
    gaps += line + 1 < len(shapes) and after != line + 1
    top, bottom = _bucketed(top), _bucketed(bottom)
    # One store each: slices and tuples of so many values take seconds to compile.
    for k in range(SHAPES):
        values[k] = shape[k]
    mixed = values[SHAPES:]
    mixed[1] = 64 * length + shape[SENTENCES] * 8 + shape[URL]
    mixed[2] = 256 * length + last
    mixed[3] = 256 * shape[CAPITALS] + last
    mixed[4] = 64 * shape[WORDS] + shape[MARKS]
    mixed[5] = top
    mixed[6] = bottom
    mixed[7] = 64 * top + length
    mixed[8] = 64 * bottom + length
    mixed[9] = 256 * top + last
    mixed[10] = 256 * bottom + last
    mixed[11] = (64 * top + bottom) * 64 + _bucketed(len(shapes))
    mixed[12] = 12 * min(repeated, 3) + min(length, 11)
    mixed[13] = 64 * one + length
    mixed[14] = 64 * two + length
    mixed[15] = (64 * one + length) * 64 + two
    mixed[16] = 64 * gaps + length
    mixed[17] = 256 * shapes[before, LAST] + last if before >= 0 else -1
    mixed[18] = 256 * shapes[after, FIRST] + last if after >= 0 else -1
    mixed[19] = 256 * first + last


@kernel
def line_features(
    data: UInt8s,
    span: Any,
    place: Any,
    shapes: Any,
    hashes: Any,
    counts: Any,
    repeated: Any,
    mask: Any,
    out: Any,
) -> Any:
    """The features of one line go to ``out``, those of its words and of its neighbours' last; how
    many there are without these, and with them.

    Args:
        data: The text.
        span: Where the line begins and ends.
        place: (number of the line, its place from the top and the bottom among those not blank).
        shapes: Of the lines of the document, as ``hashes`` and ``counts``.
        hashes: See ``describe``.
        counts: See ``describe``.
        repeated: How often the line stands in the document before.
        mask: The number of buckets - 1.
        out: int32.
    """
    line, _, bottom = place
    before, after = _around(len(shapes), line, -1, shapes), _around(len(shapes), line, 1, shapes)
    values = np.zeros(SHAPES + _MIXED, np.int64)
    _shape_values(place, shapes, before, after, repeated, values)
    found = _put_all(out, 0, 0, values, mask)
    without_words = found
    words = np.zeros(8, np.int64)
    words[0] = hashes[line, WHOLE]
    words[1] = hashes[line, FIRST_WORD]
    words[2] = hashes[line, LAST_WORD]
    words[3] = mix(hashes[line, FIRST_WORD], np.uint64(_bucketed(bottom)))
    if before >= 0:
        words[4], words[5] = hashes[before, FIRST_WORD], hashes[before, WHOLE]
    if after >= 0:
        words[6], words[7] = hashes[after, FIRST_WORD], hashes[after, WHOLE]
    found = _put_all(out, found, 60, words, mask)
    total = counts[line, WORD_COUNT]
    return without_words, _word_features(data, span[0], span[1], total, mask, out, found)


@kernel
def document_features(
    data: UInt8s,
    spans: Int64s,
    shapes: Any,
    hashes: Any,
    counts: Any,
    labels: Any,
    mask: Any,
    out: Any,
) -> Any:
    """The features of a document, whose lines have been labelled, go to ``out``; how many."""
    solid, gone, gone_characters, short, addresses, distinct = 0, 0, 0, 0, 0, 0
    totals = np.zeros(COUNTS, np.int64)
    seen = np.zeros(1 << 12, np.bool_)
    for line in range(len(shapes)):
        if shapes[line, LENGTH] == 0:
            continue
        solid += 1
        gone += labels[line] == REMOVE
        short += counts[line, WORD_COUNT] < 4
        addresses += shapes[line, URL] != NO_URL
        if labels[line] == REMOVE:
            gone_characters += counts[line, CHARACTERS]
        place = np.int64(hashes[line, WHOLE] & np.uint64(seen.size - 1))
        distinct += not seen[place]
        seen[place] = True
        for k in range(COUNTS):
            totals[k] += counts[line, k]
    characters, words = totals[CHARACTERS], totals[WORD_COUNT]
    values = np.zeros(_OF_DOCUMENT, np.int64)
    values[:] = (
        0,
        _bucketed(words),
        _bucketed(solid),
        _share(gone, solid),
        _share(gone_characters, characters),
        _share(short, solid),
        _share(addresses, solid),
        _share(distinct, solid),
        _share(totals[DIGIT_COUNT], characters),
        _share(totals[CAPITAL_COUNT], words),
        _share(totals[SENTENCE_COUNT], words),
        _bucketed(characters // max(solid, 1)),
        _bucketed(characters // max(words, 1)),
        _bucketed(characters - gone_characters),
        16 * _share(gone, solid) + _share(short, solid),
        64 * _share(distinct, solid) + _bucketed(words),
    )
    found = _put_all(out, 0, 100, values, mask)
    return _document_words(data, spans, mask, out, found)


@kernel
def _document_words(data: UInt8s, spans: Int64s, mask: Any, out: Any, found: Any) -> Any:
    """The first words, and the share of distinct ones among the first thousand."""
    seen = np.zeros(1 << 14, np.bool_)
    number, distinct = 0, 0
    at, end = spans[0], spans[1]
    while at < end and number < 1000:
        if not _word_byte(data[at]):
            at += 1
            continue
        word = _ZERO
        while at < end and _word_byte(data[at]):
            word = mix(word, np.uint64(_lower(data[at])))
            at += 1
        number += 1
        place = np.int64(word & np.uint64(seen.size - 1))
        distinct += not seen[place]
        seen[place] = True
        if number <= 120:
            found = _put(out, found, 150, word, mask)
    return _put(out, found, 151, np.uint64(_share(distinct, number)), mask)
