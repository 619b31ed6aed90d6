"""Connected components against a plain graph search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.filters.dedup.components import Components


def roots_by_search(keys: list[list[int]], present: list[bool]) -> list[int]:
    label = list(range(len(present)))
    changed = True
    while changed:
        changed = False
        for key in keys:
            for i, j in itertools.combinations(range(len(key)), 2):
                if present[i] and present[j] and key[i] == key[j] and label[i] != label[j]:
                    label[i] = label[j] = min(label[i], label[j])
                    changed = True
    return label


def components(keys, present):
    found = Components(len(present))
    for key in keys:
        low = np.array(key, np.uint64)
        found.join(low * np.uint64(0x9E3779B97F4A7C15), low, np.array(present, np.bool_))
    return found.roots().tolist()


@settings(deadline=None)
@given(st.data(), st.integers(0, 25))
def test_components_are_those_of_the_graph_in_any_order_of_keys(data, length):
    columns = st.lists(st.integers(0, 12), min_size=length, max_size=length)
    keys = data.draw(st.lists(columns, max_size=3))
    present = data.draw(st.lists(st.booleans(), min_size=length, max_size=length))
    expected = roots_by_search(keys, present)
    assert components(keys, present) == expected
    assert components(keys[::-1], present) == expected


def test_a_long_chain_is_one_component():
    length = 65536
    generator = np.random.default_rng(1)
    order = generator.permutation(length)
    even, odd = np.empty(length, np.uint64), np.empty(length, np.uint64)
    even[order] = np.arange(length, dtype=np.uint64) // 2
    odd[order] = (np.arange(length, dtype=np.uint64) + 1) // 2
    assert set(components([even, odd], np.ones(length, bool))) == {0}


@pytest.mark.parametrize("half", ["high", "low"])
def test_both_halves_of_the_key_count(half):
    same, other = np.zeros(2, np.uint64), np.array([0, 1], np.uint64)
    high, low = (other, same) if half == "high" else (same, other)
    found = Components(2)
    found.join(high, low, np.ones(2, bool))
    assert found.roots().tolist() == [0, 1]
