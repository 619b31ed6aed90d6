"""MinHash deduplication against brute force on real text with edited copies."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest

from tamis.filters.dedup import MinHash, deduplicate
from tests.filters.dedup.conftest import make_documents
from tests.filters.dedup.test_signatures import jaccard, word_shingles


def fitted_measures(texts, stage):
    documents = make_documents(texts)
    return stage.fit_table(pa.Table.from_batches([documents.batch])).measure(documents)


def similar_pairs(shingles, threshold):
    """All pairs of at least this Jaccard similarity, by counting common shingles."""
    holders = defaultdict(list)
    for document, items in enumerate(shingles):
        for item in items:
            holders[item].append(document)
    common = Counter(
        pair for group in holders.values() for pair in itertools.combinations(group, 2)
    )
    sizes = [len(items) for items in shingles]
    return {
        (i, j): n / (sizes[i] + sizes[j] - n)
        for (i, j), n in common.items()
        if n >= threshold * (sizes[i] + sizes[j] - n)
    }


@pytest.fixture(scope="module")
def truth(copies):
    shingles = [word_shingles(text, 5) for text in copies]
    return shingles, similar_pairs(shingles, 0.5)


def test_recall_and_precision_on_edited_copies_of_real_text(copies, truth):
    shingles, pairs = truth
    cluster = fitted_measures(copies, MinHash())["cluster"]
    together = {pair for pair in pairs if cluster[pair[0]] == cluster[pair[1]]}
    similar = {pair for pair, similarity in pairs.items() if similarity >= 0.8}
    assert len(similar) > 400
    assert len(similar & together) / len(similar) >= 0.985
    members = defaultdict(list)
    for document in np.flatnonzero(~np.isnan(cluster)).tolist():
        members[cluster[document]].append(document)
    joined = [pair for group in members.values() for pair in itertools.combinations(group, 2)]
    good = [pair for pair in joined if jaccard(shingles[pair[0]], shingles[pair[1]]) >= 0.5]
    assert len(good) / len(joined) >= 0.95


def test_pairs_are_found_with_the_probability_of_the_banding(truth, copies):
    """Over many seeds, sharing a band happens as often as 1 - (1 - J^rows)^bands says."""
    _, pairs = truth
    chosen = [(pair, j) for pair, j in sorted(pairs.items()) if 0.55 <= j <= 0.85][:150]
    documents = make_documents([copies[d] for pair, _ in chosen for d in pair])
    found, expected = 0, 0.0
    for seed in range(20):
        stage = MinHash(seed=seed)
        summary = stage.summarize(documents)
        keys = np.array([summary[f"band_{band:02d}"].to_numpy() for band in range(14)])
        found += int((keys[:, 0::2] == keys[:, 1::2]).any(axis=0).sum())
        expected += sum(1 - (1 - j**8) ** 14 for _, j in chosen)
    assert found / expected == pytest.approx(1, abs=0.06)


def test_planted_near_copies_of_the_demo_corpus_are_found(demo):
    ids = {record["id"]: i for i, record in enumerate(demo)}
    texts = [record["text"] for record in demo]
    cluster = fitted_measures(texts, MinHash())["cluster"]
    for record in demo:
        planted, _, original = (record["planted"] or "").partition(":")
        if planted not in ("exact_copy", "near_copy"):
            continue
        pair = ids[record["id"]], ids[original]
        same = cluster[pair[0]] == cluster[pair[1]]
        similarity = jaccard(*(word_shingles(texts[i], 5) for i in pair))
        assert same or similarity < 0.8


def test_exact_copies_of_short_documents_are_found_and_empty_ones_are_not():
    texts = ["one two", "One, two!", "one two three", "", "...", "", "...", "!!!", "one", "one"]
    measures = fitted_measures(texts, MinHash())
    assert measures["duplicate"].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert measures["detail"][1] == "doc-0" and measures["detail"][9] == "doc-8"


def test_scripts_without_spaces_need_the_unicode_profile():
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗い所で"
    texts = [text * 3, text * 3 + "ニャー", "全く別の文章です。" * 10]
    assert fitted_measures(texts, MinHash(words="unicode"))["duplicate"].tolist() == [0, 1, 0]
    assert fitted_measures(texts, MinHash())["duplicate"].tolist() == [0, 0, 0]


def test_the_result_does_not_depend_on_how_the_table_is_cut(copies):
    texts = copies[:800]
    whole = fitted_measures(texts, MinHash())["duplicate"]
    table = pa.concat_tables([pa.table({"text": texts[:1]}), pa.table({"text": texts[1:]})])
    assert deduplicate(table, MinHash())["text"].to_pylist() == [
        text for text, duplicate in zip(texts, whole, strict=True) if not duplicate
    ]
