"""Writers: what was written is read back; shards have the wanted size and always the same bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tamis.pipeline.readers import (
    BadRecord,
    Input,
    declare_schema,
    list_files,
    plan_slices,
    read_slice,
)
from tamis.pipeline.readers.sizes import parse_size
from tamis.pipeline.writers import GROUP_BYTES, Output, Shard, ShardWriter


def documents(count: int, seed: int = 0) -> pa.Table:
    """Documents that hardly compress, of some hundred bytes each."""
    rng = np.random.default_rng(seed)
    text = [rng.bytes(int(size)).hex() for size in rng.integers(50, 400, count)]
    columns = {
        "id": [str(number) for number in range(count)],
        "text": pa.array(text, pa.large_string()),
        "url": [None if number % 3 else f'http://x/{number}?q="é\\' for number in range(count)],
        "score": rng.random(count),
        "n": pa.array([None if number % 5 == 0 else number for number in range(count)], pa.int64()),
        "tags": [["a", "b"][: number % 3] for number in range(count)],
        "meta": [{"k": number, "s": None} for number in range(count)],
    }
    return pa.table(
        columns,
        pa.schema(
            [
                *(pa.field(n, pa.array(c).type) for n, c in columns.items() if n != "meta"),
                ("meta", pa.struct([("k", pa.int64()), ("s", pa.string())])),
            ]
        ),
    )


def write(table: pa.Table, output: Output, rows: int = 1000) -> tuple[list[Shard], list[bytes]]:
    """The shards and their bytes."""
    files: list[bytes] = []

    @contextmanager
    def open_shard(number: int) -> Iterator[BinaryIO]:
        assert number == len(files)
        file = io.BytesIO()
        yield file
        files.append(file.getvalue())

    writer = ShardWriter(open_shard, table.schema, output)
    for batch in table.to_batches(rows):
        writer.write(batch)
    return writer.close(), files


@pytest.mark.parametrize("rows", [1, 333, 5000])
def test_parquet_is_read_back(rows: int) -> None:
    table = documents(5000)
    shards, files = write(table, Output(path="x"), rows)
    assert shards == [Shard(5000, len(files[0]))]
    assert pq.read_table(io.BytesIO(files[0])).equals(table)


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_shards_have_the_wanted_size_and_can_be_split(tmp_path: Path, format_: str) -> None:
    table = documents(200_000)
    output = Output(path="x", format=format_, shard_size="12MB")  # type: ignore[arg-type]
    shards, files = write(table, output, 5000)
    assert sum(shard.documents for shard in shards) == table.num_rows
    assert [shard.bytes for shard in shards] == [len(file) for file in files]
    assert len(files) > 2
    assert all(12_000_000 <= len(file) < 12_000_000 + GROUP_BYTES for file in files[:-1])
    for number, file in enumerate(files):
        (tmp_path / f"{number}{output.extension}").write_bytes(file)
    entry = Input(path=str(tmp_path))
    plan = plan_slices(entry, 1_000_000)
    assert len(plan.slices) > len(files) and not plan.notes
    schema = declare_schema(entry, list_files(entry))
    found: list[str] = []
    for part in plan.slices:
        for item in read_slice(part, entry, schema):
            assert not isinstance(item, BadRecord)
            found += item.column("id").to_pylist()
    assert found == table.column("id").to_pylist()


def test_jsonl_is_read_back(tmp_path: Path) -> None:
    table = documents(500)
    _, files = write(table, Output(path="x", format="jsonl"), 77)
    (tmp_path / "a.jsonl.zst").write_bytes(files[0])
    entry = Input(path=str(tmp_path))
    schema = declare_schema(entry, list_files(entry))
    (part,) = plan_slices(entry).slices
    batches = [item for item in read_slice(part, entry, schema) if not isinstance(item, BadRecord)]
    assert (
        pa.Table.from_batches(batches).select(table.schema.names).to_pylist() == table.to_pylist()
    )


def test_jsonl_is_json(tmp_path: Path) -> None:
    nasty = ["", '"\\/\b\f\n\r\t\0\x1f\x7f', "é\u2028😀", "</script>"]
    table = pa.table(
        {
            "id": ["a"] * 4,
            "text": pa.array(nasty, pa.large_string()),
            "x": [1.5, float("nan"), None, -0.0],
        }
    )
    _, files = write(table, Output(path="x", format="jsonl"))
    (tmp_path / "a.zst").write_bytes(files[0])
    with pa.input_stream(str(tmp_path / "a.zst"), compression="zstd") as stream:
        lines = stream.read().split(b"\n")
    found = [json.loads(line) for line in lines if line]
    assert [row["text"] for row in found] == nasty
    assert [row["x"] for row in found] == [1.5, None, None, 0.0]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_the_same_batches_give_the_same_bytes(format_: str) -> None:
    output = Output(path="x", format=format_, shard_size="1MB")  # type: ignore[arg-type]
    assert write(documents(3000), output) == write(documents(3000), output)


def test_nothing_written_opens_no_shard() -> None:
    assert write(documents(0), Output(path="x")) == ([], [])


def test_abort_leaves_the_shard_with_the_error() -> None:
    seen: list[BaseException] = []

    @contextmanager
    def open_shard(number: int) -> Iterator[BinaryIO]:
        try:
            yield io.BytesIO()
        except BaseException as error:
            seen.append(error)
            raise

    table = documents(60_000)
    writer = ShardWriter(open_shard, table.schema, Output(path="x"))
    for batch in table.to_batches(10_000):
        writer.write(batch)
    error = OSError("disk full")
    writer.abort(error)
    assert seen == [error]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("256MB", 256_000_000),
        ("1GiB", 2**30),
        ("1.5 kB", 1500),
        (7, 7),
        ("7", 7),
        ("2gb", 2 * 10**9),
    ],
)
def test_sizes(size: object, expected: int) -> None:
    assert parse_size(size) == expected


@pytest.mark.parametrize("size", ["", "MB", "12 apples", "-5MB", 0, None, True])
def test_sizes_that_are_none(size: object) -> None:
    with pytest.raises(ValidationError, match=r"size|greater than 0"):
        Output(path="x", shard_size=size)  # type: ignore[arg-type]
