"""Documents that were held out, from any files that a recipe reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from tamis.pipeline.documents import SOURCE
from tamis.pipeline.errors import TamisError
from tamis.pipeline.readers import (
    BadRecord,
    Input,
    declare_schema,
    list_files,
    plan_slices,
    read_slice,
)
from tamis.pipeline.storage import shards_of
from tamis.trainers.evaluation.items import Document

_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)


def read_held_out(paths: Sequence[str]) -> dict[str, list[Document]]:
    """The documents of all paths by source: of ``NAME=PATH`` that is NAME, of others what the
    column ``source`` says, or the name of the file or folder.

    Raises:
        RecipeError: for a path that is not there.
        TamisError: if a document cannot be read.
    """
    sources: dict[str, list[Document]] = {}
    for path in paths:
        named = _NAMED.fullmatch(path)
        for source, document in _documents(named[2] if named else path, named and named[1]):
            sources.setdefault(source, []).append(document)
    return {source: _distinct(documents) for source, documents in sources.items()}


def _documents(path: str, name: str | None) -> Iterator[tuple[str, Document]]:
    entry = Input(path=shards_of(path), source=name)
    files = list_files(entry)
    schema = declare_schema(entry, files)
    default = name or PurePosixPath(path.rstrip("/")).name.split(".")[0] or path
    for part in plan_slices(entry, files=files).slices:
        for batch in read_slice(part, entry, schema):
            if isinstance(batch, BadRecord):
                raise TamisError(f"{path}, {batch.position}: {batch.reason}")
            if isinstance(batch, pa.RecordBatch):
                ids, texts = batch["id"].to_pylist(), batch["text"].to_pylist()
                count = len(ids)
                sources = batch[SOURCE].to_pylist() if SOURCE in schema.names else [None] * count
                for id_, text, source in zip(ids, texts, sources, strict=True):
                    yield source or default, Document(id_, text or "")


def _distinct(documents: Sequence[Document]) -> list[Document]:
    """An id that stands twice is told from the first by a number."""
    seen: Counter[str] = Counter()
    distinct = []
    for one in documents:
        seen[one.id] += 1
        id_ = one.id if seen[one.id] == 1 else f"{one.id}#{seen[one.id]}"
        distinct.append(Document(id_, one.text))
    return distinct
