"""``compat: datatrove`` against the installed datatrove."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.text import simplify_text

from tamis.filters.dedup import MinHash
from tamis.filters.dedup.datatrove import simplified, word_shingles
from tamis.pipeline.errors import RecipeError
from tests.filters.dedup.conftest import make_documents

HARD = [
    "",
    "one two three four",
    "one two three four five",
    "It's 3.14, 1,000 or ٣٫٥ and 12.5.6; don't! (U.S.A.) — “quoted” C++ a/b",
    "Ångström naïve Łódź café e\u0301 日本語 İstanbul ΣΊΣΥΦΟΣ 😀 １２ x²" * 3,
    "tabs\tand\nlines\r\n\u00a0\u2003\u2028 \x1c\x85 spaces   here and more words",
    "\u0301 begins with a mark, then some more words follow it \u0301",
    "IS_ALPHA :) :-( a.m. e.g. we'll we're gonna cannot 10km 5pm $5 #tag @name",
    None,
]


@pytest.fixture(scope="module")
def datatrove(tmp_path_factory):
    return MinhashDedupSignature(str(tmp_path_factory.mktemp("signatures")), MinhashConfig())


@pytest.fixture(scope="module")
def texts(demo):
    return HARD + [record["text"] for record in demo if len(record["text"]) < 6000][:300]


def test_simplified_text_is_datatroves(texts):
    others = [chr(code) + " x" + chr(code) for code in range(0x3000) if chr(code).isprintable()]
    for text in [text or "" for text in texts] + ["".join(others), "a\u0301\u00a0", " \u0301 "]:
        assert simplified(text) == simplify_text(text)


def test_signatures_are_datatroves(texts, datatrove):
    stage = MinHash(compat="datatrove")
    signature, _ = stage.signatures(make_documents(texts))
    shingles = word_shingles(make_documents(texts), np.arange(len(texts)), 5)
    signed = 0
    for i, text in enumerate(texts):
        expected = datatrove.get_shingles(text or "")
        assert shingles.value[shingles.first[i] : shingles.first[i + 1]].tolist() == (
            expected[:, 0].tolist()
        )
        if len(expected):
            signed += 1
            assert signature[i].reshape(14, 8).tolist() == datatrove.get_signature(expected)
        else:
            assert (signature[i] == 2**64 - 1).all()
    assert signed > 300


def test_clusters_are_those_of_equal_datatrove_bands(copies, datatrove):
    texts = copies[:500] + ["short text"] * 3
    documents = make_documents(texts)
    stage = MinHash(compat="datatrove")
    measures = stage.fit_table(pa.Table.from_batches([documents.batch])).measure(documents)
    first: dict[tuple[int, ...], int] = {}
    joined = 0
    for i, text in enumerate(texts):
        shingles = datatrove.get_shingles(text)
        if not len(shingles):
            assert np.isnan(measures["cluster"][i])
            continue
        for band, rows in enumerate(datatrove.get_signature(shingles)):
            other = first.setdefault((band, *rows), i)
            if other != i:
                joined += 1
                assert measures["cluster"][other] == measures["cluster"][i]
    assert joined > 100


def test_verification_goes_with_it():
    texts = ["one two three four five six seven eight"] * 2 + ["one two three four five six"]
    stage = MinHash(compat="datatrove", verify=0.9)
    documents = make_documents(texts)
    measures = stage.fit_table(pa.Table.from_batches([documents.batch])).measure(documents)
    assert measures["duplicate"].tolist() == [0, 1, 0]
    assert measures["similarity"][1] == 1


def test_what_datatrove_does_not_have():
    with pytest.raises(RecipeError, match="shingles of words"):
        MinHash(compat="datatrove", unit="character")
    with pytest.raises(RecipeError, match=r"seed below 2\^32"):
        MinHash(compat="datatrove", seed=2**32)
