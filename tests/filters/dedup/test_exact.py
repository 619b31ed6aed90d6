"""Exact deduplication and the hash of a text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.filters.dedup import ExactDedup, deduplicate
from tamis.filters.dedup.exact import normalized
from tamis.filters.dedup.fold import fold_character
from tests.filters.dedup.conftest import make_documents


def normalized_reference(text: str) -> str:
    return " ".join("".join(map(fold_character, word)) for word in text.split())


def hashes_of(stage, texts):
    summary = stage.summarize(make_documents(texts))
    return list(zip(summary["hash_high"].to_pylist(), summary["hash_low"].to_pylist(), strict=True))


def test_the_hash_is_xxh3_128(demo):
    texts = ["", "a", "é"] + ["x" * n for n in range(1, 300)] + [r["text"] for r in demo[:100]]
    for text, (high, low) in zip(texts, hashes_of(ExactDedup(), texts), strict=True):
        assert (high << 64) | low == xxhash.xxh3_128_intdigest(text.encode())


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")) | st.text("aB \n\t\u3000ȺİßΣ\0"), min_size=1))
def test_normalized_text_is_as_defined(texts):
    data, offsets = normalized(make_documents(texts), np.arange(len(texts)))
    found = [data[offsets[i] : offsets[i + 1]].tobytes().decode() for i in range(len(texts))]
    assert found == [normalized_reference(text) for text in texts]


def test_the_longest_fold_fits():
    data, offsets = normalized(make_documents(["Ⱥ" * 1000]), np.arange(1))
    assert data[: offsets[1]].tobytes().decode() == "ⱥ" * 1000


def test_duplicates_are_those_of_a_dictionary(demo):
    texts = [record["text"] for record in demo]
    first: dict[str, int] = {}
    expected = [i for i, text in enumerate(texts) if first.setdefault(text, i) != i]
    assert len(expected) >= 40
    documents = make_documents(texts)
    stage = ExactDedup().fit_table(pa.Table.from_batches([documents.batch]))
    measures = stage.measure(documents)
    assert np.flatnonzero(measures["duplicate"]).tolist() == expected
    assert [measures["detail"][i] for i in expected] == [f"doc-{first[texts[i]]}" for i in expected]


def test_planted_copies_of_the_demo_corpus_are_found(demo):
    ids = {record["id"]: i for i, record in enumerate(demo)}
    documents = make_documents([record["text"] for record in demo])
    stage = ExactDedup().fit_table(pa.Table.from_batches([documents.batch]))
    measures = stage.measure(documents)
    planted = [record for record in demo if (record["planted"] or "").startswith("exact_copy:")]
    assert len(planted) == 40
    for record in planted:
        original = ids[record["planted"].split(":", 1)[1]]
        assert measures["cluster"][ids[record["id"]]] == measures["cluster"][original]


@pytest.mark.parametrize(("normalize", "kept"), [(False, [0, 1, 2, 3, 4]), (True, [0, 3, 4])])
def test_normalize_ignores_case_and_white_space_only(normalize, kept):
    texts = ["One two", "ONE  TWO", " one\ntwo\u3000", "onetwo", "one, two", "one, two"]
    table = pa.table({"text": texts, "n": range(6)})
    assert deduplicate(table, ExactDedup(normalize=normalize))["n"].to_pylist() == kept


def test_nulls_and_empty_texts_are_the_same_document():
    table = pa.table({"text": ["", None, "a", ""], "n": range(4)})
    assert deduplicate(table, ExactDedup())["n"].to_pylist() == [0, 2]
    assert deduplicate(table, ExactDedup(normalize=True))["n"].to_pylist() == [0, 2]
