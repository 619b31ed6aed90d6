"""Slices: every line of a file is read exactly once, in order, wherever the cuts are."""

from __future__ import annotations

import bz2
import gzip
import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.pipeline.readers import (
    BadRecord,
    Input,
    Slice,
    declare_schema,
    list_files,
    plan_slices,
    read_slice,
)
from tamis.pipeline.readers.compression import zstd_frames


def texts(entry: Input, slice_bytes: int, batch_bytes: int = 4096) -> list[str]:
    """The texts of all slices, with a bad record as its reason."""
    schema = declare_schema(entry, list_files(entry))
    found: list[str] = []
    for part in plan_slices(entry, slice_bytes).slices:
        assert Slice.from_json(part.to_json()) == part
        for item in read_slice(part, entry, schema, batch_bytes=batch_bytes):
            found += (
                [item.reason] if isinstance(item, BadRecord) else item.column("text").to_pylist()
            )
    return found


def lines_of(documents: list[str], ending: str = "\n") -> bytes:
    return "".join(
        json.dumps({"text": text}, ensure_ascii=False) + ending for text in documents
    ).encode()


DOCUMENTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=30
)


@settings(max_examples=150, deadline=None)
@given(
    documents=DOCUMENTS,
    slice_bytes=st.integers(1, 400),
    batch_bytes=st.sampled_from([1, 7, 64, 4096]),
    ending=st.sampled_from(["\n", "\r\n", "\n\n"]),
    last_newline=st.booleans(),
)
def test_plain_jsonl_cut_anywhere(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[str],
    slice_bytes: int,
    batch_bytes: int,
    ending: str,
    last_newline: bool,
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    content = lines_of(documents, ending)
    path.write_bytes(content if last_newline else content.rstrip(b"\r\n"))
    assert texts(Input(path=str(path)), slice_bytes, batch_bytes) == documents


@settings(max_examples=100, deadline=None)
@given(
    documents=DOCUMENTS,
    slice_bytes=st.integers(1, 400),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
    data=st.data(),
)
def test_zstd_frames_cut_inside_lines(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[str],
    slice_bytes: int,
    cuts: list[int],
    data: st.DataObject,
) -> None:
    content = lines_of(documents)
    edges = sorted({0, len(content), *(cut % len(content) for cut in cuts)})
    skippable = struct.pack("<II", 0x184D2A53, 5) + b"hello"
    stored = b""
    for start, stop in pairwise(edges):
        with_size = data.draw(st.booleans())
        compressor = zstandard.ZstdCompressor(
            write_checksum=data.draw(st.booleans()), write_content_size=with_size
        )
        stored += compressor.compress(content[start:stop])
        stored += skippable * data.draw(st.integers(0, 1))
    path = tmp_path_factory.mktemp("frames") / "a.jsonl.zst"
    path.write_bytes(stored)
    assert texts(Input(path=str(path)), slice_bytes) == documents


def test_frames_are_found_without_decompressing(tmp_path: Path) -> None:
    pieces = [bytes(300_000), np.random.default_rng(1).bytes(200_000), b"", b"x"]
    frames = [zstandard.ZstdCompressor().compress(piece) for piece in pieces]
    path = tmp_path / "a.zst"
    path.write_bytes(b"".join(frames))
    ends = np.cumsum([len(frame) for frame in frames])
    with path.open("rb") as file:
        found = zstd_frames(file, path.stat().st_size)
    assert [frame.stop for frame in found] == list(ends)
    assert [frame.start for frame in found] == [0, *ends[:-1]]


def test_seek_table(tmp_path: Path) -> None:
    frames = [
        zstandard.ZstdCompressor().compress(lines_of([text] * 50))
        for text in ("one", "two", "three")
    ]
    entries = b"".join(struct.pack("<II", len(frame), 0) for frame in frames)
    table = entries + struct.pack("<IBI", len(frames), 0, 0x8F92EAB1)
    stored = b"".join(frames) + struct.pack("<II", 0x184D2A5E, len(table)) + table
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(stored)
    with path.open("rb") as file:
        by_table = zstd_frames(file, len(stored), walk=False)
        assert len(by_table) == 3
    with path.open("rb") as file:
        file_without_table = stored[: -len(table) - 8]
        assert by_table[-1].stop == len(file_without_table)
    entry = Input(path=str(path))
    assert len(plan_slices(entry, 1).slices) == 3
    assert texts(entry, 1) == ["one"] * 50 + ["two"] * 50 + ["three"] * 50


@pytest.mark.parametrize("suffix", ["gz", "bz2", "zst"])
def test_single_streams_are_one_task_and_say_so(tmp_path: Path, suffix: str) -> None:
    documents = [str(number) for number in range(2000)]
    compress = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }[suffix]
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(compress(lines_of(documents)))
    plan = plan_slices(Input(path=str(path)), 100)
    assert len(plan.slices) == 1
    assert len(plan.notes) == 1 and "one task" in plan.notes[0] and path.name in plan.notes[0]
    assert texts(Input(path=str(path)), 100) == documents


def test_gzip_members_are_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines_of(["a", "b"])) + gzip.compress(lines_of(["c"])))
    assert texts(Input(path=str(path)), 10**6) == ["a", "b", "c"]


@pytest.mark.parametrize("slice_bytes", [1, 2000, 10**9])
def test_parquet_row_groups(tmp_path: Path, slice_bytes: int) -> None:
    documents = [f"document {number}" for number in range(1000)]
    pq.write_table(pa.table({"text": documents}), tmp_path / "a.parquet", row_group_size=100)
    entry = Input(path=str(tmp_path / "a.parquet"))
    plan = plan_slices(entry, slice_bytes)
    assert len(plan.slices) == {1: 10, 10**9: 1}.get(slice_bytes, len(plan.slices))
    assert texts(entry, slice_bytes, batch_bytes=300) == documents


@pytest.mark.parametrize("slice_bytes", [1, 10**9])
def test_arrow_file_and_stream(tmp_path: Path, slice_bytes: int) -> None:
    table = pa.table({"text": [str(number) for number in range(1000)]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    with pa.ipc.new_stream(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    entry = Input(path=str(tmp_path))
    plan = plan_slices(entry, slice_bytes)
    assert len(plan.slices) == (11 if slice_bytes == 1 else 2)
    assert texts(entry, slice_bytes) == table.column("text").to_pylist() * 2


def test_the_plan_is_deterministic_and_numbers_its_slices(tmp_path: Path) -> None:
    for name in "cab":
        (tmp_path / f"{name}.jsonl").write_bytes(lines_of([name] * 100))
    entry = Input(path=str(tmp_path))
    plan = plan_slices(entry, 500)
    assert plan == plan_slices(entry, 500)
    assert [part.index for part in plan.slices] == list(range(len(plan.slices)))
    assert [part.name[-7] for part in plan.slices] == sorted(part.name[-7] for part in plan.slices)
