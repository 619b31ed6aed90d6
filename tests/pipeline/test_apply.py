"""One batch through the stages: every decision on record, however the batch is cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamis
from tamis.pipeline.apply import (
    LEDGER,
    StageError,
    apply_isolating,
    apply_stages,
    child_rows,
    join_results,
)
from tamis.pipeline.errors import TamisError
from tamis.pipeline.task import numbered_as_they_come
from tests.pipeline.custom_stages import Characters, Longest, Reluctant

STAGES = [
    Characters(),
    Longest(max_characters=40),
    Reluctant(unbearable=("cannot",)),
    tamis.C4Quality(require_terminal_punctuation=False, min_sentences=None, min_words_per_line=2),
]


def batch_of(texts: list[str]) -> pa.RecordBatch:
    rows = np.arange(len(texts), dtype=np.uint64)
    return pa.record_batch(
        {
            "id": pa.array([f"d{row}" for row in rows]),
            "text": pa.array(texts, pa.large_string()),
            "source": pa.array(["a" if row % 2 else "b" for row in rows]),
            "__row__": rows,
        }
    )


def apply(batch: pa.RecordBatch) -> object:
    return apply_stages(batch, STAGES, "keep")


TEXTS = ["short but good words", "cannot be borne", "long " * 20, "one\ntwo words here\nthree"]


def test_every_decision_is_on_record() -> None:
    result = apply_isolating(batch_of(TEXTS), apply)
    assert result.batch.column("id").to_pylist() == ["d0", "d3"]
    assert result.batch.column("text").to_pylist() == [TEXTS[0], "two words here"]
    assert result.batch.column("characters.characters").to_pylist() == [20, 24]
    rows = {
        row["id"]: row
        for table in result.ledger
        for row in table.to_pylist()
    }  # fmt: skip
    assert rows["d2"] | {"__row__": 0} == {
        "id": "d2", "stage": "longest", "rule": "max_characters", "value": 100.0,
        "threshold": 40.0, "action": "dropped", "detail": None, "__row__": 0,
    }  # fmt: skip
    assert (rows["d1"]["action"], rows["d1"]["stage"]) == ("failed", "reluctant")
    assert rows["d1"]["detail"] == "ValueError: cannot bear 'cannot'"
    assert (rows["d3"]["action"], rows["d3"]["value"]) == ("changed", 10.0)
    statistics = result.statistics
    assert (statistics.dropped, statistics.failed) == (1, 1)
    assert {name: one.dropped for name, one in statistics.sources.items()} == {"a": 0, "b": 1}
    assert statistics.source("a").failed == 1
    assert [statistics.stage(one.name).entered for one in STAGES] == [4, 4, 3, 2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12), st.integers(1, 11))
def test_a_batch_may_be_cut_anywhere(texts: list[str], cut: int) -> None:
    batch = batch_of(texts)
    whole = apply_isolating(batch, apply)
    parts = [apply_isolating(part, apply) for part in (batch[:cut], batch[cut:]) if part.num_rows]
    joined = join_results(parts)

    def ledger(tables: list[pa.RecordBatch]) -> list[dict[str, object]]:
        table = pa.Table.from_batches(tables, LEDGER)
        return table.sort_by("__row__").to_pylist()

    assert joined.batch.to_pylist() == whole.batch.to_pylist()
    assert ledger(joined.ledger) == ledger(whole.ledger)
    assert joined.statistics.dropped == whole.statistics.dropped
    assert joined.statistics.failed == whole.statistics.failed


def test_alone_a_stage_says_what_it_raised() -> None:
    with pytest.raises(StageError, match="reluctant: ValueError: cannot bear") as caught:
        apply(batch_of(TEXTS))
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.passed == ("characters", "longest")


def test_what_all_stages_dropped_is_not_measured_further() -> None:
    result = apply_stages(batch_of(["long " * 20]), [*STAGES[:2], Reluctant(unbearable=("",))])
    assert result.batch.num_rows == 0
    assert result.statistics.failed == 0


def test_rows_of_children() -> None:
    slice_ = 5 << 32
    parents = np.array([slice_, slice_, slice_ + 2], np.uint64)
    upper = slice_ + (1 << 31)
    assert child_rows(parents).tolist() == [upper, upper + 1, upper + (2 << 12)]
    with pytest.raises(ValueError, match="more than 4096"):
        child_rows(np.zeros(4097, np.uint64))
    with pytest.raises(ValueError, match="not in the order"):
        child_rows(np.array([1, 0], np.uint64))
    with pytest.raises(TamisError, match="524,288 documents"):
        child_rows(np.array([1 << 19], np.uint64))


def test_names_are_numbered_as_they_come() -> None:
    first = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), ["b", "a"])
    table = numbered_as_they_come(pa.table({"stage": first, "value": [1, 2]}))
    column = table.column("stage").chunk(0)
    assert column.dictionary.to_pylist() == ["a", "b"]
    assert column.to_pylist() == ["a", "b"]
    assert table.schema.field("stage").type == first.type
