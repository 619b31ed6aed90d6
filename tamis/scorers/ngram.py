"""An n-gram language model from text, as an ARPA file that KenLM reads.

Interpolated modified Kneser-Ney (Chen and Goodman 1998, section 3; Heafield et al. 2013 for the
counts at the beginning of sentences and the discounts): with a(hw) the count of an n-gram of the
highest order, or the number of different words in front of it for a lower one,

    p(w | h) = (a(hw) - D(a(hw))) / sum_x a(hx) + b(h) p(w | h without its first word)
    b(h)     = sum_x D(a(hx)) / sum_x a(hx)

and the words, the end and the unknown word are equally probable below the unigrams. n-grams that
begin with the beginning of a sentence, of which there is only one, keep their counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from polars import selectors as cs

from tamis.pipeline.errors import TamisError

BEGIN, END, UNKNOWN = range(3)
_RESERVED = ("<s>", "</s>", "<unk>")
_FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where there are too few counts to estimate them."""
_ROWS = 1 << 20
_NEVER = -99.0
"""log10 p of the beginning, which is never predicted."""


def train_ngram(sentences: Iterable[Sequence[str]], order: int, path: Path) -> int:
    """Write the model of the sentences (each a sequence of words without white space) to ``path``;
    gives the number of n-grams. The same sentences, in any order, give the same probabilities.
    ``order`` is 2 to 6, as KenLM reads them.

    Memory is some 150 bytes for each word of the text and order.

    Raises:
        TamisError: if there is no word, or the file cannot be written.
    """
    words, ids, places = _number(sentences)
    if len(words) == len(_RESERVED):
        raise TamisError("there is no word to learn an n-gram model from")
    counts = _count(ids, places, order)
    lower = pl.DataFrame({"p": [1.0 / (len(words) - 1)]})
    models: list[pl.DataFrame] = []
    for n, table in enumerate(counts, 1):
        contexts, lower = _estimate(table, n, lower)
        if models:
            models[-1] = models[-1].join(contexts, on=_columns(n - 1), how="left")
        else:
            # It has no probability, but is a context.
            begin = pl.DataFrame({"w0": [BEGIN], "p": [10**_NEVER]}, lower.schema)
            lower = pl.concat([begin, lower])
        models.append(lower)
    try:
        _write(models, pl.Series(words), path)
    except OSError as error:
        raise TamisError(f"{path} cannot be written: {error.strerror or error}") from error
    return sum(len(one) for one in models)


def _number(sentences: Iterable[Sequence[str]]) -> tuple[list[str], array[int], array[int]]:
    """(words, ids of all sentences in a row, place of each in its sentence)."""
    numbers = {word: number for number, word in enumerate(_RESERVED)}
    ids, places = array("I"), array("I")
    for sentence in sentences:
        ids.append(BEGIN)
        # A word that is written like a mark is no mark.
        ids.extend(
            UNKNOWN if word in _RESERVED else numbers.setdefault(word, len(numbers))
            for word in sentence
        )
        ids.append(END)
        places.extend(range(len(sentence) + 2))
    return list(numbers), ids, places


def _columns(n: int, first: int = 0) -> list[str]:
    """Of the words of an n-gram, counted from its end, so that suffixes have the same names."""
    return [f"w{place}" for place in range(n - 1 - first, -1, -1)]


def _count(ids: array[int], places: array[int], order: int) -> list[pl.DataFrame]:
    """a(n-gram) of the n-grams of each order, from 1 on."""
    row, place = np.array(ids, np.uint32), np.array(places, np.uint32)
    tables: list[pl.DataFrame] = []
    for n in range(order, 0, -1):
        whole = np.flatnonzero(place >= n - 1)
        if n < order:
            whole = whole[place[whole] == n - 1]
        grams = pl.DataFrame({f"w{back}": row[whole - back] for back in range(n - 1, -1, -1)})
        counted = grams.group_by(_columns(n)).agg(pl.len().cast(pl.Int64).alias("a"))
        if n < order:
            before = tables[-1].group_by(_columns(n)).agg(pl.len().cast(pl.Int64).alias("a"))
            counted = pl.concat([counted, before])
        if n == 1:
            counted = counted.filter(pl.col("w0") != BEGIN)
        tables.append(counted)
    return tables[::-1]


def _discounts(table: pl.DataFrame) -> tuple[float, ...]:
    """D(1), D(2) and D(3 and more)."""
    ones, twos, threes, fours = (int((table["a"] == count).sum()) for count in (1, 2, 3, 4))
    if not (ones and twos and threes):
        return _FALLBACK
    y = ones / (ones + 2 * twos)
    pairs = enumerate(((ones, twos), (twos, threes), (threes, fours)), 1)
    found = tuple(n - (n + 1) * y * more / fewer for n, (fewer, more) in pairs)
    return found if all(0 <= one <= n for n, one in enumerate(found, 1)) else _FALLBACK


def _estimate(
    table: pl.DataFrame, n: int, lower: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(``backoff`` of each context, ``p`` of each n-gram); ``lower`` has the p of its suffixes."""
    one, two, more = _discounts(table)
    a, context = pl.col("a"), _columns(n)[:-1]
    kinds = [(a == 1).sum(), (a == 2).sum(), (a >= 3).sum()]
    sums = [a.sum().alias("total"), *(kind.alias(f"n{i}") for i, kind in enumerate(kinds, 1))]
    taken = one * pl.col("n1") + two * pl.col("n2") + more * pl.col("n3")
    if context:
        contexts = table.group_by(context).agg(sums).with_columns(backoff=taken / pl.col("total"))
        table = table.join(contexts, on=context).join(
            lower.select(*_columns(n, 1), pl.col("p").alias("lower")), on=_columns(n, 1)
        )
    else:
        contexts = table.select(sums).with_columns(backoff=taken / pl.col("total"))
        table = pl.concat([table, pl.DataFrame({"w0": [UNKNOWN], "a": [0]}, table.schema)])
        table = table.group_by("w0").agg(a.sum())
        table = table.join(contexts, how="cross").with_columns(lower=pl.lit(lower["p"][0]))
    discount = pl.when(a >= 3).then(more).when(a == 2).then(two).when(a == 1).then(one).otherwise(0)
    p = (a - discount) / pl.col("total") + pl.col("backoff") * pl.col("lower")
    renamed = dict(zip(context, _columns(n - 1), strict=True))
    return (
        contexts.select(*context, "backoff").rename(renamed),
        table.select(*_columns(n), p.alias("p")),
    )


def _write(models: Sequence[pl.DataFrame], words: pl.Series, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.write(b"\\data\\\n")
        for n, model in enumerate(models, 1):
            out.write(f"ngram {n}={len(model)}\n".encode())
        for n, model in enumerate(models, 1):
            out.write(f"\n\\{n}-grams:\n".encode())
            shown = pl.concat_str([words.gather(model[one]) for one in _columns(n)], separator=" ")
            lines = model.select(
                pl.col("p").log10(),
                shown.alias("text"),
                cs.by_name("backoff", require_all=False).log10(),
            ).sort("text")
            for part in lines.iter_slices(_ROWS):
                content = part.write_csv(
                    separator="\t", include_header=False, quote_style="never",
                    float_precision=7, null_value="0",
                )  # fmt: skip
                out.write(content.encode())
        out.write(b"\n\\end\\\n")
