"""Scores of files and streams: what ``tamis score`` does.

Into a folder it is a run of scoring stages, resumable and in parallel as every run is; to the
terminal, or from standard input, documents go through batch by batch, and nothing is held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import yaml

from tamis.pipeline.apply import apply_isolating, apply_stages
from tamis.pipeline.documents import ID, ROW, TEXT, content_id
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.pipeline import Pipeline, Run, write
from tamis.pipeline.progress import Progress
from tamis.pipeline.readers import (
    BadRecord,
    Input,
    PassedOver,
    declare_schema,
    list_files,
    plan_slices,
    read_slice,
)
from tamis.pipeline.recipe import Recipe, Source, check_columns, check_stages
from tamis.pipeline.stages import Fitted, Measure, Stage
from tamis.pipeline.writers import Output
from tamis.registry import is_stage
from tamis.scorers.score import Scorer, read_scorer

STDIN = "-"
SCORE = "score"

_BATCH_ROWS = 1024
_BATCH_BYTES = 4 << 20
_TOLD = 10
_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})

Say = Callable[[str], None]
"""Tells the user something that does not belong into the result."""


@dataclass(frozen=True)
class Reading:
    """How documents are read."""

    text: str = TEXT
    """The column or key of the text, and that of the id."""
    id: str = ID
    max_bytes: int = 32_000_000
    """A longer line is no document."""

    def input(self, paths: Sequence[str]) -> Input:
        """The same for files."""
        return Input(
            path=list(paths), text=self.text, id=self.id, max_document_bytes=self.max_bytes
        )


def read_scorers(given: Sequence[str], names: Sequence[str] = ()) -> list[Measure]:
    """The stages of scorers as the command line has them: a model, a stage, or ``{stage:
    {setting: value}}`` in YAML.

    ``names`` are those of the first scorers; others are called after their stage or file.

    Raises:
        RecipeError: if there is no such scorer, or two have one name.
    """
    if len(names) > len(given):
        raise RecipeError(f"there are {len(names)} names (--as) for {len(given)} scorers (--with)")
    stages: list[Measure] = []
    for place, one in enumerate(given):
        scorer = _parsed(one)
        name = names[place] if place < len(names) else _name(scorer)
        if any(name == stage.name for stage in stages):
            raise RecipeError(f"two scorers are called {name}; give them names with --as")
        stages.append(read_scorer(scorer, name))
    return stages


def _parsed(given: str) -> Scorer:
    if not given.lstrip().startswith("{"):
        return given
    try:
        settings = yaml.safe_load(given)
    except yaml.YAMLError:
        settings = None
    if not isinstance(settings, dict):
        raise RecipeError(f"--with {given}: write it as {{STAGE: {{SETTING: VALUE}}}}")
    return settings


def _name(scorer: Scorer) -> str:
    if isinstance(scorer, dict):
        kind, settings = next(iter(scorer.items()), (SCORE, None))
        return str(settings.get("name", kind) if isinstance(settings, dict) else kind)
    given = str(scorer)
    return given if is_stage(given) and not Path(given).suffix else Path(given).stem


def score_columns(stages: Iterable[Measure], numbers_only: bool = False) -> list[str]:
    """The columns that say how good a document is: ``score`` of every scorer that has one, else all
    of its columns (with ``numbers_only`` without labels).
    """
    columns = []
    for stage in stages:
        quantities = [one for one in stage.provides() if one.unit != "label" or not numbers_only]
        names = [one.name for one in quantities]
        chosen = [SCORE] if SCORE in names else names
        columns += [f"{stage.name}.{one}" for one in chosen]
    return columns


def score_files(
    paths: Sequence[str],
    stages: Sequence[Measure],
    output: str,
    workers: int = 0,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> Run:
    """Score files into a run folder: ``data/`` has Parquet shards with all columns of the input and
    those of the scorers. Started again, it goes on where it was stopped.

    Raises:
        RecipeError: for a path that is not there, or a column that a scorer needs.
        TamisError: if the run cannot go on.
    """
    entry = (reading or Reading()).input(paths)
    pipeline = Pipeline(entry, stages, write(output), measures="none")
    return pipeline.run(workers, progress=progress)


@dataclass
class Printer:
    """Writes scores as lines: the id and the scores with tabs between them, or with ``jsonl`` the
    whole record with the scores.
    """

    sink: BinaryIO
    stages: Sequence[Measure]
    say: Say
    jsonl: bool = False
    documents: int = 0
    failures: int = 0
    _columns: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        stages: Sequence[Stage] = self.stages
        fitted = [stage.kind for stage in stages if isinstance(stage, Fitted)]
        if fitted:
            raise RecipeError(
                f"{fitted[0]} looks at all documents before it scores any: write into a folder "
                "(-o DIR)"
            )
        if problems := check_stages(self._recipe(), Source("--with")):
            raise RecipeError("\n".join(problems))
        self._columns = score_columns(self.stages)

    def check(self, columns: Sequence[str]) -> None:
        """RecipeError if a scorer needs a column that is not there."""
        if problems := check_columns(self._recipe(), columns, Source("--with")):
            raise RecipeError("\n".join(problems))

    def _recipe(self) -> Recipe:
        return Recipe(input=(), stages=tuple(self.stages), output=Output(path=STDIN))

    def write(self, batch: pa.RecordBatch, records: Sequence[dict[str, Any]] | None = None) -> None:
        """Score a batch and write its lines; ``records`` are its rows as they were read."""
        apply = partial(apply_stages, stages=self.stages)
        result = apply_isolating(batch, apply)
        for ledger in result.ledger:
            for row in ledger.to_pylist():
                self.failed(f"id {row['id']}", f"{row['stage']}: {row['detail']}")
        scored = result.batch
        self.documents += scored.num_rows
        if not scored.num_rows:
            return
        lines = self._records(scored, batch, records) if self.jsonl else self._table(scored)
        self.sink.write(b"\n".join(lines) + b"\n")

    def failed(self, place: str, reason: str) -> None:
        """A document that cannot be scored."""
        self.failures += 1
        if self.failures <= _TOLD:
            self.say(f"{place}: {reason}")

    def finish(self) -> None:
        """Write what is left, and say how many documents failed.

        Raises:
            TamisError: if none of the documents could be used.
        """
        self.sink.flush()
        if self.failures and not self.documents:
            raise TamisError(f"none of the documents could be scored ({self.failures:,} failed)")
        if self.failures:
            self.say(f"scored: {self.documents:,}, could not be scored: {self.failures:,}")
        elif not self.documents:
            self.say("there were no documents")

    def _table(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        ids = batch.column(ID).to_pylist()
        values = [batch.column(name).to_pylist() for name in self._columns]
        for name, *scores in zip(ids, *values, strict=True):
            yield "\t".join([str(name).translate(_ESCAPES), *map(_shown, scores)]).encode()

    def _records(
        self,
        scored: pa.RecordBatch,
        batch: pa.RecordBatch,
        records: Sequence[dict[str, Any]] | None,
    ) -> Iterator[bytes]:
        if records is None:
            rows = scored.drop_columns([ROW]).to_pylist()
        else:
            place = {row: one for one, row in enumerate(batch.column(ROW).to_pylist())}
            added = scored.select(scored.schema.names[batch.num_columns :]).to_pylist()
            kept = scored.column(ROW).to_pylist()
            rows = [{**records[place[row]], **new} for row, new in zip(kept, added, strict=True)]
        for row in rows:
            yield orjson.dumps(row, default=str)


def _shown(value: float | str | None) -> str:
    """A score, or a label that a scorer gives instead."""
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    return "nan" if value is None or math.isnan(value) else repr(value)


def print_files(paths: Sequence[str], printer: Printer, reading: Reading | None = None) -> None:
    """Score the documents of files in their order.

    Raises:
        RecipeError: for a path that is not there, or a column that a scorer needs.
        TamisError: if none of the documents can be used.
    """
    entry = (reading or Reading()).input(paths)
    files = list_files(entry)
    schema = declare_schema(entry, files)
    printer.check(schema.names)
    for part in plan_slices(entry, files=files).slices:
        row = part.index << 32
        for item in read_slice(part, entry, schema):
            if isinstance(item, BadRecord):
                printer.failed(f"{part.name} {item.position}", item.reason)
            elif not isinstance(item, PassedOver):
                rows = np.arange(row, row + item.num_rows, dtype=np.uint64)
                row += item.num_rows
                printer.write(item.append_column(ROW, pa.array(rows)))
    printer.finish()


def print_stream(stream: BinaryIO, printer: Printer, reading: Reading | None = None) -> None:
    """Score the JSONL documents of a stream as they come.

    Raises:
        TamisError: if none of the documents can be used.
    """
    reading = reading or Reading()
    needed = sorted({name for stage in printer.stages for name in stage.requires()})
    records: list[dict[str, Any]] = []
    size = row = 0
    for number, line in enumerate(_lines(stream, reading.max_bytes), 1):
        record = _record(line, reading, needed)
        if isinstance(record, str):
            printer.failed(f"line {number}", record)
            continue
        if record is None:
            continue
        records.append(record)
        size += len(line or b"")
        if len(records) == _BATCH_ROWS or size >= _BATCH_BYTES:
            printer.write(_batch(records, reading, needed, row), records)
            row, size, records = row + len(records), 0, []
    if records:
        printer.write(_batch(records, reading, needed, row), records)
    printer.finish()


def _lines(stream: BinaryIO, longest: int) -> Iterator[bytes | None]:
    """The lines of a stream; None for one that is longer, which is never held."""
    while line := stream.readline(longest + 1):
        if len(line) <= longest:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(longest)
        yield None


def _record(
    line: bytes | None, reading: Reading, needed: Sequence[str]
) -> dict[str, Any] | str | None:
    """The record of a line, what is wrong with it, or None for a blank line."""
    if line is None:
        return f"longer than {reading.max_bytes:,} bytes"
    if not line.strip():
        return None
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    if not isinstance(record, dict):
        return "not a JSON object"
    if reading.text not in record:
        there = ", ".join(sorted(record)[:_TOLD])
        return f"there is no key {reading.text!r} (--text KEY); there is {there or 'none'}"
    if not isinstance(record[reading.text], str):
        return f"{reading.text!r} is no string"
    absent = [name for name in needed if name not in record]
    return f"there is no key {absent[0]!r}, which a scorer needs" if absent else record


def _batch(
    records: Sequence[dict[str, Any]], reading: Reading, needed: Sequence[str], row: int
) -> pa.RecordBatch:
    texts = [record[reading.text] for record in records]
    ids = [
        content_id(STDIN, text) if record.get(reading.id) is None else str(record[reading.id])
        for record, text in zip(records, texts, strict=True)
    ]
    columns = {
        ID: pa.array(ids, pa.string()),
        TEXT: pa.array(texts, pa.large_string()),
        ROW: pa.array(np.arange(row, row + len(records), dtype=np.uint64)),
    }
    for name in needed:
        try:
            columns[name] = pa.array([record[name] for record in records])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise TamisError(f"the values of {name} are not of one type: {error}") from None
    return pa.RecordBatch.from_pydict(columns)
