"""n-grams of long documents, whose tables are as full as they get, against dictionaries."""

from __future__ import annotations

import random
from collections import Counter

from tamis.filters.text.ngrams import duplicated_ngrams, repeated_ngrams, top_ngrams
from tamis.filters.text.words import words
from tests.filters.text.reference import batch, greedy, ngrams


def test_ngrams_of_long_documents() -> None:
    chance = random.Random(7)
    sizes = (40, 9_000, 17_000, 40_000, 3)
    texts = [" ".join(f"w{chance.randrange(size // 2 + 1)}" for _ in range(size)) for size in sizes]
    spans = words(batch(texts), "whitespace")
    of = (1, 2, 3, 5)
    top, greedily, again = (
        top_ngrams(spans, of),
        duplicated_ngrams(spans, of),
        repeated_ngrams(spans, of),
    )
    for row, text in enumerate(texts):
        split = text.split()
        for column, n in enumerate(of):
            count = Counter(ngrams(split, n))
            if not count:
                assert top.occurrences[row, column] == 0
                continue
            gram, number = count.most_common(1)[0]
            assert top.occurrences[row, column] == number
            assert top.characters[row, column] == len("".join(gram))
            assert greedily[row, column] == greedy(split, n)
            several = [g for g in ngrams(split, n) if count[g] > 1]
            assert again.occurrences[row, column] == sum(len("".join(g)) for g in several)


def test_words_longer_than_the_table_of_powers() -> None:
    unit = " ".join(["x" * 63, "y" * 64, "z" * 65, "é" * 200, "b"])
    text = f"{unit} {unit} tail"
    assert duplicated_ngrams(words(batch([text])), (5, 2)).tolist() == [
        [len(unit) - 4, greedy(text.split(), 2)]
    ]
