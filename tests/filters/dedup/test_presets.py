"""Presets, the choice of bands and rows, and shingles of characters."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from datasketch.lsh import _optimal_param

from tamis.filters.dedup import MinHash, deduplicate
from tamis.filters.dedup.banding import optimal_banding
from tamis.filters.dedup.shingle_sets import shingle_sets, units_of
from tamis.pipeline.errors import RecipeError
from tests.filters.dedup.conftest import make_documents
from tests.filters.dedup.test_shingles import shingle_reference
from tests.filters.dedup.test_signatures import signature_of, word_shingles


@pytest.mark.parametrize(("threshold", "permutations"), [(0.7, 64), (0.8, 48), (0.5, 32)])
def test_bands_and_rows_are_those_of_datasketch(threshold, permutations):
    expected = _optimal_param(threshold, permutations, 0.5, 0.5)
    assert optimal_banding(threshold, permutations) == expected


def test_known_bandings():
    assert optimal_banding(0.7, 240) == (24, 10)
    assert optimal_banding(0.7, 128) == (14, 9)
    assert optimal_banding(0.8, 112, rows=8)[1] == 8
    with pytest.raises(ValueError, match="too few"):
        optimal_banding(0.7, 10, bands=11)


def banding(**settings):
    stage = MinHash(**settings)
    return stage.bands, stage.rows, stage.ngram, stage.unit


def test_presets_and_what_wins_over_them():
    assert banding() == banding(preset="fineweb") == (14, 8, 5, "word")
    assert banding(preset="curator") == (20, 13, 24, "character")
    assert banding(preset="text-dedup") == (24, 10, 5, "word")
    assert banding(preset="text-dedup", bands=9, rows=13) == (9, 13, 5, "word")
    assert banding(preset="curator", ngram=13, rows=5) == (20, 5, 13, "character")
    assert banding(preset="fineweb", threshold=0.7) == (14, 9, 5, "word")
    assert banding(threshold=0.7, permutations=240) == (24, 10, 5, "word")
    assert banding(permutations=240) == (24, 10, 5, "word")
    assert banding(threshold=0.7, bands=3, rows=4) == (3, 4, 5, "word")
    assert banding(threshold=0.8, permutations=112, bands=14)[0] == 14
    with pytest.raises(RecipeError, match="raise permutations"):
        MinHash(threshold=0.7, permutations=5, rows=6)


@pytest.mark.parametrize("preset", [None, "fineweb", "curator", "text-dedup"])
def test_settings_written_out_give_the_same_stage(preset):
    stage = MinHash(preset=preset)
    assert MinHash(**stage.model_dump()) == stage


def test_documents_below_the_minimum_length_are_nobodys_duplicates():
    table = pa.table({"text": ["four words are here"] * 2 + ["now there are five words"] * 2})
    assert deduplicate(table, MinHash(preset="text-dedup")).num_rows == 3
    assert deduplicate(table, MinHash()).num_rows == 2


def character_shingles(text: str, ngram: int) -> set[int]:
    units = [ord(character) + 1 for character in text]
    return set(shingle_reference(units, min(ngram, len(units)))) if units else set()


TEXTS = ["abc", "", "a", "naïve 日本語 😀 text", "x" * 50, "The quick brown fox. " * 300]


@pytest.mark.parametrize("ngram", [3, 24])
def test_character_shingles_are_as_defined(ngram, demo):
    texts = TEXTS + [record["text"] for record in demo[:20]]
    stage = MinHash(preset="curator", ngram=ngram)
    documents = make_documents(texts)
    signature, length = stage.signatures(documents)
    sets = shingle_sets(units_of(documents, np.arange(len(texts)), "character", "spacy"), ngram)
    for i, text in enumerate(texts):
        expected = sorted(character_shingles(text, ngram))
        assert sets.value[sets.first[i] : sets.first[i + 1]].tolist() == expected
        assert length[i] == len(text)
        if expected:
            known = signature_of(np.array(expected, np.uint32), 260, stage.seed)
            assert (signature[i] == known).all()


def test_sets_of_word_shingles_are_as_defined(demo):
    texts = TEXTS + ["one, TWO", "-- one --"] + [record["text"] for record in demo[:40]]
    rows = np.arange(len(texts))[::-1].copy()
    sets = shingle_sets(units_of(make_documents(texts), rows, "word", "whitespace"), 5)
    for i, row in enumerate(rows):
        found = sets.value[sets.first[i] : sets.first[i + 1]].tolist()
        assert found == sorted(word_shingles(texts[row], 5))


def test_near_copies_are_found_by_characters(demo):
    texts = [record["text"] for record in demo if len(record["text"]) > 1500][:40]
    changed = [text[: len(text) // 2] + "#" + text[len(text) // 2 :] for text in texts]
    table = pa.table({"text": texts + changed})
    kept = set(deduplicate(table, MinHash(preset="curator"))["text"].to_pylist())
    assert len(texts) == 40 and not kept & set(changed)
