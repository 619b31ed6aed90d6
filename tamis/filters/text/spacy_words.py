"""The words of spaCy's English tokenizer, as datatrove's filters see them, at the speed of a table
look-up.

spaCy splits every chunk between white space by itself, so that the tokens of a chunk can be
remembered (``chunk_table``). Chunks that were never seen are split by a rule for plain words
(``_split_plain``: letters or digits with ordinary punctuation around them, where none of spaCy's
exceptions can apply) or else by spaCy itself, many at a time.

One thing crosses the space between two chunks: spaCy looks for its special cases (emoticons,
abbreviations) once more in the tokens of the whole text, the longest first, and a find across a
space, which changes nothing itself, hides shorter ones inside a chunk. Chunks whose split came from
such a find are marked *fragile*; where the characters at the border allow a find across it, the
chunk is split by spaCy again together with its neighbours.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import unicodedata
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tamis.filters.text.bitmap import readonly, text_arrays
from tamis.filters.text.chunk_table import (
    FRAGILE,
    HEADER,
    LONGEST_CHUNK,
    ChunkTable,
    chunk_key,
    distinct,
    empty_table,
    encode,
    find,
    look_up,
    merged,
    table_of,
    token_counts,
    token_spans,
)
from tamis.filters.text.unicode_classes import SENTENCE_END
from tamis.filters.text.words import Spans, Words, decode
from tamis.kernel import kernel
from tamis.pipeline.documents import PADDING, Documents
from tamis.pipeline.errors import TamisError

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer

Lengths = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]

MEMO_CHUNKS = 2_000_000
"""So many chunks are remembered; later ones are split anew in every batch."""
_LAYOUT = 1
_SAVE_AFTER = 20_000
# One spaCy document holds some 200 bytes a token.
_CHUNKS_A_CALL = 20_000
# Held while something is made that all threads share.
_FIRST = threading.RLock()


class Codes(NamedTuple):
    """What is known about the white-space chunks of a batch: ``chunk_table`` says what a code
    holds."""

    codes: NDArray[np.uint64]
    lengths: Lengths


def spacy_spans(documents: Documents, chunks: Words) -> Spans:
    """(first, start, end) of spaCy's tokens, without those of white space; ``chunks`` are the words
    of ``str.split``.

    The tokens are those of ``spacy.blank("en")``, which is what datatrove 0.10 splits English with.
    Raises TamisError if spaCy is not installed.
    """
    known = chunk_codes(documents, chunks)
    first = np.zeros(len(documents) + 1, np.int64)
    token_counts(chunks.first, known.codes, known.lengths, first[1:])
    np.cumsum(first, out=first)
    start, end = np.empty(first[-1], np.int64), np.empty(first[-1], np.int64)
    token_spans(chunks.start, chunks.end, known.codes, known.lengths, start, end)
    return first, start, end


def chunk_codes(documents: Documents, chunks: Words) -> Codes:
    """The codes of the chunks of the documents; computed once a batch."""
    return documents.memo("text.spacy", lambda: _chunk_codes(documents, chunks))


def reference_words(text: str) -> list[str]:
    """The words as datatrove gets them, by spaCy alone: slow, and what everything here is measured
    by."""
    return [token.text for token in _rules().tokenizer(text) if not token.text.isspace()]


def _chunk_codes(documents: Documents, chunks: Words) -> Codes:
    data, _, _ = text_arrays(documents)
    rules = _rules()
    table, recent = chunk_memo().tables
    codes = np.empty(len(chunks.start), np.uint64)
    learned = np.zeros(1, np.int32)
    if look_up(data, chunks.start, chunks.end, table, recent, codes):
        learned = _learn(data, chunks, codes)
    crossed = _crossed(
        data, chunks.first, chunks.start, chunks.end, codes, *rules.borders, rules.longest
    )
    if len(crossed):
        learned = _split_in_context(data, chunks, crossed, codes, learned)
    return Codes(codes, (table.lengths, recent.lengths, learned))


def _learn(data: NDArray[np.uint8], chunks: Words, codes: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Fill in the codes that are 0, and remember them; returns the numbers they point into."""
    unknown = np.flatnonzero(codes == 0)
    which = np.empty(len(unknown), np.int64)
    slots = np.full(1 << (2 * len(unknown)).bit_length(), -1, np.int64)
    seen_at = np.empty(len(unknown), np.int64)
    count = distinct(data, chunks.start, chunks.end, unknown, slots, which, seen_at)
    start, end = chunks.start[seen_at[:count]], chunks.end[seen_at[:count]]
    tokens = _split_chunks(data, start, end)
    new, lengths = _encode(tokens, 0)
    codes[unknown] = new[which] | np.uint64(2 << 62)
    short = end - start <= LONGEST_CHUNK
    chunk_memo().add(table_of(data, start[short], end[short], new[short], lengths))
    return lengths


class Tokens(NamedTuple):
    """The tokens of some chunks: those of chunk i are ``first[i]:first[i + 1]``."""

    first: NDArray[np.int64]
    size: NDArray[np.int64]
    """Bytes."""
    ends_sentence: NDArray[np.uint8]
    punctuation: NDArray[np.uint8]
    fragile: NDArray[np.uint8]
    """Of the chunk."""


def _split_chunks(
    data: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64]
) -> Tokens:
    """The tokens of different chunks."""
    rules = _rules()
    count = len(start)
    counts = np.zeros(count, np.int64)
    token_start, token_end = (
        np.empty(_MOST_PLAIN * count, np.int64),
        np.empty(_MOST_PLAIN * count, np.int64),
    )
    filled = _split_plain(
        data, start, end, rules.reserved.rows, rules.reserved.text, counts, token_start, token_end
    )
    plain = _described(
        data, counts, token_start[:filled], token_end[:filled], np.zeros(count, np.uint8)
    )
    hard = np.flatnonzero(counts == 0)
    if not len(hard):
        return plain
    pieces = [data[start[chunk] : end[chunk]].tobytes() for chunk in hard]
    return _interleaved(plain, hard, split_by_spacy(pieces))


def _interleaved(plain: Tokens, hard: NDArray[np.int64], split: Tokens) -> Tokens:
    """The tokens of ``split`` for the chunks ``hard``, those of ``plain`` for the others."""
    counts = np.diff(plain.first)
    counts[hard] = np.diff(split.first)
    first = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    is_hard = np.zeros(len(counts), np.bool_)
    is_hard[hard] = True
    of_hard = np.repeat(is_hard, counts)
    size = np.empty(first[-1], np.int64)
    ends_sentence, punctuation = np.empty(first[-1], np.uint8), np.empty(first[-1], np.uint8)
    for where, tokens in ((of_hard, split), (~of_hard, plain)):
        size[where] = tokens.size
        ends_sentence[where] = tokens.ends_sentence
        punctuation[where] = tokens.punctuation
    fragile = plain.fragile.copy()
    fragile[hard] = split.fragile
    return Tokens(first, size, ends_sentence, punctuation, fragile)


def _described(
    data: NDArray[np.uint8],
    counts: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    fragile: NDArray[np.uint8],
) -> Tokens:
    first = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    ends_sentence, punctuation = np.empty(len(start), np.uint8), np.empty(len(start), np.uint8)
    _token_classes(data, start, end, _token_characters(), ends_sentence, punctuation)
    return Tokens(first, end - start, ends_sentence, punctuation, fragile)


def _encode(tokens: Tokens, base: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    end = np.cumsum(tokens.size)
    codes = np.empty(len(tokens.first) - 1, np.uint64)
    lengths = np.empty(len(end) + HEADER * len(codes) + 1, np.int32)
    filled = encode(
        tokens.first,
        end - tokens.size,
        end,
        tokens.ends_sentence,
        tokens.punctuation,
        tokens.fragile,
        base,
        codes,
        lengths,
    )
    return codes, lengths[: filled + 1].copy()


def _split_in_context(
    data: NDArray[np.uint8],
    chunks: Words,
    crossed: NDArray[np.int64],
    codes: NDArray[np.uint64],
    learned: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Split each chunk of ``crossed`` by spaCy together with its neighbours, and give it a code.

    Returns ``learned`` with the numbers that these codes point into behind it.
    """
    chunk, low, high = crossed.T
    begin = chunks.start[low]
    windows = [
        data[start:end].tobytes() for start, end in zip(begin, chunks.end[high - 1], strict=True)
    ]
    inside = chunks.start[chunk] - begin
    sizes = chunks.end[chunk] - chunks.start[chunk]
    parts = list(zip(inside.tolist(), sizes.tolist(), strict=True))
    new, lengths = _encode(split_by_spacy(windows, parts), len(learned))
    codes[chunk] = new | np.uint64(2 << 62)
    return np.concatenate([learned, lengths])


def split_by_spacy(
    pieces: Sequence[bytes], parts: Sequence[tuple[int, int]] | None = None
) -> Tokens:
    """spaCy's tokens of each piece of UTF-8 by itself, or of a part of it: (first byte, bytes). No
    white space is among them."""
    found = [
        _call_spacy(pieces[at : at + _CHUNKS_A_CALL], parts and parts[at : at + _CHUNKS_A_CALL])
        for at in range(0, len(pieces), _CHUNKS_A_CALL)
    ]
    if len(found) == 1:
        return found[0]
    counts = np.concatenate([np.diff(tokens.first) for tokens in found])
    first = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    columns = (
        np.concatenate(column) for column in zip(*(tokens[1:] for tokens in found), strict=True)
    )
    return Tokens(first, *columns)


def _call_spacy(pieces: Sequence[bytes], parts: Sequence[tuple[int, int]] | None) -> Tokens:
    from spacy.attrs import IDX, LENGTH, ORTH

    rules = _rules()
    # spaCy makes a token of the newline, so nothing crosses the border between two pieces.
    joined = b"\n".join(pieces)
    with rules.lock, rules.tokenizer.vocab.memory_zone():
        table = rules.tokenizer(joined.decode()).to_array([IDX, LENGTH, ORTH])
    buffer = readonly(np.frombuffer(joined + bytes(PADDING), np.uint8))
    byte_of = np.append(np.flatnonzero((buffer[: len(joined)] & 0xC0) != 0x80), len(joined))
    character = table[:, 0].astype(np.int64)
    start, end = byte_of[character], byte_of[character + table[:, 1].astype(np.int64)]
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    begin = np.cumsum(sizes + 1) - sizes - 1
    if parts is not None:
        begin = begin + np.fromiter((part[0] for part in parts), np.int64, len(parts))
        sizes = np.fromiter((part[1] for part in parts), np.int64, len(parts))
    piece = np.searchsorted(begin, start, side="right") - 1
    wanted = (piece >= 0) & (start < begin[piece] + sizes[piece])
    # A piece has white space inside only if a part of it is wanted, and the part has none.
    start, end, piece = start[wanted], end[wanted], piece[wanted]
    counts = np.bincount(piece, minlength=len(pieces))
    changed = np.isin(table[:, 2][wanted], rules.changed)
    fragile = np.bincount(piece, weights=changed, minlength=len(pieces)) > 0
    fragile &= counts > 1
    return _described(buffer, counts, start, end, fragile.astype(np.uint8))


# The rules of spaCy's English


@dataclass(frozen=True)
class _Rules:
    """spaCy's tokenizer and what follows from its special cases."""

    tokenizer: Tokenizer
    lock: threading.Lock
    reserved: ChunkTable
    """Special cases and the tokens that they look for: no plain word."""
    changed: NDArray[np.uint64]
    """The ids of one token of each special case that a find in the text changes something for: a
    chunk with one of them may be fragile."""
    borders: tuple[NDArray[np.uint8], NDArray[np.bool_]]
    """(class of each code point, can a find across a space have these two on its sides)."""
    longest: int
    """Tokens of the longest special case."""


def _rules() -> _Rules:
    """The rules, made at the first call; raises TamisError if spaCy is not installed."""
    with _FIRST:
        return _make_rules()


@cache
def _make_rules() -> _Rules:
    try:
        import spacy
        from spacy.attrs import ORTH
        from spacy.tokenizer import Tokenizer
        from spacy.vocab import Vocab
    except ImportError as error:
        raise TamisError(
            "The word profile 'spacy' needs the package spacy: pip install 'tamis[spacy]'."
        ) from error
    english: Any = spacy.blank("en").tokenizer
    settings = {
        name: getattr(english, name)
        for name in (
            "prefix_search",
            "suffix_search",
            "infix_finditer",
            "token_match",
            "url_match",
            "faster_heuristics",
        )
    }
    # A vocabulary without attributes: they are Python functions that spaCy would call for each new
    # token.
    tokenizer = Tokenizer(Vocab(), rules=english.rules, **settings)
    affixes_only = Tokenizer(Vocab(), rules={}, **settings)
    cases = {case: [token[ORTH] for token in tokens] for case, tokens in english.rules.items()}
    finds = {case: [token.text for token in affixes_only(case)] for case in cases}
    reserved = sorted(set(cases).union(*finds.values(), *cases.values()))
    # spaCy looks in the text only for the cases that its affix rules have something to say about.
    looked_for = [
        case
        for case in cases
        if " " in case
        or not settings["faster_heuristics"]
        or any(
            find(case) for find in (english.find_prefix, english.find_infix, english.find_suffix)
        )
    ]
    changed = {max(cases[case], key=len) for case in looked_for if finds[case] != cases[case]}
    return _Rules(
        tokenizer,
        threading.Lock(),
        _set_of(reserved),
        np.array([tokenizer.vocab.strings.add(token) for token in sorted(changed)], np.uint64),
        _borders(finds[case] for case in looked_for),
        max(len(finds[case]) for case in looked_for),
    )


def _set_of(strings: Iterable[str]) -> ChunkTable:
    pieces = [string.encode() for string in strings if string]
    sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    end = np.cumsum(sizes)
    data = readonly(np.frombuffer(b"".join(pieces) + bytes(PADDING), np.uint8))
    # Any code that is not 0 will do, if it says how long the string is.
    codes = (sizes.astype(np.uint64) << np.uint64(43)) | np.uint64(1)
    return table_of(data, end - sizes, end, codes, np.zeros(1, np.int32))


def _borders(finds: Iterable[Sequence[str]]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    pairs = {(before[-1], behind[0]) for tokens in finds for before, behind in pairwise(tokens)}
    characters = sorted({character for pair in pairs for character in pair})
    number = {character: 1 + index for index, character in enumerate(characters)}
    classes = np.zeros(_CHARACTERS, np.uint8)
    for character, index in number.items():
        classes[ord(character)] = index
    possible = np.zeros((len(characters) + 1, len(characters) + 1), np.bool_)
    for before, behind in pairs:
        possible[number[before], number[behind]] = True
    return classes, possible


# Characters and plain words

_PUNCTUATION = 1
_SENTENCE_END = 2
# No punctuation, digit or special case of spaCy lies beyond.
_CHARACTERS = 0x20000
_MOST_PLAIN = 16
_LONGEST_PLAIN = 48


@cache
def _token_characters() -> NDArray[np.uint8]:
    """For the code points below 0x20000: in a Unicode category P, and in the Sentencizer's set."""
    table = np.zeros(_CHARACTERS, np.uint8)
    for code in range(_CHARACTERS):
        if unicodedata.category(chr(code))[0] == "P":
            table[code] = _PUNCTUATION
    table[list(SENTENCE_END)] |= _SENTENCE_END
    return table


@kernel
def class_of(classes: NDArray[np.uint8], data: NDArray[np.uint8], at: Any) -> Any:
    """The class of the character at ``at``, 0 if it lies beyond the table."""
    code = decode(data, at)
    return np.int64(classes[code]) if code < classes.size else 0


@kernel
def _token_classes(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    classes: NDArray[np.uint8],
    ends_sentence: NDArray[np.uint8],
    punctuation: NDArray[np.uint8],
) -> None:
    """For each token: is it one mark that ends a sentence; are all its characters punctuation."""
    for token in range(start.size):
        characters = 0
        every = _PUNCTUATION | _SENTENCE_END
        for at in range(start[token], end[token]):
            if data[at] & 0xC0 != 0x80:
                characters += 1
                every &= class_of(classes, data, at)
                if every == 0:
                    break
        punctuation[token] = every & _PUNCTUATION
        ends_sentence[token] = characters == 1 and every & _SENTENCE_END != 0


@kernel
def _may_cross(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    right: int,
    classes: NDArray[np.uint8],
    possible: NDArray[np.bool_],
) -> bool:
    """Whether a special case could be found across what lies before the chunk ``right``."""
    if start[right] - end[right - 1] != 1 or data[end[right - 1]] != 32:
        return False
    at = end[right - 1] - 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return bool(possible[class_of(classes, data, at), class_of(classes, data, start[right])])


@kernel
def _crossed(
    data: NDArray[np.uint8],
    first: NDArray[np.int64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    codes: NDArray[np.uint64],
    classes: NDArray[np.uint8],
    possible: NDArray[np.bool_],
    reach: int,
) -> NDArray[np.int64]:
    """(chunk, low, high) of the fragile chunks that a special case could reach into, and of the
    chunks ``low:high``, at most ``reach`` to each side, from which one could do so."""
    found = np.empty((codes.size, 3), np.int64)
    count = 0
    for doc in range(first.size - 1):
        for chunk in range(first[doc], first[doc + 1]):
            if codes[chunk] & FRAGILE == np.uint64(0):
                continue
            low, high = chunk, chunk + 1
            while low > max(first[doc], chunk - reach) and _may_cross(
                data, start, end, low, classes, possible
            ):
                low -= 1
            while high < min(first[doc + 1], chunk + reach) and _may_cross(
                data, start, end, high, classes, possible
            ):
                high += 1
            if high - low > 1:
                found[count, 0], found[count, 1], found[count, 2] = chunk, low, high
                count += 1
    return found[:count].copy()


@njit(inline="always", nogil=True)
def _is_letter(byte: int) -> bool:
    return 97 <= (byte | 0x20) <= 122


@njit(inline="always", nogil=True)
def _is_digit(byte: int) -> bool:
    return 48 <= byte <= 57


@kernel
def _core_end(data: NDArray[np.uint8], start: int, end: int) -> int:
    """The end of the digits, or of the letters with single hyphens between them, that begin at
    ``start``."""
    at = start
    while at < end and _is_digit(data[at]):
        at += 1
    if at > start:
        return at
    while at < end:
        if _is_letter(data[at]) or (
            data[at] == 45
            and at > start
            and at + 1 < end
            and data[at - 1] != 45
            and _is_letter(data[at + 1])
        ):
            at += 1
        else:
            break
    return at


@kernel
def _plain_marks(data: NDArray[np.uint8], core: int, at: int, end: int) -> int:
    """How many marks follow the core, each a token; -1 if what follows is more than ordinary
    punctuation."""
    marks = end - at
    if marks == 2 and data[at] == 39 and data[at + 1] == 115 and _is_letter(data[at - 1]):
        return 1
    if marks > 2:
        return -1
    for k in range(at, end):
        # , ; : ! ? ) " .
        if data[k] not in (44, 59, 58, 33, 63, 41, 34, 46):
            return -1
    if marks == 2:
        one, two = data[at], data[at + 1]
        quoted = (one == 46 or one == 44 or one == 63 or one == 33) and two == 34
        bracket = ((one == 46 or one == 63) and two == 41) or (
            one == 41 and (two == 44 or two == 46)
        )
        if not (quoted or bracket or (one == 34 and (two == 44 or two == 46))):
            return -1
    if marks > 0 and data[at] == 46:
        # spaCy keeps the dot of "X."; it takes it off behind a small letter, a digit or two
        # capitals.
        before = data[at - 1]
        capitals = at - core >= 2 and 65 <= data[at - 2] <= 90
        if 65 <= before <= 90 and not capitals:
            return -1
    return marks


@kernel
def _is_reserved(
    rows: NDArray[np.uint64], text: NDArray[np.uint8], data: NDArray[np.uint8], start: int, end: int
) -> bool:
    size = end - start
    return bool(find(rows, text, data, start, size, chunk_key(data, start, size)) != np.uint64(0))


@kernel
def _touches_reserved(
    rows: NDArray[np.uint64],
    text: NDArray[np.uint8],
    data: NDArray[np.uint8],
    start: int,
    core: int,
    core_end: int,
    end: int,
) -> bool:
    """Whether the chunk with fewer or more of its marks, or a part between hyphens, is a special
    case or part of one."""
    for stop in range(core_end, end + 1):
        if _is_reserved(rows, text, data, core, stop) or _is_reserved(
            rows, text, data, start, stop
        ):
            return True
    part = core
    for at in range(core, core_end):
        if data[at] == 45:
            if _is_reserved(rows, text, data, part, at):
                return True
            part = at + 1
    return part > core and _is_reserved(rows, text, data, part, core_end)


@kernel
def _split_plain(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    rows: NDArray[np.uint64],
    text: NDArray[np.uint8],
    counts: NDArray[np.int64],
    token_start: NDArray[np.int64],
    token_end: NDArray[np.int64],
) -> int:
    """Split the chunks that are plain words: [( or "] letters-and-hyphens or digits ['s or up to
    two marks], in ASCII.

    For these spaCy's affix rules take off each mark by itself and its infix rules split at the
    hyphens. A chunk that is not plain, or where a special case might play a part, gets a count of
    0. Returns the number of tokens.
    """
    filled = 0
    for chunk in range(start.size):
        low, high = start[chunk], end[chunk]
        counts[chunk] = 0
        if high - low > _LONGEST_PLAIN:
            continue
        core = low + np.int64(data[low] == 40 or data[low] == 34)
        core_end = _core_end(data, core, high)
        if core_end == core:
            continue
        marks = _plain_marks(data, core, core_end, high)
        if marks < 0 or _touches_reserved(rows, text, data, low, core, core_end, high):
            continue
        hyphens = 0
        for at in range(core, core_end):
            if data[at] == 45:
                hyphens += 1
        tokens = (core - low) + 2 * hyphens + 1 + marks
        if tokens > _MOST_PLAIN:
            continue
        counts[chunk] = tokens
        token = low
        for at in range(low, high):
            # A token ends behind the bracket, in front of and behind a hyphen, and in front of each
            # mark.
            cut = at in (core, core_end) or (at > core_end and marks == 2)
            if core < at <= core_end and (data[at - 1] == 45 or (at < core_end and data[at] == 45)):
                cut = True
            if cut and at > token:
                token_start[filled], token_end[filled] = token, at
                filled += 1
                token = at
        token_start[filled], token_end[filled] = token, high
        filled += 1
    return filled


# What is remembered, in this process and between runs


class ChunkMemo:
    """The codes of chunks, shared by all threads and kept in a file between runs.

    ``tables`` is a pair of tables that nobody changes: a large one and a small one with what was
    learned of late. New chunks make a new small table, and now and then a new large one, so readers
    never wait.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.tables = (_load(path) if path else empty_table(), empty_table())
        self._saved = self.tables[0].used

    def __len__(self) -> int:
        return sum(table.used for table in self.tables)

    def add(self, learned: ChunkTable) -> None:
        """Remember more chunks, unless there are MEMO_CHUNKS already."""
        with self._lock:
            table, recent = self.tables
            if table.used + recent.used + learned.used > MEMO_CHUNKS:
                return
            recent = merged(recent, learned)
            if recent.used > max(16_384, table.used // 8):
                table, recent = merged(table, recent), empty_table()
            self.tables = (table, recent)
            due = len(self) > 2 * self._saved + _SAVE_AFTER
        if due:
            self.save()

    def save(self) -> None:
        """Write the file if anything new is known; another process sees the old file or the new
        one."""
        with self._lock:
            if self.path is None or len(self) == self._saved:
                return
            table = merged(*self.tables)
            self._saved = len(self)
            rows = table.rows.reshape(-1, 4)
            part = self.path.with_suffix(f".{os.getpid()}.part")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with part.open("wb") as file:
                    np.savez(
                        file, rows=rows[rows[:, 2] != 0], text=table.text, lengths=table.lengths
                    )
                part.replace(self.path)
            except OSError as error:
                with suppress(OSError):
                    part.unlink()
                warnings.warn(
                    f"spaCy's words were not saved for the next run: {error}", stacklevel=2
                )
                self.path = None


def _load(path: Path) -> ChunkTable:
    try:
        with np.load(path, allow_pickle=False) as file:
            rows, text, lengths = file["rows"], file["text"], file["lengths"]
        if (rows.dtype, text.dtype, lengths.dtype, rows.shape[1:]) != ("<u8", "u1", "<i4", (4,)):
            raise ValueError("not the arrays that belong there")
    except (FileNotFoundError, NotADirectoryError):
        return empty_table()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warnings.warn(f"{path} is damaged ({error}); spaCy's words are learned anew", stacklevel=2)
        return empty_table()
    stored = ChunkTable(np.ascontiguousarray(rows).reshape(-1), text, lengths, len(rows))
    return merged(empty_table(), stored)


def chunk_memo() -> ChunkMemo:
    """The memo of this process; it is saved when the process ends."""
    with _FIRST:
        return _chunk_memo()


@cache
def _chunk_memo() -> ChunkMemo:
    version = f"{metadata.version('spacy')}-unicode-{unicodedata.unidata_version}-{_LAYOUT}"
    memo = ChunkMemo(cache_folder() / f"spacy-words-{version}.npz")
    atexit.register(memo.save)
    return memo


def cache_folder() -> Path:
    """$TAMIS_CACHE, or ``tamis`` in the place where this platform keeps what can be made again."""
    named = os.environ.get("TAMIS_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "tamis"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tamis"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tamis"
