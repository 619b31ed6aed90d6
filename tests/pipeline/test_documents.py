"""The batch on its way: buffers without copies, a memo that is right, ids that never change."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tamis.pipeline.documents import PADDING, Documents, content_id, utf8_view

TEXTS = ["one", "", "zwei \u00e4", "\u4e09 \U0001f600", "five\0"]


def batch(texts: list[str | None]) -> pa.RecordBatch:
    ids = pa.array([str(row) for row in range(len(texts))])
    return pa.record_batch({"id": ids, "text": pa.array(texts, pa.large_string())})


@given(
    st.lists(st.none() | st.text(max_size=20), max_size=20), st.integers(0, 10), st.integers(0, 20)
)
def test_the_view_gives_every_text_and_room_behind(
    texts: list[str | None], start: int, length: int
) -> None:
    column = pa.array(texts, pa.large_string()).slice(start, length)
    data, offsets = utf8_view(column)
    found = [bytes(data[a:b]) for a, b in itertools.pairwise(offsets)]
    assert found == [(text or "").encode() for text in column.to_pylist()]
    assert len(data) - offsets[-1] >= PADDING


def test_nothing_is_copied_when_the_buffer_has_room() -> None:
    column = pa.array(["word " * 100] * 3, pa.large_string()).slice(0, 2)
    data, _ = utf8_view(column)
    assert data.ctypes.data == column.buffers()[2].address


def test_the_memo_is_kept_while_documents_die_and_forgotten_when_one_comes_back() -> None:
    documents = Documents(batch(TEXTS))
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    assert documents.memo("key", compute) == 1
    documents.alive = np.array([True, False, True, True, True])
    assert documents.memo("key", compute) == 1
    documents.alive = np.ones(5, np.bool_)
    assert documents.memo("key", compute) == 2


def test_compact_and_replace_text() -> None:
    documents = Documents(batch(TEXTS), np.array([True, False, False, True, False]))
    assert documents.compact().text.to_pylist() == [TEXTS[0], TEXTS[3]]
    assert documents.compact().compact().batch.column("id").to_pylist() == ["0", "3"]
    edited = documents.replace_text(pa.array([text.upper() for text in TEXTS], pa.large_string()))
    assert edited.text.to_pylist() == [text.upper() for text in TEXTS]
    assert edited.alive is documents.alive


def test_a_content_id_depends_on_path_and_text_alone() -> None:
    """The value is XXH3-128 of the path, a zero byte and the text."""
    assert content_id("a", "b") == content_id("a", b"b") == "39797789ed4c7ea0d5a06cd078125351"
    assert content_id("a", "b") != content_id("ab", "")
    assert content_id("a", "b") != content_id("b", "a")
