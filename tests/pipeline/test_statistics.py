"""Counts that merge in any order to the same totals."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tamis.pipeline.stages import Quantity, count, fraction
from tamis.pipeline.statistics import (
    Histogram,
    Samples,
    Statistics,
    bin_edges,
    bytes_by_source,
    rows_by_source,
    sampling_hash,
)


def test_splitmix64() -> None:
    # The first outputs of the reference splitmix64.c for the seed 0: state = k * golden gamma.
    golden = 0x9E3779B97F4A7C15
    states = np.array([(k * golden) % 2**64 for k in range(3)], np.uint64)
    assert [hex(one) for one in sampling_hash(states).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def _histogram(quantity: Quantity, values: list[float]) -> Histogram:
    found = Histogram.empty(quantity)
    everything = np.ones(len(values), np.bool_)
    found.add(quantity, np.array(values), everything, everything)
    return found


def test_bins_hold_what_their_edges_say() -> None:
    for quantity in (fraction("f", ""), count("c", "")):
        edges = bin_edges(quantity)
        for index, low, high in zip(range(len(edges)), edges, edges[1:], strict=False):
            counts = _histogram(quantity, [low, (low + high) / 2, np.nextafter(high, low)]).kept
            assert counts[index] == counts.sum() == 3
    counts = _histogram(count("c", ""), [0, 1, 10, 10**12]).kept
    assert np.flatnonzero(counts).tolist() == [0, 1, 9, 64]
    assert _histogram(fraction("f", "", high=2.0), [-1, 2, 3]).kept[[0, -1]].tolist() == [1, 2]


def test_bins_without_a_lower_bound_lie_on_both_sides_of_zero() -> None:
    logit = Quantity("logit", "score", "", -np.inf)
    edges = bin_edges(logit)
    assert np.array_equal(edges, -edges[::-1]) and (np.diff(edges) > 0).all()
    middle = len(edges) // 2
    assert edges[middle : middle + 2].tolist() == [0.0, 0.1]
    counts = _histogram(logit, [-1e9, -3.0, -0.3, -0.05, 0.0, 0.3, 3.0, 1e9]).kept
    assert counts.sum() == 8 and counts.max() == 1 and np.array_equal(counts, counts[::-1])
    # Counts and bounded quantities keep the bins they had.
    assert bin_edges(count("c", ""))[:2].tolist() == [0.0, 1.0]
    assert np.array_equal(bin_edges(Quantity("s", "score", "", -1.0, 1.0)), np.linspace(-1, 1, 51))


def test_bins_without_a_lower_bound_end_at_the_upper_one() -> None:
    for high in (0.0, 5.0, -1e8):
        quantity = Quantity("log_probability", "score", "", -np.inf, high)
        edges = bin_edges(quantity)
        assert np.isfinite(edges).all() and (np.diff(edges) > 0).all() and edges[-1] == high
        counts = _histogram(quantity, [high - 20, high - 2, high]).kept
        assert counts.sum() == 3 and counts.max() == 1 and counts[-1] == 1


def test_a_histogram_tells_kept_dropped_and_missing() -> None:
    quantity = fraction("f", "")
    histogram = Histogram.empty(quantity)
    values = np.array([0.0, 0.5, 0.5, np.nan, 1.0, 0.5])
    entered = np.array([True, True, True, True, True, False])
    histogram.add(quantity, values, entered, np.array([True, False, True, False, False, True]))
    assert (histogram.kept.sum(), histogram.dropped.sum(), histogram.missing) == (2, 2, 1)
    assert histogram.kept[25] == histogram.dropped[25] == 1
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))).kept[25] == 1


def _statistics(numbers: list[int]) -> Statistics:
    found = Statistics()
    for number in numbers:
        found.documents += number
        found.stage(f"s{number % 3}").dropped += number
        found.stage(f"s{number % 3}").rules = {"r": number}
        found.source(f"x{number % 2}").dropped += number
        found.kept_samples.add([(int(sampling_hash(np.array([number]))[0]), {"id": number})])
    return found


@given(st.lists(st.lists(st.integers(0, 50)), min_size=1, max_size=5), st.randoms())
def test_merging_is_free_of_order(parts: list[list[int]], dice: object) -> None:
    def merged(order: list[list[int]]) -> str:
        total = Statistics()
        for part in order:
            record = json.loads(json.dumps(_statistics(part).to_json()))
            total.merge(Statistics.from_json(record))
        return json.dumps(total.to_json(), sort_keys=True)

    shuffled = list(parts)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merged(parts) == merged(shuffled)


def test_samples_are_those_with_the_smallest_hashes() -> None:
    samples = Samples(limit=2)
    for hashes in ([9, 4], [7, 1], [3]):
        wanted = samples.wanted(np.array(hashes, np.uint64))
        samples.add([(hashes[one], {"hash": hashes[one]}) for one in wanted])
    assert [one for one, _ in samples.entries] == [1, 3]


def test_rows_and_bytes_by_source() -> None:
    batch = pa.record_batch(
        {
            "text": pa.array(["ab", None, "\u00e9", "x"], pa.large_string()),
            "source": pa.array(["a", "b", None, "a"]),
        }
    )
    assert dict(rows_by_source(batch)) == {"a": 2, "b": 1, None: 1}
    assert dict(rows_by_source(batch, np.array([0, 2]))) == {"a": 1, None: 1}
    assert list(bytes_by_source(batch)) == [("a", 2, 3), ("b", 1, 0), (None, 1, 2)]
    assert list(bytes_by_source(batch.drop_columns(["source"]))) == [(None, 4, 5)]
    assert dict(rows_by_source(batch.drop_columns(["source"]), np.array([1]))) == {None: 1}
