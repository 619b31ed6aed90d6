"""The measuring itself: what is counted, and how sides are compared."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.harness import Comparison, Sample, Side, clock, compare, measure, ratio, table
from benchmarks.texts import lines_of, make_part, read_records, repeat_part
from tamis.pipeline.readers import Input, declare_schema, list_files, plan_slices, read_slice


def spin(seconds: float) -> dict[str, Any]:
    """A subject that spends CPU seconds, after a preparation that must not count."""
    _burn(0.3)
    with clock() as spent:
        _burn(seconds)
    return spent.result(10, 1000, note="done")


def fails() -> dict[str, Any]:
    raise ValueError("no such luck")


def _burn(seconds: float) -> None:
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        pass


def _sample(cpu: float, documents: int) -> Sample:
    return Sample(cpu, cpu, documents, documents, 1)


def test_only_the_work_inside_the_clock_counts() -> None:
    sample = measure(Side(spin, {"seconds": 0.1}))
    assert 0.1 <= sample.cpu < 0.3
    assert (sample.documents, sample.bytes, sample.facts) == (10, 1000, {"note": "done"})
    assert sample.peak > 1_000_000


def test_a_subject_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no such luck"):
        measure(Side(fails, {}))


def test_sides_alternate_and_each_has_its_samples() -> None:
    side = Side(spin, {"seconds": 0.01})
    both = compare(side, side, repetitions=2)
    assert (len(both.ours), len(both.peer)) == (2, 2)


def test_ratios_are_per_document_and_within_pairs() -> None:
    ours = [_sample(1.0, 100), _sample(2.0, 100), _sample(1.0, 100)]
    peer = [_sample(1.0, 10), _sample(1.0, 10), _sample(3.0, 10)]
    both = Comparison(ours, peer)
    assert both.ratios() == pytest.approx([5.0, 10.0, 30.0])
    assert ratio(both) == "**10x** (5-30)"


def test_tables_are_markdown() -> None:
    assert table(["", "b"], [["1", "2"]]) == "|  | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_a_part_is_spread_evenly_and_the_same_in_every_format(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    records = [{"id": str(number), "text": f"text {number}"} for number in range(100)]
    corpus.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in records))
    part = make_part(lines_of(corpus, 10), tmp_path / "part")
    expected = [records[number]["id"] for number in range(0, 100, 11)]
    for format in ("jsonl", "jsonl.gz", "jsonl.zst", "parquet"):
        entry = Input(path=part.path(format))
        schema = declare_schema(entry, list_files(entry))
        ids = [
            id
            for piece in plan_slices(entry).slices
            for batch in read_slice(piece, entry, schema)
            for id in batch.column("id").to_pylist()  # type: ignore[union-attr]
        ]
        assert ids == expected


def test_a_repeated_part_has_ids_of_its_own(tmp_path: Path) -> None:
    lines = [orjson.dumps({"id": str(number), "text": "t"}) + b"\n" for number in range(3)]
    part = repeat_part(make_part(lines, tmp_path / "part"), 2, tmp_path / "twice")
    assert part.documents == 6
    assert len({one["id"] for one in read_records(part.path("jsonl"))}) == 6
