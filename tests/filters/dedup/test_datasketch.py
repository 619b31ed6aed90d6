"""Signatures in datasketch."""

from __future__ import annotations

import numpy as np
import pytest
from datasketch import MinHash as Sketch
from datasketch import MinHashLSH

from tamis.filters.dedup import MinHash
from tamis.filters.dedup.datasketch import from_datasketch, to_datasketch
from tamis.pipeline.errors import TamisError
from tests.filters.dedup.conftest import make_documents

TEXTS = [
    "the quick brown fox jumps over the lazy dog and runs away",
    "the quick brown fox jumps over the lazy dog and runs far away",
    "nothing of this is in the other two documents at all",
]


def test_there_and_back_and_equal_estimates():
    stage = MinHash(seed=7, ngram=1)
    signature, _ = stage.signatures(make_documents(TEXTS))
    sketches = to_datasketch(signature, seed=7)
    assert (from_datasketch(sketches, seed=7) == signature).all()
    for i in range(3):
        for j in range(3):
            assert sketches[i].jaccard(sketches[j]) == np.mean(signature[i] == signature[j])
    index = MinHashLSH(num_perm=112, params=(14, 8))
    index.insert("first", sketches[0])
    assert index.query(sketches[1]) == ["first"] and index.query(sketches[2]) == []


def test_a_merged_sketch_is_that_of_both_texts():
    stage = MinHash(ngram=1)
    both = make_documents([*TEXTS[1:], f"{TEXTS[1]} {TEXTS[2]}"])
    signature, _ = stage.signatures(both)
    one, other, union = to_datasketch(signature)
    one.merge(other)
    assert (from_datasketch([one]) == from_datasketch([union])).all()


def test_sketches_of_other_permutations_are_refused():
    with pytest.raises(TamisError, match="other permutations than seed 1"):
        from_datasketch([Sketch(num_perm=112)])
    signature, _ = MinHash().signatures(make_documents(TEXTS))
    with pytest.raises(TamisError, match="other permutations than seed 2"):
        from_datasketch(to_datasketch(signature), seed=2)
    with pytest.raises(TamisError, match="compat: datatrove"):
        to_datasketch(signature.astype(np.uint64))
