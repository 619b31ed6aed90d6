"""One task from its input to its files: the way of a document through the code.

    read_slice / spools -> apply_stages, batch by batch -> spool or shards, ledger, measures, errors, summary -> record

Memory is bounded by the batch: everything is written as it comes. The files appear when the task is through, the record last.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.pipeline.apply import (
    LEDGER,
    BatchResult,
    apply_isolating,
    apply_stages,
    measures_schema,
    text_bytes,
)
from tamis.pipeline.documents import DROPPED, ROW, SOURCE, Documents
from tamis.pipeline.errors import TamisError
from tamis.pipeline.plan import Task, output_schema
from tamis.pipeline.readers import BadRecord, read_slice
from tamis.pipeline.stages import Fitted, Stage
from tamis.pipeline.statistics import Statistics, sample_entries, sampling_hash
from tamis.pipeline.storage import HashedFile
from tamis.pipeline.writers import ShardWriter

Report = Callable[[int, int], None]
"""Called after every batch with the documents and bytes of text read since the last call."""

LEDGER_GROUP = 65_536
# A stage that raises on document after document is broken, not the documents.
STAGE_FAILURES = 1000
STAGE_FAILURE_SHARE = 0.05


Apply = Callable[[pa.RecordBatch], BatchResult]


class Guard:
    """Stands between a task and its input; the one of ``isolation`` finds out on which document a process dies."""

    def read(
        self, source: Iterator[pa.RecordBatch | BadRecord]
    ) -> pa.RecordBatch | BadRecord | None:
        """The next item of the input, None at its end."""
        return next(source, None)

    def apply(self, batch: pa.RecordBatch, apply: Apply) -> BatchResult:
        return apply_isolating(batch, apply)


def run_task(
    task: Task, report: Report | None = None, guard: Guard | None = None
) -> dict[str, Any]:
    """Do the task and give its completion record, which is then on disk too."""
    wall, cpu = perf_counter(), thread_time()
    guard = guard or Guard()
    statistics = Statistics()
    with ExitStack() as stack:
        files = TaskFiles(task, stack)
        stages = load_stages(task)
        apply = partial(
            apply_stages,
            stages=stages,
            measures=task.recipe.measures,
            summarizes=task.phase.summarizes,
        )
        for batch in _batches(task, files, statistics, guard):
            result = guard.apply(batch, apply)
            _check_failures(result.statistics, statistics)
            statistics.merge(result.statistics)
            with timed(statistics, "write"):
                files.write(result)
            _count_output(task, result, statistics)
            if report:
                report(batch.num_rows, text_bytes(batch))
        if task.phase.summarizes is not None and not files.has_summary:
            files.write_summary(_empty_summary(task, stages))
        with timed(statistics, "write"):
            written = files.close()
    record = {
        "key": task.key,
        "task": task.name,
        "spool": files.spool_name if files.spool_name in written else None,
        "files": written,
        "shards": files.shards,
        "statistics": statistics.to_json(),
        "wall_seconds": perf_counter() - wall,
        "cpu_seconds": thread_time() - cpu,
        "peak_memory_bytes": peak_memory(),
    }
    task.folder.write_json(task.record, record)
    return record


def load_stages(task: Task) -> list[Stage]:
    """The stages of the phase, the fitted one with its state."""
    return [
        stage.load(task.folder.local(task.fitted[stage.name]))
        if isinstance(stage, Fitted)
        else stage
        for stage in task.phase.stages
    ]


def _batches(
    task: Task, files: TaskFiles, statistics: Statistics, guard: Guard
) -> Iterator[pa.RecordBatch]:
    """The input of a task; bad records are counted and written on the way."""
    source = _read_slice(task) if task.slice is not None else _read_spools(task)
    while True:
        with timed(statistics, "read"):
            item = guard.read(source)
        if item is None:
            return
        if isinstance(item, BadRecord):
            statistics.documents += 1
            statistics.failed += 1
            assert task.slice is not None
            error = {"file": task.slice.path, **item._asdict()}
            statistics.errors = [*statistics.errors, error][:20]
            files.write_error(error)
            name = task.recipe.input[task.slice.input].source
            statistics.source(name).documents += 1
            statistics.source(name).failed += 1
            continue
        if task.slice is not None:
            _count_input(item, statistics)
        yield item


def _read_slice(task: Task) -> Iterator[pa.RecordBatch | BadRecord]:
    """The documents of a slice with their row numbers; a file that cannot be read at all is one bad record."""
    assert task.slice is not None
    row = task.slice.index << 32
    try:
        for item in read_slice(task.slice, task.recipe.input[task.slice.input], task.schema):
            if isinstance(item, pa.RecordBatch):
                rows = np.arange(row, row + item.num_rows, dtype=np.uint64)
                row += item.num_rows
                item = item.append_column(ROW, pa.array(rows))
                if task.recipe.measures == "all":
                    item = item.append_column(DROPPED, pa.array(np.zeros(item.num_rows, np.bool_)))
            yield item
    except TamisError as error:
        yield BadRecord("the whole file", str(error), "")


def _read_spools(task: Task) -> Iterator[pa.RecordBatch]:
    for name, identity in task.spools:
        if not task.folder.is_intact(name, identity):
            raise TamisError(
                f"{task.folder.full(name)} was damaged after it was written; run again, it will be made anew"
            )
        with pa.memory_map(str(task.folder.local(name))) as source:
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)


def _count_input(batch: pa.RecordBatch, statistics: Statistics) -> None:
    statistics.documents += batch.num_rows
    statistics.bytes_in += text_bytes(batch)
    for name, part in by_source(batch):
        source = statistics.source(name)
        source.documents += part.num_rows
        source.bytes_in += text_bytes(part)


def _count_output(task: Task, result: BatchResult, statistics: Statistics) -> None:
    """What a run keeps is what its last phase lets through."""
    if not task.phase.last:
        return
    batch = _alive(result.batch)
    statistics.kept += batch.num_rows
    statistics.bytes_kept += text_bytes(batch)
    for name, part in by_source(batch):
        source = statistics.source(name)
        source.kept += part.num_rows
        source.bytes_kept += text_bytes(part)
    if batch.num_rows:
        hashes = sampling_hash(batch.column(ROW).to_numpy())
        best = statistics.kept_samples.wanted(hashes)
        statistics.kept_samples.add(sample_entries(Documents(batch), best, hashes[best]))


def by_source(batch: pa.RecordBatch) -> Iterator[tuple[str | None, pa.RecordBatch]]:
    """The rows of each source."""
    index = batch.schema.get_field_index(SOURCE)
    if index < 0 or not batch.num_rows:
        yield None, batch
        return
    names = batch.column(index).dictionary_encode()
    if len(names.dictionary) == 1 and not names.null_count:
        yield names.dictionary[0].as_py(), batch
        return
    codes = names.indices.fill_null(-1).to_numpy()
    for code in np.unique(codes).tolist():
        name = None if code < 0 else names.dictionary[code].as_py()
        yield name, batch.filter(pa.array(codes == code))


def _alive(batch: pa.RecordBatch) -> pa.RecordBatch:
    index = batch.schema.get_field_index(DROPPED)
    if index < 0:
        return batch
    dropped = batch.column(index).to_numpy(zero_copy_only=False)
    return batch.filter(pa.array(~dropped)) if dropped.any() else batch


def _empty_summary(task: Task, stages: list[Stage]) -> pa.RecordBatch:
    """A summary of no documents: its schema, so that fitting works on an empty corpus."""
    fields = [*task.schema, pa.field(ROW, pa.uint64())]
    if task.recipe.measures == "all":
        fields.append(pa.field(DROPPED, pa.bool_()))
    empty = pa.RecordBatch.from_pylist([], schema=pa.schema(fields))
    return apply_stages(empty, stages, summarizes=task.phase.summarizes).summaries[0]


def _check_failures(new: Statistics, total: Statistics) -> None:
    if not new.failed:
        return
    failed = new.failed + sum(stage.failed for stage in total.stages.values())
    if failed > max(STAGE_FAILURES, STAGE_FAILURE_SHARE * total.documents):
        raise TamisError(
            f"stages raised on {failed} of {total.documents} documents; the first: {new.errors[0]['reason']}"
        )


class TaskFiles:
    """The files of a task. They are opened when something is written, and appear when all of them are complete."""

    def __init__(self, task: Task, stack: ExitStack) -> None:
        self.task = task
        self.stack = stack
        self.opened: dict[str, HashedFile] = {}
        self.shards: list[dict[str, Any]] = []
        self.spool_name = f"state/{task.phase.name}/{task.number:06d}.arrow"
        self.summary_name = f"state/{task.phase.name}/{task.number:06d}.summary.arrow"
        self._writers: dict[str, Any] = {}
        self._shard_writer: ShardWriter | None = None
        self._schema: pa.Schema | None = None

    @property
    def has_summary(self) -> bool:
        return self.summary_name in self._writers

    def write(self, result: BatchResult) -> None:
        for table in result.ledger:
            self._table(f"ledger/{self.task.name}.parquet", LEDGER).add(table)
        for measures in result.measures:
            schema = measures_schema(self.task.phase.stages)
            self._table(f"measures/{self.task.name}.parquet", schema).add(
                with_columns(measures, schema)
            )
        for summary in result.summaries:
            self.write_summary(summary)
        if self.task.phase.last:
            self._shards().write(_alive(result.batch).select(self._output_schema().names))
        elif result.batch.num_rows:
            self._arrow(self.spool_name, result.batch.schema, "lz4").write_batch(result.batch)

    def write_summary(self, summary: pa.RecordBatch) -> None:
        self._arrow(self.summary_name, summary.schema, None).write_batch(summary)

    def write_error(self, error: dict[str, Any]) -> None:
        self._open(f"errors/{self.task.name}.jsonl").write(
            json.dumps(error, ensure_ascii=False).encode() + b"\n"
        )

    def close(self) -> dict[str, Any]:
        """Finish and publish all files; gives their lengths and hashes."""
        if self.task.phase.last and (self._shard_writer is not None or self.task.number == 0):
            for number, shard in enumerate(self._shards().close()):
                self.shards.append({"path": self._shard_name(number), **shard._asdict()})
            if not self.shards and self.task.recipe.output.format == "parquet":
                # Nothing was kept: readers of the folder still find its columns.
                pq.write_table(self._output_schema().empty_table(), self._open(self._shard_name(0)))
        for writer in self._writers.values():
            writer.close()
        self.stack.close()
        return {name: file.identity() for name, file in self.opened.items()}

    def _open(self, name: str) -> HashedFile:
        if name not in self.opened:
            self.opened[name] = self.stack.enter_context(self.task.folder.write(name))
        return self.opened[name]

    def _arrow(
        self, name: str, schema: pa.Schema, compression: str | None
    ) -> pa.ipc.RecordBatchFileWriter:
        if name not in self._writers:
            options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
            self._writers[name] = pa.ipc.new_file(self._open(name), schema, options=options)
        return self._writers[name]

    def _table(self, name: str, schema: pa.Schema) -> ParquetTable:
        if name not in self._writers:
            self._writers[name] = ParquetTable(self._open(name), schema)
        table: ParquetTable = self._writers[name]
        return table

    def _shards(self) -> ShardWriter:
        if self._shard_writer is None:
            self._shard_writer = ShardWriter(
                self._open_shard, self._output_schema(), self.task.recipe.output
            )
        return self._shard_writer

    def _output_schema(self) -> pa.Schema:
        if self._schema is None:
            self._schema = output_schema(self.task.schema, self.task.recipe.stages)
        return self._schema

    def _shard_name(self, number: int) -> str:
        suffix = f"-{number}" if number else ""
        return f"data/{self.task.number:06d}{suffix}{self.task.recipe.output.extension}"

    @contextmanager
    def _open_shard(self, number: int) -> Iterator[HashedFile]:
        yield self._open(self._shard_name(number))


def with_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly the columns of the schema, null where it has none."""
    columns = [
        batch.column(one.name)
        if one.name in batch.schema.names
        else pa.nulls(batch.num_rows, one.type)
        for one in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class ParquetTable:
    """Small columns, gathered into row groups of a readable size."""

    def __init__(self, file: HashedFile, schema: pa.Schema) -> None:
        self.schema = schema
        self.pending: list[pa.RecordBatch] = []
        self.rows = 0
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", compression_level=1)

    def add(self, batch: pa.RecordBatch) -> None:
        self.pending.append(batch)
        self.rows += batch.num_rows
        if self.rows >= LEDGER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            table = (
                pa.Table.from_batches(self.pending, self.schema)
                .unify_dictionaries()
                .combine_chunks()
            )
            self._writer.write_table(table)
        self.pending, self.rows = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()


@contextmanager
def timed(statistics: Statistics, what: str) -> Iterator[None]:
    """Add this thread's CPU seconds to a part of the work."""
    start = thread_time()
    try:
        yield
    finally:
        statistics.spend(what, thread_time() - start)


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
