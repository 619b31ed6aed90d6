"""The Bloom filter: its size, that it forgets nothing, and how often it errs."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tamis.filters.dedup.bloom import BloomFilter, BloomSettings
from tamis.filters.dedup.paragraphs import ParagraphDedup
from tamis.pipeline.errors import TamisError
from tamis.pipeline.recipe import parse_recipe
from tests.filters.dedup.conftest import make_documents
from tests.filters.dedup.test_paragraphs import fit_in_files


def random_hashes(count, seed):
    return np.random.default_rng(seed).integers(0, 2**64, (count, 2), np.uint64, endpoint=False)


def test_its_size_is_that_of_the_formula():
    million = BloomSettings(expected=1_000_000, false_positive_rate=1e-3)
    assert million.bits() == 64 * math.ceil(14_377_638 / 64) and million.probes() == 10
    assert BloomSettings(expected=10**9).bits() / 8e9 == pytest.approx(1.797, abs=1e-3)
    assert BloomSettings(expected=1, false_positive_rate=0.9).probes() >= 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))), st.integers(1, 99)
)
def test_it_forgets_nothing(keys, expected):
    seen = BloomFilter(BloomSettings(expected=expected, false_positive_rate=0.1))
    hashes = np.array(keys, np.uint64).reshape(-1, 2)
    new = int((~seen.insert(hashes)).sum())
    assert len(seen) == new <= len(set(keys))
    assert seen.insert(hashes).all() and len(seen) == new


@pytest.mark.parametrize("rate", [0.1, 0.01, 0.001])
def test_it_errs_as_often_as_stated_once_it_is_full(rate):
    expected, batch, batches = 50_000, 100, 4000
    full = BloomFilter(BloomSettings(expected=expected, false_positive_rate=rate))
    full.insert(random_hashes(expected, 1))
    errors = 0
    for number in range(batches):
        # Each batch meets the filter as it is when full, but for the bits of the batch itself.
        errors += int(copy.deepcopy(full).insert(random_hashes(batch, (7, number))).sum())
    tried = batch * batches
    deviation = math.sqrt(tried * rate * (1 - rate))
    assert abs(errors - tried * rate) < 5 * deviation + 0.02 * tried * rate
    assert full.false_positive_rate() == pytest.approx(rate, rel=0.05)


def test_until_it_is_full_it_errs_less():
    seen = BloomFilter(BloomSettings(expected=100_000, false_positive_rate=0.01))
    errors = int(seen.insert(random_hashes(100_000, 3)).sum())
    assert errors < 0.01 * 100_000 / 3


def test_fifty_unrelated_documents_stay(tmp_path):
    documents = make_documents([f"This is document number {i}, like no other." for i in range(50)])
    stage = ParagraphDedup(bloom={"expected": 50})
    stage, facts, _ = fit_in_files(stage, [documents], tmp_path)
    assert facts["removed"] == 0
    assert stage.refine(documents).equals(documents.text)


def test_with_a_small_error_rate_it_finds_what_the_exact_set_does(demo, tmp_path):
    documents = make_documents([record["text"] for record in demo])
    _, exact, artefact = fit_in_files(ParagraphDedup(unit="line"), [documents], tmp_path / "exact")
    stage = ParagraphDedup(unit="line", bloom={"expected": 1e5, "false_positive_rate": 1e-9})
    _, facts, found = fit_in_files(stage, [documents], tmp_path / "bloom")
    assert found == artefact
    assert facts["removed"] == exact["removed"] and facts["false_positive_rate"] < 1e-9
    assert facts["bloom_bits"] == stage.bloom.bits()


def test_it_does_not_depend_on_the_order_of_tasks(demo, tmp_path):
    texts = [record["text"] for record in demo]
    # It errs so often that another order would show.
    stage = ParagraphDedup(unit="line", bloom={"expected": 20_000, "false_positive_rate": 0.2})
    artefacts = set()
    for attempt, size in enumerate([940, 100, 333]):
        cut = [
            make_documents(texts[begin : begin + size], first_row=begin)
            for begin in range(0, len(texts), size)
        ]
        order = list(range(len(cut)))
        random.Random(attempt).shuffle(order)
        _, _, artefact = fit_in_files(stage, cut, tmp_path / str(attempt), order)
        artefacts.add(artefact)
    _, _, exact = fit_in_files(ParagraphDedup(unit="line"), cut, tmp_path / "exact")
    assert len(artefacts) == 1 and artefacts != {exact}


def test_more_than_expected_is_a_mistake_that_names_the_fix(tmp_path):
    documents = make_documents(
        [f"This is document number {i}, like no other." for i in range(9)] * 2
    )
    with pytest.raises(TamisError, match=r"expected is 5, but of 18 paragraphs at least 9 are"):
        fit_in_files(ParagraphDedup(bloom={"expected": 5}), [documents], tmp_path)
    for expected in (10**15, 10**25):
        with pytest.raises(TamisError, match="GB, more than there is"):
            BloomFilter(BloomSettings(expected=expected))


def test_the_settings_in_a_recipe(tmp_path):
    bloom = "{expected: 1e9, false_positive_rate: 1e-4}"
    stages = f"stages:\n  - paragraph_dedup: {{bloom: {bloom}}}\n"
    recipe, _ = parse_recipe(f"input: {{path: '*.jsonl'}}\n{stages}output: {{path: out}}\n")
    assert recipe.stages[0].bloom == BloomSettings(expected=10**9, false_positive_rate=1e-4)
    for wrong in ({"expected": 0}, {"expected": 9, "false_positive_rate": 1}, {"size": 9}):
        with pytest.raises(ValidationError):
            ParagraphDedup(bloom=wrong)
