"""How many sentences a piece of text has.

``spacy`` gives the count of spaCy's Sentencizer over spaCy's tokens, which is what datatrove
counts: a sentence begins with the first token, and with the first token that is not punctuation
behind a token that is one of the 128 marks of SENTENCE_END. A gap between chunks that is anything
but a single space is a token of its own, and no punctuation.

``whitespace`` and ``unicode`` need no tokenizer: a sentence ends behind a word whose last
character, closing quotes and brackets aside, is ``.``, ``!`` or ``?``, unless that is the dot of an
ellipsis or of a single letter ("J."); and behind every mark of SENTENCE_END that is not ASCII,
wherever it stands in a chunk, because Chinese and others write no spaces. What remains after the
last end is one more.

A text of no words is one sentence for all profiles.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.filters.text.bitmap import readonly, text_arrays
from tamis.filters.text.chunk_table import sentence_step
from tamis.filters.text.spacy_words import chunk_codes, class_of
from tamis.filters.text.unicode_classes import SENTENCE_END, code_points
from tamis.filters.text.words import Profile, words
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents

_END = 1
_CLOSING = 2
# No mark that ends a sentence lies beyond.
_CHARACTERS = 0x20000
# Quotes and brackets that close: " ' ) ] } and the typographic ones, also those of China and Japan.
_CLOSERS = code_points("22 27 29 5D 7D BB 2019 201D 203A 3009 300B 300D 300F 3011 FF02 FF07 FF09")


def sentences(documents: Documents, profile: Profile = "whitespace") -> NDArray[np.int64]:
    """The sentences of each document that is alive (0 for the others)."""
    _, offsets, alive = text_arrays(documents)
    first = words(documents, "whitespace").first
    counted = span_sentences(documents, profile, offsets[:-1], offsets[1:], first[:-1], first[1:])
    return np.where(alive, counted, 0)


def span_sentences(
    documents: Documents,
    profile: Profile,
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The sentences of spans ``start[i]:end[i]`` of the text, whose white-space words are
    ``first[i]:last[i]`` (of ``words(documents, "whitespace")``)."""
    data, _, _ = text_arrays(documents)
    chunks = words(documents, "whitespace")
    spans = tuple(readonly(part) for part in (start, end, first, last))
    counts = np.empty(len(start), np.int64)
    if profile == "spacy":
        known = chunk_codes(documents, chunks)
        _count_spacy(data, chunks.start, chunks.end, known.codes, known.lengths, spans, counts)
    else:
        _count_plain(data, chunks[1:4], _classes(), spans, counts)
    return counts


@cache
def _classes() -> NDArray[np.uint8]:
    """For the code points below 0x20000: ends a sentence, closes a quotation."""
    table = np.zeros(_CHARACTERS, np.uint8)
    table[list(SENTENCE_END)] = _END
    table[list(_CLOSERS)] |= _CLOSING
    return table


@kernel
def _count_spacy(
    data: NDArray[np.uint8],
    chunk_start: NDArray[np.int64],
    chunk_end: NDArray[np.int64],
    codes: NDArray[np.uint64],
    lengths: Any,
    spans: Any,
    counts: NDArray[np.int64],
) -> None:
    start, end, first, last = spans
    for span in range(start.size):
        begun, ended = 1, 0
        at = start[span]
        for chunk in range(first[span], last[span]):
            gap = chunk_start[chunk] - at
            if ended == 1 and gap > 0 and not (gap == 1 and data[at] == 32):
                begun, ended = begun + 1, 0
            more, ended = sentence_step(lengths, codes[chunk], ended)
            begun += more
            at = chunk_end[chunk]
        gap = end[span] - at
        if ended == 1 and gap > 0 and not (gap == 1 and data[at] == 32):
            begun += 1
        counts[span] = begun


@kernel
def _ends_ascii(data: NDArray[np.uint8], start: int, at: int) -> bool:
    """Whether the mark at ``at`` ends a sentence: no dot behind a dot or behind a single letter."""
    mark = data[at]
    if mark != 46:
        return bool(mark == 33 or mark == 63)
    if at == start:
        return True
    if data[at - 1] == 46:
        return False
    single = at - 1 == start or not (48 <= data[at - 2] <= 57 or data[at - 2] >= 64)
    return not (single and 97 <= (data[at - 1] | 0x20) <= 122)


@kernel
def _ends_in(
    data: NDArray[np.uint8], start: int, end: int, wide: bool, classes: NDArray[np.uint8]
) -> tuple[int, bool]:
    """(how many sentences end in a chunk, whether the last of them ends with it); ``wide`` says
    that the chunk is not all ASCII."""
    ends = 0
    closed = False
    if wide:
        for at in range(start, end):
            if data[at] & 0xC0 == 0x80:
                continue
            kind = class_of(classes, data, at)
            if kind & _END and data[at] >= 0x80:
                ends += 0 if closed else 1
                closed = True
            elif not kind & _CLOSING:
                closed = False
        if closed:
            return ends, True
    at = end - 1
    while at > start:
        while data[at] & 0xC0 == 0x80:
            at -= 1
        if at == start or not class_of(classes, data, at) & _CLOSING:
            break
        at -= 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    if _ends_ascii(data, start, at):
        return ends + 1, True
    return ends, False


@kernel
def _count_plain(
    data: NDArray[np.uint8],
    chunks: Any,
    classes: NDArray[np.uint8],
    spans: Any,
    counts: NDArray[np.int64],
) -> None:
    chunk_start, chunk_end, length = chunks
    _, _, first, last = spans
    for span in range(first.size):
        count = 0
        closed = False
        for chunk in range(first[span], last[span]):
            start, end = chunk_start[chunk], chunk_end[chunk]
            wide = length[chunk] < end - start
            ends, closed = _ends_in(data, start, end, wide, classes)
            count += ends
        counts[span] = max(count + (0 if closed else 1), 1)
