"""The corpus that ships with tamis tells the truth about what was planted in it."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tamis
from benchmarks.corpus.make_demo import demo_corpus, near_copy, planted_records

CORPUS = Path(tamis.__file__).parent / "demo" / "minicrawl.jsonl.gz"
COLUMNS = ["id", "url", "source", "lang", "license", "text", "planted"]


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, Any]]:
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_it_holds_what_its_description_says(corpus: list[dict[str, Any]]) -> None:
    assert Counter((one["planted"] or "real").split(":")[0] for one in corpus) == {
        "real": 940,
        "exact_copy": 40,
        "near_copy": 40,
        "repetition": 5,
        "boilerplate": 5,
    }
    assert {one["lang"] for one in corpus} == {"de", "en", "es", "fr", "ja", "ru", "zh"}
    assert all(list(one) == COLUMNS for one in corpus)
    assert all(one[name] for one in corpus for name in COLUMNS[:-1])
    assert len({one["id"] for one in corpus}) == len(corpus)


def test_real_documents_have_no_exact_copies_of_their_own(corpus: list[dict[str, Any]]) -> None:
    texts = [one["text"] for one in corpus if not one["planted"]]
    assert len(set(texts)) == len(texts)


def test_planted_documents_name_an_earlier_one_that_they_were_made_from(
    corpus: list[dict[str, Any]],
) -> None:
    place = {one["id"]: number for number, one in enumerate(corpus)}
    for number, one in enumerate(corpus):
        if not one["planted"]:
            continue
        what, _, name = one["planted"].partition(":")
        original = corpus[place[name]]
        assert place[name] < number
        assert original["planted"] is None
        assert [one[key] for key in COLUMNS[2:5]] == [original[key] for key in COLUMNS[2:5]]
        if what == "exact_copy":
            assert one["text"] == original["text"]
        if what == "near_copy":
            old, new = original["text"].split(), one["text"].split()
            edited = sum(a != b for a, b in zip(old, new, strict=True)) / len(old)
            assert 0.015 <= edited <= 0.085


def test_making_it_again_gives_the_same_documents(corpus: list[dict[str, Any]]) -> None:
    real = [
        {key: value for key, value in one.items() if key != "planted"}
        for one in corpus
        if not one["planted"]
    ]
    assert demo_corpus(real) == corpus


def test_texts_that_may_not_be_changed_are_only_copied(corpus: list[dict[str, Any]]) -> None:
    sources = {
        one["source"]
        for one in planted_records([one for one in corpus if not one["planted"]], random.Random(1))
        if not one["planted"].startswith("exact_copy")
    }
    assert not sources & {"licences/legal", "religion"}


def test_near_copies_keep_white_space_and_edit_what_they_were_told() -> None:
    text = "".join(f"word{number}" + (" \n\t" if number % 7 else "  ") for number in range(1000))
    copy = near_copy(text, random.Random(3))
    assert "".join(copy.split()) != "".join(text.split())
    assert [len(gap) for gap in _gaps(copy)] == [len(gap) for gap in _gaps(text)]
    differing = sum(a != b for a, b in zip(copy.split(), text.split(), strict=True))
    assert 20 <= differing <= 80


def _gaps(text: str) -> list[str]:
    gaps, current = [], ""
    for character in text:
        if character.isspace():
            current += character
        elif current:
            gaps.append(current)
            current = ""
    return gaps
