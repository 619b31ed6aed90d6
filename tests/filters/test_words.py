"""Words: exactly Python's ``str.split``, or exactly the boundaries of UAX 29."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from tamis.filters.text.lines import lines
from tamis.filters.text.scan import scan
from tamis.filters.text.unicode_classes import PUNCTUATION_SET
from tamis.filters.text.words import (
    EXACT_STOP_WORD,
    HAS_LETTER,
    HASH_BASE,
    NOT_SYMBOL,
    STOP_WORD_SHIFT,
    STOP_WORDS,
    Profile,
    Words,
    only,
    starts_alphanumeric,
    words,
)
from tamis.pipeline.documents import Documents
from tests.filters.text.reference import AWKWARD, batch, demo_texts, hostile_text


def spell(documents: Documents, found: Words) -> list[list[str]]:
    data = documents.utf8()[0].tobytes()
    spans = list(zip(found.start.tolist(), found.end.tolist(), strict=True))
    every = [data[start:end].decode() for start, end in spans]
    return [every[a:b] for a, b in zip(found.first[:-1], found.first[1:], strict=True)]


def assert_described(documents: Documents, found: Words) -> None:
    """Lengths, flags and hashes are those of the spelled words."""
    every = [word for of_document in spell(documents, found) for word in of_document]
    assert found.length.tolist() == [len(word) for word in every]
    for word, flags in zip(every, found.flags.tolist(), strict=True):
        stop = STOP_WORDS.index(word.lower()) + 1 if word.lower() in STOP_WORDS else 0
        expected = HAS_LETTER * any(c.isalpha() for c in word)
        expected |= NOT_SYMBOL * any(ord(c) not in PUNCTUATION_SET for c in word)
        expected |= EXACT_STOP_WORD * (word in STOP_WORDS) | stop << STOP_WORD_SHIFT
        assert flags == expected, word


def hash_of(word: str) -> int:
    return sum((byte + 1) * int(HASH_BASE) ** k for k, byte in enumerate(word.encode())) % 2**64


@pytest.mark.parametrize("texts", [AWKWARD, demo_texts()], ids=["awkward", "demo"])
def test_whitespace_words_are_those_of_split(texts: tuple[str, ...]) -> None:
    documents = batch(texts)
    found = words(documents, "whitespace")
    assert spell(documents, found) == [text.split() for text in texts]
    assert_described(documents, found)


@settings(deadline=None)
@given(hostile_text)
def test_whitespace_words_of_hostile_text(text: str) -> None:
    documents = batch([text, "a", text])
    found = words(documents, "whitespace")
    assert spell(documents, found) == [text.split(), ["a"], text.split()]
    assert_described(documents, found)


def test_every_code_point_splits_as_in_python() -> None:
    characters = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) != "Cs"]
    texts = ["".join(f"a{c}b " for c in characters[k : k + 4096]) for k in range(0, 300_000, 4096)]
    documents = batch(texts)
    assert spell(documents, words(documents, "whitespace")) == [text.split() for text in texts]


def test_hash_is_a_polynomial_over_the_bytes() -> None:
    text = "a bc def ghijklm nopqrstu vwxyzABCD é日本語😀 \0 a\0 " + "x" * 200
    documents = batch([text])
    found = words(documents, "whitespace")
    assert found.hash.tolist() == [hash_of(word) for word in text.split()]


def test_documents_that_are_not_alive_have_no_words() -> None:
    documents = batch(["one two", "three four", "five"])
    documents.alive[1] = False
    found = words(documents, "whitespace")
    assert spell(documents, found) == [["one", "two"], [], ["five"]]


@pytest.mark.parametrize("profile", ["whitespace", "unicode"])
def test_documents_dropped_after_the_first_look_have_no_words(profile: Profile) -> None:
    documents = batch(["one two", "three four\nfive", "six"])
    assert scan(documents).words.tolist() == [2, 3, 1]
    documents.alive[1] = False
    assert spell(documents, words(documents, profile)) == [["one", "two"], [], ["six"]]
    assert lines(documents).first.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("profile", ["whitespace", "unicode"])
def test_slices_nulls_and_no_documents(profile: Profile) -> None:
    texts = ["zero", "one 1", None, "", "two 2 zwei", "drei"]
    sliced = Documents(batch(texts).batch.slice(1, 4))
    expected = [["one", "1"], [], [], ["two", "2", "zwei"]]
    assert spell(sliced, words(sliced, profile)) == expected
    empty = batch([])
    assert words(empty, profile).first.tolist() == [0]


def test_words_at_the_end_of_the_buffer() -> None:
    """The last word ends where the Arrow buffer ends, nothing lies behind it."""
    text = "padding " * 8 + "wörd"
    raw = text.encode()
    offsets = pa.py_buffer(np.array([0, len(raw)], np.int64))
    array = pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(raw))
    documents = Documents(pa.RecordBatch.from_arrays([pa.array(["1"]), array], ["id", "text"]))
    found = words(documents, "whitespace")
    assert spell(documents, found) == [text.split()]
    assert_described(documents, found)


def test_words_are_computed_once() -> None:
    documents = batch(["a b"])
    assert words(documents, "whitespace") is words(documents, "whitespace")


def test_only_words_that_begin_with_a_letter_or_digit() -> None:
    documents = batch(["a -b 'c'", "", "é ¿que? 日本 1st ² «"])
    found = words(documents, "whitespace")
    left = only(found, starts_alphanumeric(documents, found))
    assert spell(documents, left) == [["a"], [], ["é", "日本", "1st", "²"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Can't stop: U.S.A. (3.14, 1,000)!", ["Can't", "stop", "U.S.A", "3.14", "1,000"]),
        ("aujourd’hui l'été foo_bar __ e-mail", ["aujourd’hui", "l'été", "foo_bar", "e", "mail"]),
        ("東京タワーへ行く。", ["東", "京", "タワー", "へ", "行", "く"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("한국어 텍스트 हिन्दी में", ["한국어", "텍스트", "हिन्दी", "में"]),
        ("שלום ג'ורג' צה\"ל a\"b", ["שלום", "ג'ורג'", 'צה"ל', "a", "b"]),
        (
            "e\u0301a\u0300 co\u00adop zero\u200dwidth m²",
            ["e\u0301a\u0300", "co\u00adop", "zero\u200dwidth", "m", "²"],
        ),
        ("👩‍👩‍👧 😀 … — «»", []),
        (
            "a:b 1:2 a.b 1.b 1.2. a' 'a 1'2",
            ["a:b", "1", "2", "a.b", "1", "b", "1.2", "a", "a", "1'2"],
        ),
    ],
)
def test_unicode_words(text: str, expected: list[str]) -> None:
    documents = batch([text])
    assert spell(documents, words(documents, "unicode")) == [expected]


def uax29_words(text: str) -> list[str]:
    segment = pytest.importorskip("uniseg.wordbreak").words
    return [word for word in segment(text) if any(c.isalnum() for c in word)]


def test_unicode_words_are_those_of_uax29() -> None:
    texts = [*AWKWARD, *demo_texts()[::17]]
    documents = batch(texts)
    found = words(documents, "unicode")
    assert spell(documents, found) == [uax29_words(text) for text in texts]
    assert_described(documents, found)


@settings(deadline=None)
@given(hostile_text)
def test_unicode_words_of_hostile_text(text: str) -> None:
    known = "".join(c for c in text if unicodedata.category(c) != "Cn")
    documents = batch([known])
    assert spell(documents, words(documents, "unicode")) == [uax29_words(known)]
