"""The compiled part: normalised words, n-grams, coverage of items, and the pieces that are left.

A word is what is left of a span of non-white-space characters without case and punctuation; its
64-bit hash takes the folded characters c (UTF-8 bytes, the first lowest) one by one, mod 2^64:

    h = 0; for each character: h = (h ^ c) * 9E3779B97F4A7C15; h ^= h >> 32

The key of an n-gram is sum(h_j * P^(n-1-j)), P = D6E8FEB86659FD93, over its words; equal keys are
not trusted, the words are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tamis.filters.text.bitmap import Bools, Int32s, Int64s, UInt8s, UInt64s
from tamis.filters.text.words import decode
from tamis.kernel import kernel

# Arrays of 32-bit entries for characters, see ``character_table`` in ``index``.
UInt32s = Int32s

SEPARATOR = 1
"""In the table of characters: it ends a word. No character folds to U+0001."""

_BLOCK = np.uint64(0x9E3779B97F4A7C15)
_PRIME = np.uint64(0xD6E8FEB86659FD93)
_SPREAD = np.uint64(0xA0761D6478BD642F)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_U32 = np.uint64(32)
_FILTER_BITS = np.uint64(3)


@kernel
def _character(data: UInt8s, at: Any, table: UInt32s) -> tuple[Any, Any]:
    """(the folded character, 0 if it does not count, or SEPARATOR; bytes read)."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return np.uint64(table[lead]), 1
    size = 2 if lead < 0xE0 else (3 if lead < 0xF0 else 4)
    code = decode(data, at)
    if code < table.size:
        return np.uint64(table[code]), size
    return np.uint64(code) << _U32, size


@kernel
def document_words(
    data: UInt8s, start: Int64s, end: Int64s, spans: tuple[Any, Any], table: UInt32s,
    word_start: Int64s, word_end: Int64s, word_hash: UInt64s, count: Any,
) -> Any:  # fmt: skip
    """Append the words of ``spans`` (from, to) behind the ``count`` that are there; the new count.

    ``data[word_start:word_end]`` begins and ends with a character that counts.
    """
    for span in range(spans[0], spans[1]):
        at, stop = start[span], end[span]
        state, begin, behind = _ZERO, np.int64(-1), np.int64(-1)
        while at < stop:
            character, size = _character(data, at, table)
            if character > SEPARATOR:
                if begin < 0:
                    begin = at
                behind = at + size
                state = (state ^ character) * _BLOCK
                state ^= state >> _U32
            at += size
            if begin >= 0 and (character == SEPARATOR or at >= stop):
                word_start[count], word_end[count], word_hash[count] = begin, behind, state
                count += 1
                state, begin = _ZERO, np.int64(-1)
    return count


@kernel
def all_words(
    data: UInt8s, first: Int64s, start: Int64s, end: Int64s, table: UInt32s,
    word_first: Int64s, word_start: Int64s, word_end: Int64s, word_hash: UInt64s,
) -> None:  # fmt: skip
    """The words of all documents; those of document i are ``word_first[i]:word_first[i + 1]``."""
    count = 0
    for doc in range(first.size - 1):
        word_first[doc] = count
        spans = (first[doc], first[doc + 1])
        count = document_words(
            data, start, end, spans, table, word_start, word_end, word_hash, count
        )
    word_first[first.size - 1] = count


@kernel
def power(ngram: Any) -> Any:
    """P^ngram mod 2^64."""
    value = _ONE
    for _ in range(ngram):
        value *= _PRIME
    return value


@kernel
def window_keys(
    word_hash: UInt64s, item_first: Int64s, ngram: Any, keys: UInt64s, positions: Int32s
) -> Any:
    """The key and first word of every n-gram of every item; returns how many there are."""
    count = 0
    oldest = power(ngram)
    for item in range(item_first.size - 1):
        key = _ZERO
        for word in range(item_first[item], item_first[item + 1]):
            key = key * _PRIME + word_hash[word]
            if word - item_first[item] >= ngram:
                key -= word_hash[word - ngram] * oldest
            if word - item_first[item] >= ngram - 1:
                keys[count], positions[count] = key, word - ngram + 1
                count += 1
    return count


@kernel
def fill_table(keys: UInt64s, shift: Any, table: Int32s, bits: UInt8s) -> None:
    """Put the index of every key into the open-addressed table (-1 is empty), and set its bit."""
    mask = np.uint64(table.size - 1)
    for index in range(keys.size):
        spread = keys[index] * _SPREAD
        bit = spread >> (shift - _FILTER_BITS)
        bits[bit >> _FILTER_BITS] |= np.uint8(1) << np.uint8(bit & np.uint64(7))
        entry = spread >> shift
        while table[entry] >= 0:
            entry = (entry + _ONE) & mask
        table[entry] = index


@kernel
def look_up(key: Any, keys: UInt64s, shift: Any, table: Int32s, bits: UInt8s) -> Any:
    """The index of the key, or -1. The bits, eight a table entry, turn most of the others away."""
    spread = key * _SPREAD
    bit = spread >> (shift - _FILTER_BITS)
    if not bits[bit >> _FILTER_BITS] & (np.uint8(1) << np.uint8(bit & np.uint64(7))):
        return np.int64(-1)
    mask = np.uint64(table.size - 1)
    entry = spread >> shift
    while table[entry] >= 0:
        if keys[table[entry]] == key:
            return np.int64(table[entry])
        entry = (entry + _ONE) & mask
    return np.int64(-1)


@kernel
def _same_word(
    data: UInt8s, start: Any, end: Any, other: UInt8s, begin: Any, stop: Any, table: UInt32s
) -> Any:
    """Whether the characters that count are the same in two words."""
    while True:
        one, two = _ZERO, _ZERO
        while start < end and one == _ZERO:
            one, size = _character(data, start, table)
            start += size
        while begin < stop and two == _ZERO:
            two, size = _character(other, begin, table)
            begin += size
        if one != two:
            return False
        if one == _ZERO:
            return True


@kernel
def find_ngrams(
    data: UInt8s, first: Int64s, start: Int64s, end: Int64s, table: UInt32s, ngram: Any,
    lookup: tuple[Any, Any, Any, Any], stored: tuple[Any, Any, Any, Any],
    scratch: tuple[Any, Any, Any], hit_first: Int64s, hits: Int64s,
) -> Any:  # fmt: skip
    """Every n-gram of the documents that is in the index; returns how many there are.

    ``lookup`` is (keys, shift, table, bits), ``stored`` (data, word starts, word ends, first word
    of each n-gram) of the index. A row of ``hits`` is (number of the first word in the document,
    n-gram, first byte, byte behind); those beyond its end are counted, not written.
    """
    keys, shift, entries, bits = lookup
    texts, text_start, text_end, position = stored
    word_start, word_end, word_hash = scratch
    count = 0
    oldest = power(ngram)
    for doc in range(first.size - 1):
        hit_first[doc] = count
        spans = (first[doc], first[doc + 1])
        total = document_words(data, start, end, spans, table, word_start, word_end, word_hash, 0)
        key = _ZERO
        for word in range(total):
            key = key * _PRIME + word_hash[word]
            if word >= ngram:
                key -= word_hash[word - ngram] * oldest
            if word < ngram - 1:
                continue
            found = look_up(key, keys, shift, entries, bits)
            if found < 0:
                continue
            begin, same = word - ngram + 1, True
            for k in range(ngram):
                at = position[found] + k
                same = same and _same_word(
                    data, word_start[begin + k], word_end[begin + k],
                    texts, text_start[at], text_end[at], table,
                )  # fmt: skip
            if same:
                if count < hits.shape[0]:
                    hits[count, 0], hits[count, 1] = begin, found
                    hits[count, 2], hits[count, 3] = word_start[begin], word_end[word]
                count += 1
    hit_first[first.size - 1] = count
    return count


@kernel
def _longest_run(hits: Int64s, begin: Any, end: Any, ngram: Any) -> Any:
    """Words in the longest run of neighbouring n-grams."""
    longest, run = 0, 0
    for hit in range(begin, end):
        follows = hit > begin and hits[hit, 0] == hits[hit - 1, 0] + 1
        run = run + 1 if follows else ngram
        longest = max(longest, run)
    return longest


@kernel
def _cover(
    ngrams: Int64s, count: Any, ngram: Any, postings: tuple[Any, Any],
    segment_of: Int32s, item_of: Int32s, covered: Bools, in_segment: Int64s,
    met: Bools, touched: Int64s,
) -> Any:  # fmt: skip
    """Mark the words of all items that these n-grams cover; returns how many items have any."""
    posting_first, posting = postings
    items = 0
    for index in range(count):
        for place in range(posting_first[ngrams[index]], posting_first[ngrams[index] + 1]):
            item = item_of[segment_of[posting[place]]]
            if not met[item]:
                met[item] = True
                touched[items] = item
                items += 1
            for word in range(posting[place], posting[place] + ngram):
                if not covered[word]:
                    covered[word] = True
                    in_segment[segment_of[word]] += 1
    return items


@kernel
def _item_coverage(
    item: Any, ngram: Any, item_segments: Int64s, segment_first: Int64s, in_segment: Int64s
) -> Any:
    """The covered share of the item or, if larger, that of one of its texts of n words and more."""
    total, all_covered, best = 0, 0, 0.0
    for segment in range(item_segments[item], item_segments[item + 1]):
        size = segment_first[segment + 1] - segment_first[segment]
        total += size
        all_covered += in_segment[segment]
        if size >= ngram:
            best = max(best, in_segment[segment] / size)
    return max(best, all_covered / total)


@kernel
def measure_hits(
    hit_first: Int64s, hits: Int64s, ngram: Any, postings: tuple[Any, Any],
    words_of: tuple[Any, Any, Any, Any], scratch: tuple[Any, Any, Any, Any, Any, Any],
    documents: tuple[Any, Any, Any, Any], items: tuple[Any, Any, Any], rows: Int64s,
) -> None:  # fmt: skip
    """What the n-grams of each document cover.

    ``words_of`` is (segment of a word, item of a segment, first segment of an item, first word of a
    segment); ``scratch`` (n-grams seen, words covered, covered words of a segment, items met,
    n-grams, items), the first four all zero before and after. Fills ``documents`` (distinct
    n-grams, longest run, coverage, item) and raises ``items`` (coverage, row of the document with
    it, documents).
    """
    segment_of, item_of, item_segments, segment_first = words_of
    seen, covered, in_segment, met, distinct, touched = scratch
    doc_ngrams, doc_longest, doc_coverage, doc_item = documents
    for doc in range(hit_first.size - 1):
        begin, end = hit_first[doc], hit_first[doc + 1]
        if begin == end:
            continue
        count = 0
        for hit in range(begin, end):
            if not seen[hits[hit, 1]]:
                seen[hits[hit, 1]] = True
                distinct[count] = hits[hit, 1]
                count += 1
        doc_ngrams[doc] = count
        doc_longest[doc] = _longest_run(hits, begin, end, ngram)
        found = _cover(
            distinct, count, ngram, postings,
            segment_of, item_of, covered, in_segment, met, touched,
        )  # fmt: skip
        for index in range(found):
            item = touched[index]
            share = _item_coverage(item, ngram, item_segments, segment_first, in_segment)
            best = doc_coverage[doc]
            if share > best or (share == best and item < doc_item[doc]):
                doc_coverage[doc], doc_item[doc] = share, item
            items[2][item] += 1
            if share > items[0][item]:
                items[0][item], items[1][item] = share, rows[doc]
        for index in range(count):
            seen[distinct[index]] = False
        for index in range(found):
            met[touched[index]] = False
            low, high = item_segments[touched[index]], item_segments[touched[index] + 1]
            in_segment[low:high] = 0
            covered[segment_first[low] : segment_first[high]] = False


@kernel
def _back(data: UInt8s, at: Any, low: Any, characters: Any) -> Any:
    """The byte so many characters before ``at``, not before ``low`` (``at`` itself may be)."""
    while at > low and characters > 0:
        at -= 1
        characters -= int(data[at] & 0xC0 != 0x80)
    return at


@kernel
def _forward(data: UInt8s, at: Any, high: Any, characters: Any) -> Any:
    """The byte so many characters behind ``at``, not behind ``high``."""
    while at < high and characters > 0:
        at += 1
        while at < high and data[at] & 0xC0 == 0x80:
            at += 1
        characters -= 1
    return at


@kernel
def cut_pieces(
    data: UInt8s, offsets: Int64s, hit_first: Int64s, hits: Int64s, window: Any, shortest: Any,
    pieces: Int64s, left: Int64s, kept_first: Int64s, kept: Int64s,
) -> None:  # fmt: skip
    """Cut every n-gram and ``window`` characters on both sides out of each document.

    Fills the number of pieces (those that are too short included), the characters in pieces of at
    least ``shortest``, and the bytes (from, to) of these pieces.
    """
    count = 0
    for doc in range(hit_first.size - 1):
        kept_first[doc] = count
        if hit_first[doc] == hit_first[doc + 1]:
            continue
        begin, stop = offsets[doc], offsets[doc + 1]
        for hit in range(hit_first[doc], hit_first[doc + 1] + 1):
            last = hit == hit_first[doc + 1]
            low = stop if last else _back(data, hits[hit, 2], begin, window)
            if low > begin:
                pieces[doc] += 1
                size = 0
                for at in range(begin, low):
                    size += int(data[at] & 0xC0 != 0x80)
                if size >= shortest:
                    left[doc] += size
                    kept[count, 0], kept[count, 1] = begin, low
                    count += 1
            if not last:
                begin = max(begin, _forward(data, hits[hit, 3], stop, window))
    kept_first[hit_first.size - 1] = count
