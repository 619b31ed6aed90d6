"""The forward pass of a supervised fastText model over the words of a batch.

Source: Joulin et al. 2016 (arXiv:1607.01759), Bojanowski et al. 2016 (arXiv:1607.04606), and the
format and arithmetic of the library (fastText 0.9): the features of a text are its known words, the
character n-grams of ``<word>`` for models with subwords, and word n-grams, both hashed into
buckets; the hidden vector is the mean of their rows.
"""

from __future__ import annotations

from math import exp, log
from typing import Any, NamedTuple

import numpy as np

from tamis.filters.text.bitmap import Bools, Int32s, Int64s, UInt8s, UInt64s, load8, low_bytes
from tamis.kernel import kernel

Float32s = Any
Float64s = Any
UInt32s = Any

HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
"""The losses by their number in the file."""

SMALLEST = 1e-5
"""What the library adds to a probability before it takes the logarithm; labels below are left
out.
"""

KEY_BYTES = 32
"""A remembered word has at most so many bytes: they are its key, so nothing collides."""

FNV_BASIS = np.uint32(2166136261)
"""The hash of an empty word."""
FNV_PRIME = np.uint32(16777619)
NGRAM_FACTOR = np.uint64(116049371)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_OPEN, _CLOSE = np.uint8(ord("<")), np.uint8(ord(">"))
_LABEL_PREFIX = np.frombuffer(b"__label__", np.uint8)
END_OF_LINE = np.frombuffer(b"</s>", np.uint8)
"""The word that the library adds to every text."""
_END_KEY = np.uint64(int.from_bytes(b"</s>", "little"))


class Tables(NamedTuple):
    """A model as the kernels take it; all arrays are read only."""

    slots: Int32s
    """Entry numbers by hash, -1 for none; a power of two long."""
    entry: Int64s
    """Entry k is ``names[entry[k]:entry[k + 1]]``."""
    names: UInt8s
    words: int
    """Entries from this number on are labels."""
    rows: Float32s
    """(words + buckets, width): the input matrix, or its product with the output matrix."""
    pruned: Int32s
    """The row behind the words that a bucket has in a pruned model; else empty."""
    kept: UInt64s
    """One bit a bucket of a pruned model: whether it has a row. Small enough to stay at hand."""
    bucket: int
    shortest: int
    longest: int
    """Character n-grams; ``longest`` 0 for none."""
    ngram: int
    """Longest word n-gram."""
    output: Float32s
    """(width, outputs), or (0, outputs) if the rows are multiplied out."""
    loss: int
    left: Int32s
    right: Int32s
    """Children of the nodes of the Huffman tree (hierarchical softmax)."""


class Memory(NamedTuple):
    """Words seen before, the last one at each place: their feature sums.

    Behind the places, whose number is a power of two, is one for words that are too long to be
    remembered, and one for the end of the line.
    """

    key: UInt64s
    """(places, 4): the bytes of the word, padded with zeros."""
    hash: UInt32s
    features: Int32s
    """-1 for a label, which has neither features nor a part in n-grams."""
    total: Float32s
    """(places, width)."""


@kernel
def step(hashed: Any, byte: Any) -> Any:
    """FNV-1a with the library's signed bytes."""
    return np.uint32((hashed ^ np.uint32(np.int32(np.int8(byte)))) * FNV_PRIME)


@kernel
def fnv(data: UInt8s, begin: Any, end: Any) -> Any:
    """The 32-bit hash of a word."""
    hashed = FNV_BASIS
    for at in range(begin, end):
        hashed = step(hashed, data[at])
    return hashed


@kernel
def _equal(data: UInt8s, begin: Any, end: Any, other: UInt8s, low: Any, high: Any) -> Any:
    if end - begin != high - low:
        return False
    same = True
    for k in range(end - begin):
        same &= data[begin + k] == other[low + k]
    return same


@kernel
def read_entries(file: UInt8s, at: Any, entry: Int64s, names: UInt8s, counts: Int64s) -> Any:
    """Read the dictionary from a file; returns the offset behind it and the number of words.

    (-1, 0) if the file ends before, (-2, 0) if a word stands behind a label.
    """
    words = 0
    size = entry.size - 1
    for k in range(size):
        position = entry[k]
        while at < file.size and file[at] != 0:
            names[position] = file[at]
            position += 1
            at += 1
        if at + 10 > file.size:
            return -1, 0
        entry[k + 1] = position
        counts[k] = np.int64(load8(file, at + 1))
        if file[at + 9] == 0:
            if words < k:
                return -2, 0
            words += 1
        at += 10
    return at, words


@kernel
def fill_slots(names: UInt8s, entry: Int64s, slots: Int32s) -> None:
    """Put all entries into the hash table."""
    mask = slots.size - 1
    for k in range(entry.size - 1):
        slot = np.int64(fnv(names, entry[k], entry[k + 1])) & mask
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = k


@kernel
def _find(
    slots: Int32s, entry: Int64s, names: UInt8s, data: UInt8s, begin: Any, end: Any, hashed: Any
) -> Any:
    """The number of the entry with this name, or -1."""
    mask = slots.size - 1
    slot = np.int64(hashed) & mask
    while slots[slot] >= 0:
        found = np.int64(slots[slot])
        if _equal(data, begin, end, names, entry[found], entry[found + 1]):
            return found
        slot = (slot + 1) & mask
    return np.int64(-1)


@kernel
def _row(words: Any, kept: UInt64s, pruned: Int32s, bucket: Any) -> Any:
    """The row of a bucket, or -1 if a pruned model has none."""
    if pruned.size == 0:
        return words + bucket
    if (kept[bucket >> 6] >> np.uint64(bucket & 63)) & np.uint64(1):
        return words + np.int64(pruned[bucket])
    return np.int64(-1)


@kernel
def _bracketed(data: UInt8s, begin: Any, size: Any, at: Any) -> Any:
    """Byte ``at`` of ``<word>``."""
    if at == 0:
        return _OPEN
    return _CLOSE if at == size + 1 else data[begin + at - 1]


@kernel
def _add_subwords(
    model: Tables, data: UInt8s, begin: Any, end: Any, totals: Float32s, place: Any
) -> Any:
    """Add the rows of the character n-grams of ``<word>`` to the total at a place; returns how many
    there are.
    """
    rows, kept, pruned, words = model.rows, model.kept, model.pruned, model.words
    bucket, shortest, longest = np.uint32(model.bucket), model.shortest, model.longest
    features = np.int64(0)
    size = end - begin
    for first in range(size + 2):
        byte = _bracketed(data, begin, size, first)
        if byte & 0xC0 == 0x80:
            continue
        hashed = FNV_BASIS
        at = first
        for length in range(1, longest + 1):
            if at >= size + 2:
                break
            hashed = step(hashed, byte)
            at += 1
            byte = _bracketed(data, begin, size, at)
            while at < size + 2 and byte & 0xC0 == 0x80:
                hashed = step(hashed, byte)
                at += 1
                byte = _bracketed(data, begin, size, at)
            alone = length == 1 and (first == 0 or at == size + 2)
            if length >= shortest and not alone:
                row = _row(words, kept, pruned, np.int64(hashed % bucket))
                if row >= 0:
                    for k in range(totals.shape[1]):
                        totals[place, k] += rows[row, k]
                    features += 1
    return features


@kernel
def _part(data: UInt8s, at: Any, left: Any) -> Any:
    """Up to eight bytes of a word as a number, zeros behind its end."""
    return load8(data, at) & low_bytes(min(left, 8)) if left > 0 else np.uint64(0)


@kernel
def _key(data: UInt8s, begin: Any, size: Any) -> Any:
    """A word of at most ``KEY_BYTES`` bytes as four numbers."""
    return (
        _part(data, begin, size),
        _part(data, begin + 8, size - 8),
        _part(data, begin + 16, size - 16),
        _part(data, begin + 24, size - 24),
    )


@kernel
def _place(key: Any, places: Any) -> Any:
    """Where a word is remembered, or would be."""
    mixed = key[0] * _MIX
    for k in range(1, 4):
        mixed = ((mixed ^ (mixed >> np.uint64(29))) + key[k]) * _MIX
    return np.int64(mixed >> np.uint64(32)) & (places - 1)


@kernel
def is_label(data: UInt8s, begin: Any, end: Any) -> Any:
    """Whether a word begins like a label: it is none of the words of a text."""
    prefix = min(begin + _LABEL_PREFIX.size, end)
    return _equal(data, begin, prefix, _LABEL_PREFIX, 0, _LABEL_PREFIX.size)


@kernel
def is_end(data: UInt8s, begin: Any, end: Any) -> Any:
    """Whether a word is the one that the library takes for the end of the line."""
    return _equal(data, begin, end, END_OF_LINE, 0, END_OF_LINE.size)


@kernel
def remember(
    model: Tables, memory: Memory, data: UInt8s, begin: Any, end: Any, place: Any, key: Any
) -> None:
    """Look a word up and put it into a place."""
    keys, hashes, counts, totals = memory
    hashed = fnv(data, begin, end)
    found = _find(model.slots, model.entry, model.names, data, begin, end, hashed)
    hashes[place] = hashed
    for k in range(4):
        keys[place, k] = key[k]
    for k in range(totals.shape[1]):
        totals[place, k] = model.rows[found, k] if 0 <= found < model.words else np.float32(0)
    features = np.int64(found >= 0)
    if found >= model.words or (found < 0 and is_label(data, begin, end)):
        features = np.int64(-1)
    elif model.longest and not is_end(data, begin, end):
        features += _add_subwords(model, data, begin, end, totals, place)
    counts[place] = features


@kernel
def _add_ngrams(
    rows: Float32s,
    kept: UInt64s,
    pruned: Int32s,
    words: Any,
    bucket: Any,
    hashed: Any,
    opened: UInt64s,
    known: Any,
    total: Float64s,
) -> Any:
    """Add the rows of the word n-grams that end with a word.

    ``opened[:known]`` are the hashes of the n-grams that end with the word before it, by length;
    they become those that end with this one. Returns how many features there are.
    """
    features = 0
    extended = np.uint64(np.int64(np.int32(hashed)))
    for k in range(known - 1, -1, -1):
        joined = opened[k] * NGRAM_FACTOR + extended
        row = _row(words, kept, pruned, np.int64(joined % bucket))
        if row >= 0:
            for column in range(total.size):
                total[column] += rows[row, column]
            features += 1
        if k + 1 < opened.size:
            opened[k + 1] = joined
    opened[0] = extended
    return features


@kernel
def _hide(
    model: Tables,
    memory: Memory,
    data: UInt8s,
    start: Int64s,
    end: Int64s,
    ends: bool,
    opened: UInt64s,
    hidden: Float64s,
) -> Any:
    """The sum of the rows of all features of one text, the end of the line included if it ``ends``;
    returns how many there are.
    """
    keys, hashes, counts, totals = memory
    rows, kept, pruned, words = model.rows, model.kept, model.pruned, model.words
    bucket, ngram = np.uint64(model.bucket), model.ngram
    places = hashes.size - 2
    features: Any = np.int64(0)
    known: Any = np.int64(0)
    for token in range(start.size + 1 if ends else start.size):
        place, ended = places + 1, True
        if token < start.size:
            begin, stop = start[token], end[token]
            key = _key(data, begin, min(stop - begin, KEY_BYTES))
            place, same = places, False
            if stop - begin <= KEY_BYTES:
                place = _place(key, places)
                same = keys[place, 0] == key[0] and keys[place, 1] == key[1]
                same = same and keys[place, 2] == key[2] and keys[place, 3] == key[3]
            if not same:
                remember(model, memory, data, begin, stop, place, key)
            # The library reads one line, and takes this word for its end wherever it stands.
            ended = key[0] == _END_KEY and stop - begin == END_OF_LINE.size
            if ended and not ends:
                break
        added = np.int64(counts[place])
        if added < 0:
            continue
        features += added
        for k in range(hidden.size):
            hidden[k] += totals[place, k]
        if ngram > 1:
            features += _add_ngrams(
                rows, kept, pruned, words, bucket, hashes[place], opened, known, hidden
            )
            known = min(known + 1, ngram - 1)
        if ended:
            break
    return features


@kernel
def _logistic(x: Any) -> Any:
    return 1.0 / (1.0 + exp(-x))


@kernel
def _tabulated_logistic(x: Any) -> Any:
    """The library's logistic function for one-vs-all: 512 steps between -8 and 8."""
    if x < -8.0:
        return 0.0
    if x > 8.0:
        return 1.0
    return _logistic(np.floor((x + 8.0) * 32.0) / 32.0 - 8.0)


@kernel
def _put_logits(model: Tables, hidden: Float64s, values: Float64s) -> None:
    """The output matrix times the hidden vector."""
    if model.output.shape[0] == 0:
        for k in range(hidden.size):
            values[k] = hidden[k]
        return
    values[: model.output.shape[1]] = 0.0
    for d in range(hidden.size):
        row = model.output[d]
        for k in range(row.size):
            values[k] += hidden[d] * row[k]


@kernel
def _put_leaves(model: Tables, values: Float64s, labels: Float64s) -> None:
    """The probabilities of the leaves of the tree from the logits of its inner nodes; those below
    SMALLEST are 0, as the library gives up there.
    """
    leaves = labels.size
    node_probability = np.zeros(model.left.size)
    node_probability[-1] = 1.0
    for node in range(model.left.size - 1, leaves - 1, -1):
        reached = node_probability[node]
        if reached < SMALLEST:
            continue
        right = _logistic(values[node - leaves])
        node_probability[model.left[node]] = reached * (1.0 - right + SMALLEST)
        node_probability[model.right[node]] = reached * (right + SMALLEST)
    for k in range(leaves):
        labels[k] = node_probability[k] if node_probability[k] >= SMALLEST else 0.0


@kernel
def put_probabilities(loss: Any, values: Float64s, labels: Float64s) -> None:
    """The probability of each label from the logits, as the library reports it."""
    if loss == SOFTMAX:
        highest, total = values[0], 0.0
        for k in range(labels.size):
            highest = max(highest, values[k])
        for k in range(labels.size):
            labels[k] = exp(values[k] - highest)
            total += labels[k]
        for k in range(labels.size):
            labels[k] = labels[k] / total + SMALLEST
    else:
        for k in range(labels.size):
            labels[k] = _tabulated_logistic(values[k]) + SMALLEST


@kernel
def log_odds(loss: Any, values: Float64s, label: Any) -> Any:
    """The logarithm of the odds of a label against all others, from the logits: it goes on where
    the probability is as good as 0 or 1. NaN for a tree.
    """
    if loss == HIERARCHICAL:
        return np.nan
    if loss != SOFTMAX:
        return values[label]
    highest, total = -np.inf, 0.0
    for k in range(values.size):
        if k != label:
            highest = max(highest, values[k])
    for k in range(values.size):
        if k != label:
            total += exp(values[k] - highest)
    return values[label] - highest - log(total)


@kernel
def predict(
    model: Tables,
    memory: Memory,
    data: UInt8s,
    first: Int64s,
    start: Int64s,
    end: Int64s,
    ends: bool,
    wanted: Int64s,
    top: Int32s,
    top_probability: Float64s,
    found: Float64s,
    odds: Float64s,
) -> None:
    """For every text the best label with its probability, and the probabilities and log-odds of the
    wanted labels.

    ``ends``: every text has the end of the line behind it. A text without any feature has the label
    -1 and NaN.
    """
    leaves = (model.left.size + 1) // 2 if model.left.size else model.output.shape[1]
    hidden = np.zeros(model.rows.shape[1])
    values, labels = np.zeros(leaves), np.zeros(leaves)
    opened = np.zeros(max(model.ngram - 1, 1), np.uint64)
    for text in range(top.size):
        low, high = first[text], first[text + 1]
        hidden[:] = 0.0
        features = _hide(model, memory, data, start[low:high], end[low:high], ends, opened, hidden)
        if features == 0:
            top[text], top_probability[text] = -1, np.nan
            found[text, :] = odds[text, :] = np.nan
            continue
        hidden /= features
        _put_logits(model, hidden, values)
        if model.loss == HIERARCHICAL:
            _put_leaves(model, values, labels)
        else:
            put_probabilities(model.loss, values, labels)
        best = np.argmax(labels)
        top[text], top_probability[text] = best, min(labels[best], 1.0)
        for k in range(wanted.size):
            found[text, k] = min(labels[wanted[k]], 1.0)
            odds[text, k] = log_odds(model.loss, values, wanted[k])


@kernel
def separates(byte: Any) -> Any:
    """Whether a byte stands between words."""
    return byte <= 32 and (byte == 32 or 9 <= byte <= 13 or byte == 0)


@kernel
def split(
    data: UInt8s,
    offsets: Int64s,
    alive: Bools,
    first: Int64s,
    start: Int64s,
    end: Int64s,
) -> Any:
    """The words as the library splits them, a line break being a space; counts only while ``start``
    is empty.
    """
    found = 0
    for doc in range(alive.size):
        at, stop = offsets[doc], offsets[doc + 1]
        while alive[doc] and at < stop:
            while at < stop and separates(data[at]):
                at += 1
            begin = at
            while at < stop and not separates(data[at]):
                at += 1
            if at > begin:
                if start.size:
                    start[found], end[found] = begin, at
                found += 1
        first[doc + 1] = found
    return found
