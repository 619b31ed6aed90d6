"""Models of words and word n-grams with few labels, multiplied out: a word costs one look-up.

What a feature adds to the logits is the product of its row and the output matrix. Here it is
computed once for every feature, and a model of 1 GB with two labels becomes a table of 40 MB; of a
softmax only differences of logits matter, so there is one number less than there are labels. A
word's entry is found by 64 bits that are mixed from its bytes: that another word has them too has a
chance of 2^-64.

Most words of real text are different from those around them, so that every branch which depends on
the word is guessed wrongly often, at the price of twenty steps of a hash. Words of at most sixteen
bytes, nearly all, have none that matters: they are two numbers, whose key and hash are computed in
the same steps for every length, and one of the four entries of a bucket is chosen without asking
for one after the other.

The table of a large model is kept in the cache folder and mapped into memory, so that the processes
of a machine share one, and the next one has it without reading the model.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from tamis.filters.fasttext.kernels import (
    END_OF_LINE,
    FNV_BASIS,
    FNV_PRIME,
    NGRAM_FACTOR,
    SOFTMAX,
    Float32s,
    Float64s,
    fnv,
    is_end,
    is_label,
    log_odds,
    put_probabilities,
    separates,
    step,
)
from tamis.filters.text.bitmap import (
    Int32s,
    Int64s,
    UInt8s,
    UInt64s,
    empty,
    load8,
    low_bytes,
    readonly,
    trailing_zeros,
)
from tamis.kernel import kernel
from tamis.pipeline.documents import PADDING

ENTRY = np.dtype([("key", "<u8"), ("row", "<i4"), ("first", "<f4")])
"""A word: its key, its row (-1 for none), and the first number of that row."""

BLOCK = 128
"""Words that are hashed before the first of them is looked up; by then their entries are near."""

_CACHED_FROM = 1 << 26
"""Bytes of a model file whose table is worth keeping."""
_MOST_CACHED = 8
"""Tables that are kept, those that a killed process left half written included."""
_LAYOUT = 2
"""Raise it when a table of this version cannot be read by an earlier one."""

_BUCKET = 4
"""Entries that are looked at together: as many as a line of the cache holds."""
_SHORT = 16
"""A word of so many bytes is read at once."""
_UNDO = np.array([pow(int(FNV_PRIME), -k, 1 << 32) for k in range(8)], np.uint32)
"""What takes the hash back over k bytes of zeros: a zero byte only multiplies by the prime."""

_MIX, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
_HIGHEST = np.uint64(0x8080808080808080)
_OVER_SPACE = np.uint64(0x2121212121212121)
_NOTHING = np.uint64(0)
_LESS, _UNDERSCORE = np.uint8(ord("<")), np.uint8(ord("_"))


class Collapsed(NamedTuple):
    """A model as the kernel takes it; all arrays are read only."""

    table: NDArray[Any]
    """The words by their key, in buckets of four; a power of two long, at most half full. What has
    no place in its bucket is in the next one.
    """
    rows: Float32s
    """(words + buckets, width): what a feature adds to each logit. The width is the number of
    labels; one less for a softmax, whose logits are those above that of the last label.
    """
    words: int
    bucket: int
    """Buckets of n-grams, 0 without n-grams."""
    ngram: int
    labels: int
    loss: int
    end_row: int
    """The row of the end of the line, -1 if the model does not know it."""


def collapse(
    names: NDArray[np.uint8],
    entry: NDArray[np.int64],
    rows: NDArray[np.float32],
    words: int,
    settings: tuple[int, int, int, int],
) -> Collapsed:
    """The table of a model whose rows are multiplied out.

    Word k is ``names[entry[k]:entry[k + 1]]``; ``settings`` is (bucket, ngram, labels, loss).
    """
    # Arrow's memory: a bucket is one line of the cache there.
    table = empty(1 << max(2 * words - 1, _BUCKET - 1).bit_length(), ENTRY)
    table["key"], table["row"], table["first"] = 0, -1, 0.0
    padded = np.concatenate([names, np.zeros(PADDING, np.uint8)])
    _fill(readonly(padded), readonly(entry), readonly(rows), words, table)
    end = END_OF_LINE.tobytes()
    lengths = np.flatnonzero(np.diff(entry[: words + 1]) == len(end))
    found = [k for k in lengths if names[entry[k] : entry[k + 1]].tobytes() == end]
    end_row = int(found[0]) if found else -1
    return Collapsed(readonly(table), readonly(rows), words, *settings, end_row)


def open_kept(path: Path) -> tuple[tuple[str, ...], Collapsed] | None:
    """(labels, table) of a model from the cache folder; None if it is not there."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _open(_folder(path))
    return None


def keep(path: Path, labels: tuple[str, ...], model: Collapsed) -> Collapsed:
    """Put the table of a large model into the cache folder, and give the one that is mapped from
    there; the same table if the model is small or nothing can be written.
    """
    if path.stat().st_size < _CACHED_FROM:
        return model
    with suppress(OSError, ValueError, KeyError, TypeError):
        _store(_folder(path), labels, model)
        return _open(_folder(path))[1]
    return model


def _folder(path: Path) -> Path:
    stat = path.stat()
    identity = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}\0{_LAYOUT}"
    return _cache() / xxhash.xxh3_128_hexdigest(identity)


def _cache() -> Path:
    from tamis.filters.text.spacy_words import cache_folder

    return cache_folder() / "fasttext"


def _open(folder: Path) -> tuple[tuple[str, ...], Collapsed]:
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    table = np.load(folder / "table.npy", mmap_mode="r")
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    if table.dtype != ENTRY or rows.shape[0] != facts["words"] + facts["bucket"]:
        raise ValueError("it is not the table that was written")
    with suppress(OSError):
        os.utime(folder)
    labels = tuple(facts.pop("names"))
    return labels, Collapsed(readonly(table), readonly(rows), **facts)


def _store(folder: Path, labels: tuple[str, ...], model: Collapsed) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="writing-", dir=folder.parent))
    try:
        np.save(made / "table.npy", model.table)
        np.save(made / "rows.npy", model.rows)
        facts = {**model._asdict(), "names": labels}
        del facts["table"], facts["rows"]
        (made / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        # One that was there could not be opened.
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    there = sorted(folder.parent.iterdir(), key=lambda one: one.stat().st_mtime)
    for one in there[:-_MOST_CACHED]:
        shutil.rmtree(one, ignore_errors=True)


def _prefetch(_typing: Any, array: Any, _index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        pointer = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(function, [pointer, *(ir.Constant(number, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


prefetch: Callable[..., None] = intrinsic(_prefetch)
"""Begin to fetch element ``index`` of an array in memory order, to be read soon."""


@kernel
def _mix(key: Any, low: Any, high: Any) -> Any:
    """The key of a word whose key was ``key`` before the sixteen bytes ``low`` and ``high``."""
    mixed = (key ^ low) * _MIX
    mixed = (mixed ^ (mixed >> _HALF) ^ high) * _MIX
    return mixed ^ (mixed >> _HALF)


@kernel
def _part(data: UInt8s, at: Any, left: Any) -> Any:
    """Up to eight bytes of a word of which so many are left, with zeros behind its end."""
    return load8(data, at) & low_bytes(min(left, 8)) if left > 0 else _NOTHING


@kernel
def _key(data: UInt8s, begin: Any, end: Any) -> Any:
    """The key of a word of any length."""
    key = _NOTHING
    for at in range(begin, end, _SHORT):
        key = _mix(key, _part(data, at, end - at), _part(data, at + 8, end - at - 8))
    return key


@kernel
def _bucket(key: Any, mask: Any) -> Any:
    """The first entry of the bucket of a key; ``mask`` is the size of the table less one."""
    return np.int64(key) & mask & ~(_BUCKET - 1)


@kernel
def _fill(names: UInt8s, entry: Int64s, rows: Float32s, words: Any, table: Any) -> None:
    mask = table.size - 1
    for k in range(words):
        key = _key(names, entry[k], entry[k + 1])
        slot = _bucket(key, mask)
        while table[slot].row >= 0:
            slot = (slot + 1) & mask
        table[slot].key = key
        table[slot].row = k
        table[slot].first = rows[k, 0]


@kernel
def _add_grams(
    rows: Float32s,
    words: Any,
    bucket: Any,
    hashed: Any,
    opened: UInt64s,
    known: Any,
    grams: Int64s,
    count: Any,
) -> Any:
    """Put the rows of the n-grams that end with a word into ``grams``, and fetch them.

    ``opened[:known]`` are the hashes of the n-grams that end with the word before it, by length;
    they become those that end with this one. Returns how many there are in ``grams``.
    """
    extended = np.uint64(np.int64(np.int32(hashed)))
    for k in range(known - 1, -1, -1):
        joined = opened[k] * NGRAM_FACTOR + extended
        row = words + np.int64(joined % bucket)
        prefetch(rows, row * rows.shape[1])
        grams[count] = row
        count += 1
        if k + 1 < opened.size:
            opened[k + 1] = joined
    opened[0] = extended
    return count


@kernel
def _separators(eight: Any) -> Any:
    """The highest bits of those bytes among eight that are at most 32: separators, or control
    characters.
    """
    return ~(((eight | _HIGHEST) - _OVER_SPACE) | eight) & _HIGHEST


@kernel
def _reach(low: Any, high: Any) -> Any:
    """How many bytes stand in front of the first one among sixteen that may be a separator."""
    first, second = _separators(low), _separators(high)
    if first != 0:
        return trailing_zeros(first) >> 3
    if second != 0:
        return 8 + (trailing_zeros(second) >> 3)
    return np.int64(_SHORT)


@kernel
def _eight_steps(hashed: Any, eight: Any) -> Any:
    """``step`` over eight bytes."""
    for k in range(8):
        hashed = step(hashed, np.uint8(eight >> np.uint64(8 * k)))
    return hashed


@kernel
def _short_hash(low: Any, high: Any, size: Any) -> Any:
    """``fnv`` of a word of 1 to 16 bytes with zeros behind it."""
    hashed = _eight_steps(FNV_BASIS, low)
    if size > 8:
        return _eight_steps(hashed, high) * _UNDO[16 - size]
    return hashed * _UNDO[8 - size]


@kernel
def _read_block(
    table: Any,
    rows: Float32s,
    facts: tuple[Any, Any, Any],
    data: UInt8s,
    at: Any,
    stop: Any,
    opened: UInt64s,
    known: Any,
    keys: UInt64s,
    grams: Int64s,
) -> Any:
    """Read up to BLOCK words, as the library splits them, and fetch their entries.

    ``facts`` is (words, buckets, longest n-gram) of the model. Gives (words, n-grams, how many of
    ``opened`` are known, where the text goes on); the last is -1 at its end, which the word
    ``</s>`` is too.
    """
    all_words, bucket, ngram = facts
    mask = table.size - 1
    words = count = np.int64(0)
    before = opened[0]
    while words < keys.size:
        while at < stop and separates(data[at]):
            at += 1
        begin, low, high = at, load8(data, at), load8(data, at + 8)
        at = min(at + _reach(low, high), stop)
        while at < stop and not separates(data[at]):
            at += 1
        if at == begin or (data[begin] == _LESS and is_end(data, begin, at)):
            return words, count, known, np.int64(-1)
        size = at - begin
        if size <= _SHORT:
            low &= low_bytes(min(size, 8))
            high = high & low_bytes(size - 8) if size > 8 else _NOTHING
            key, hashed = _mix(_NOTHING, low, high), _short_hash(low, high, size)
        else:
            key, hashed = _key(data, begin, at), fnv(data, begin, at)
        if data[begin] == _UNDERSCORE and is_label(data, begin, at):
            continue
        prefetch(table, _bucket(key, mask))
        keys[words] = key
        words += 1
        if ngram == 2:
            # The usual case, without going over lengths: a third less time for the whole block.
            extended = np.uint64(np.int64(np.int32(hashed)))
            if known:
                row = all_words + np.int64((before * NGRAM_FACTOR + extended) % bucket)
                prefetch(rows, row * rows.shape[1])
                grams[count] = row
                count += 1
            opened[0] = before = extended
            known = np.int64(1)
        elif ngram > 2:
            count = _add_grams(rows, all_words, bucket, hashed, opened, known, grams, count)
            known = min(known + 1, ngram - 1)
    return words, count, known, np.int64(at)


@kernel
def _look_up(table: Any, slot: Any, key: Any) -> Any:
    """(row, first number) of a key in the bucket from ``slot`` on, (-1, 0) if it is not there; and
    the row of the last entry, which is -1 if no word had to go to the next bucket.
    """
    row, first, last = np.int32(-1), np.float32(0), np.int32(0)
    for k in range(_BUCKET):
        there = table[slot + k].key == key
        last, number = table[slot + k].row, table[slot + k].first
        row = last if there else row
        first = number if there else first
    return row, first, last


@kernel
def _add_words(table: Any, rows: Float32s, keys: UInt64s, words: Any, hidden: Float64s) -> Any:
    """Add the rows of the words that the model knows; returns how many these are."""
    mask, width = table.size - 1, hidden.size
    features, total = np.int64(0), 0.0
    for k in range(words):
        key = keys[k]
        slot = _bucket(key, mask)
        row, first, last = _look_up(table, slot, key)
        while row < 0 and last >= 0:
            slot = (slot + _BUCKET) & mask
            row, first, last = _look_up(table, slot, key)
        features += row >= 0
        total += first
        if width > 1 and row >= 0:
            for column in range(1, width):
                hidden[column] += rows[row, column]
    hidden[0] += total
    return features


@kernel
def _add_rows(rows: Float32s, which: Int64s, count: Any, hidden: Float64s) -> None:
    for column in range(hidden.size):
        total = 0.0
        for k in range(count):
            total += rows[which[k], column]
        hidden[column] += total


@kernel
def _sum_features(
    table: Any,
    rows: Float32s,
    facts: tuple[Any, Any, Any],
    end_row: Any,
    data: UInt8s,
    begin: Any,
    stop: Any,
    ends: bool,
    opened: UInt64s,
    keys: UInt64s,
    grams: Int64s,
    hidden: Float64s,
) -> Any:
    """The sum of the rows of all features of one text; gives how many there are, and how many words
    the text has.
    """
    features = known = all_words = np.int64(0)
    at: Any = np.int64(begin)
    while at >= 0:
        words, count, known, at = _read_block(
            table, rows, facts, data, at, stop, opened, known, keys, grams
        )
        features += _add_words(table, rows, keys, words, hidden) + count
        _add_rows(rows, grams, count, hidden)
        all_words += words
    if ends:
        count = np.int64(0)
        if facts[2] > 1:
            end = fnv(END_OF_LINE, 0, END_OF_LINE.size)
            count = _add_grams(rows, facts[0], facts[1], end, opened, known, grams, count)
        if end_row >= 0:
            grams[count] = end_row
            count += 1
        _add_rows(rows, grams, count, hidden)
        features += count
    return features, all_words


@kernel
def predict_collapsed(
    model: Collapsed,
    data: UInt8s,
    begin: Int64s,
    end: Int64s,
    ends: bool,
    wanted: Int64s,
    top: Int32s,
    top_probability: Float64s,
    found: Float64s,
    odds: Float64s,
    words: Int64s,
) -> None:
    """``kernels.predict`` for the texts ``data[begin[i]:end[i]]``; ``words`` is how many each
    has.
    """
    table, rows, loss, end_row = model.table, model.rows, model.loss, model.end_row
    facts = (model.words, np.uint64(model.bucket), model.ngram)
    hidden = np.zeros(rows.shape[1])
    values, labels = np.zeros(model.labels), np.zeros(model.labels)
    opened = np.zeros(max(model.ngram - 1, 1), np.uint64)
    keys, grams = np.zeros(BLOCK, np.uint64), np.zeros(BLOCK * opened.size + 1, np.int64)
    for text in range(top.size):
        for k in range(hidden.size):
            hidden[k] = 0.0
        features, words[text] = _sum_features(
            *(table, rows, facts, end_row, data, begin[text], end[text], ends),
            *(opened, keys, grams, hidden),
        )
        if features == 0:
            top[text], top_probability[text] = -1, np.nan
            found[text, :] = odds[text, :] = np.nan
            continue
        for k in range(hidden.size):
            values[k] = hidden[k] / features
        put_probabilities(loss, values, labels)
        best = 0
        for k in range(1, labels.size):
            best = k if labels[k] > labels[best] else best
        top[text], top_probability[text] = best, min(labels[best], 1.0)
        for k in range(wanted.size):
            found[text, k] = min(labels[wanted[k]], 1.0)
            odds[text, k] = log_odds(loss, values, wanted[k])


def relative(output: NDArray[np.float32], loss: int) -> NDArray[np.float32]:
    """The output matrix (labels, dim) whose product with a row is what the table has of it."""
    return output[:-1] - output[-1] if loss == SOFTMAX else output
