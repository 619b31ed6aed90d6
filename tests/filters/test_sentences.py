from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from tamis.filters.text.sentences import sentences
from tamis.filters.text.unicode_classes import SENTENCE_END
from tamis.filters.text.words import Profile
from tamis.pipeline.documents import Documents


def count(texts: list[str], profile: Profile) -> list[int]:
    ids = pa.array([str(i) for i in range(len(texts))])
    batch = pa.RecordBatch.from_arrays([ids, pa.array(texts, pa.large_string())], ["id", "text"])
    return sentences(Documents(batch), profile).tolist()


@pytest.mark.parametrize("profile", ["whitespace", "unicode"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        (" \n ", 1),
        ("no end", 1),
        ("One. Two! Three?", 3),
        ("One. Two", 2),
        ('He said "One." (Two!) \u201cThree?\u201d', 3),
        ("Well... it goes on\u2026 and on", 1),
        ("J. S. Bach wrote it. He did, e.g. in 1.5 days.", 2),
        ("Version 2. Is it 3?", 2),
        ("Really?! Yes.", 2),
        ("\u4eca\u65e5\u306f\u3002\u660e\u65e5\u306f\uff1f", 2),
        ("\u4eca\u65e5\u306f\u3002\u300d\u660e\u65e5", 2),
        ("\u300c\u4eca\u65e5\u306f\u3002\u300d \u660e\u65e5", 2),
        ("\u0939\u0948\u0964 \u0939\u0948\u0964", 2),
        ("?", 1),
        ("(.)", 1),
        ("\u00e9. A", 2),
    ],
)
def test_known_counts(profile: Profile, text: str, expected: int) -> None:
    assert count([text], profile) == [expected]


def test_dropped_documents_have_no_sentences() -> None:
    batch = pa.RecordBatch.from_arrays(
        [pa.array(["a", "b"]), pa.array(["One. Two.", "One. Two."], pa.large_string())],
        ["id", "text"],
    )
    alive = np.array([True, False])
    assert sentences(Documents(batch, alive)).tolist() == [2, 0]


class TestSpacy:
    """The reference is spaCy's own Sentencizer."""

    def test_the_marks_are_the_sentencizers(self) -> None:
        sentencizer = pytest.importorskip("spacy.pipeline").Sentencizer
        assert set(map(ord, sentencizer.default_punct_chars)) == SENTENCE_END

    def test_known_counts(self) -> None:
        pytest.importorskip("spacy")
        texts = [
            "",
            "One. Two! Three?",
            "Well... no. e.g. this",
            "End.  ",
            "End. ",
            "End.\u00a0.",
            "A. b",
        ]
        assert count(texts, "spacy") == [1, 3, 2, 2, 1, 2, 1]

    def test_random_texts(self) -> None:
        english = pytest.importorskip("spacy").blank("en")
        english.add_pipe("sentencizer")
        rng = random.Random(3)
        pieces = [
            ".",
            "!",
            "?",
            "...",
            "\u3002",
            ")",
            '"',
            "\u201d",
            ":)",
            "(8",
            "e.g.",
            "a.",
            "10a.m.",
        ]
        pieces += [
            "Word",
            "word",
            "U.S.",
            "-",
            "v1.2",
            "\u0964",
            "x.y!z?",
            "'",
            ". .",
            "\u2026",
            "!!",
        ]
        pieces += ["a.b!c?d!e.f?g!h" * 3, "\u0f0d", "_"]
        gaps = ["", "", " ", " ", " ", "  ", "\t", "\u00a0", "\n"]
        texts = [
            "".join(rng.choice(pieces) + rng.choice(gaps) for _ in range(rng.randint(1, 20)))
            for _ in range(5000)
        ]
        expected = [max(len(list(english(text).sents)), 1) for text in texts]
        assert count(texts, "spacy") == expected
