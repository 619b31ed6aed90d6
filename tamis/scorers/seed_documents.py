"""The documents on which the losses of several models are compared, and those losses, on disk: a
training that is killed goes on behind the last block of documents.

    FOLDER/KEY/documents.arrow        id, text, group and order of each document, in blocks
               documents.json         how many were read, and could not be read
               losses/MODEL/00000.f64 the nats of the documents of a block
                            model.json which model, and what it cuts text into
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import pyarrow as pa
import xxhash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tamis.pipeline.documents import ID, TEXT
from tamis.pipeline.errors import TamisError, nearest
from tamis.pipeline.readers import Input, list_files
from tamis.pipeline.readers.json_lines import json_lines
from tamis.pipeline.storage import digest, explained, shards_of
from tamis.scorers.language_models import ModelSetting, load_language_model
from tamis.scorers.reading import Corpus

BLOCK = 256
"""Documents whose losses are kept together."""
TOKEN_BYTES = 4
"""UTF-8 bytes that count as a token where the number of tokens must not depend on a tokenizer."""

_GROUP, _ORDER = "group", "order"
_SCHEMA = pa.schema(
    [(ID, pa.string()), (TEXT, pa.large_string()), (_GROUP, pa.string()), (_ORDER, pa.uint64())]
)
LOSS_KEYS = ("nats", "total_loss", "bits_per_byte", "bits_per_character")
"""What a line of a file of losses may give beside the id; all stand for the whole document."""

Float64 = NDArray[np.float64]


class PerGroup(BaseModel):
    """A sample of so many documents of each of the largest groups."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = "url"
    """What documents are grouped by; of ``url`` it is the host."""
    groups: int = Field(default=3000, ge=1)
    """The groups with the most documents."""
    documents: int = Field(default=300, ge=1)
    """Of each group, chosen by a hash."""


class SeedDocuments:
    """Documents on disk, read block by block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drawn_from: dict[str, int] = json.loads((folder / "documents.json").read_text())
        ids, groups, orders, sizes = [], [], [], []
        for block in self.blocks():
            ids += block[ID].to_pylist()
            groups += block[_GROUP].to_pylist()
            orders.append(block[_ORDER].to_numpy())
            sizes += [len(text.encode()) for text in block[TEXT].to_pylist()]
        self.ids: list[str] = ids
        self.groups: list[str] = groups
        self.order: NDArray[np.uint64] = np.concatenate(orders)
        """A hash of each document and the seed: a random order that is always the same."""
        self.sizes: NDArray[np.int64] = np.array(sizes, np.int64)
        """UTF-8 bytes of each text."""

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """The documents, at most ``BLOCK`` at a time."""
        with pa.memory_map(str(self.folder / "documents.arrow")) as source:
            stored = pa.ipc.open_file(source)
            for number in range(stored.num_record_batches):
                yield stored.get_batch(number)

    def texts(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Iterator[tuple[int, str]]:
        """(row, text) of some documents, in the order of the rows on disk."""
        wanted, first = np.unique(np.asarray(rows, np.int64)), 0
        for block in self.blocks():
            low, high = np.searchsorted(wanted, [first, first + block.num_rows])
            for row in wanted[low:high].tolist():
                yield row, block[TEXT][row - first].as_py()
            first += block.num_rows


def draw_documents(
    paths: Sequence[str], folder: Path, min_tokens: int, per_group: PerGroup | None, seed: int
) -> SeedDocuments:
    """The documents of at least ``min_tokens`` times ``TOKEN_BYTES`` bytes, copies once; all, or a
    sample of each group. What an earlier call with the same files and settings drew is taken.

    Raises:
        TamisError: if a path leads nowhere, no document is long enough, or the folder cannot be
            written.
    """
    files = list_files(Input(path=[shards_of(one) for one in paths]))
    state = [(one.path, one.fingerprint) for one in files]
    group = per_group.model_dump() if per_group else None
    home = folder / digest(state, min_tokens, group, seed)
    target = home / "documents.arrow"
    if not target.exists():
        columns = {per_group.column: "string"} if per_group else {}
        corpus = Corpus(paths, "data", columns)
        chosen, read = _choose(corpus, min_tokens * TOKEN_BYTES, per_group, seed)
        if not len(chosen):
            raise TamisError(
                f"data: no document has the {min_tokens} tokens (of {TOKEN_BYTES} bytes) that "
                "min_tokens asks for"
            )
        with explained(str(target)):
            home.mkdir(parents=True, exist_ok=True)
            scratch = target.with_suffix(".writing")
            _write(corpus, chosen, per_group, seed, scratch)
            counts = {"read": read, "unreadable": corpus.unreadable}
            (home / "documents.json").write_text(json.dumps(counts))
            scratch.replace(target)
    return SeedDocuments(home)


def _choose(
    corpus: Corpus, shortest: int, per_group: PerGroup | None, seed: int
) -> tuple[NDArray[np.int64], int]:
    """(places of the chosen documents in the corpus, how many documents were read)."""
    places, groups, hashes = array("q"), array("q"), array("Q")
    names: dict[str, int] = {}
    first = 0
    for documents in corpus:
        named = _groups(documents.batch, per_group)
        for row, text in enumerate(documents.text.to_pylist()):
            body = (text or "").encode()
            if len(body) >= shortest and body.strip():
                places.append(first + row)
                hashes.append(xxhash.xxh3_64_intdigest(body, seed))
                groups.append(names.setdefault(named[row], len(names)))
        first += len(documents)
    if per_group is not None and [*names] == [""]:
        raise TamisError(f"per_group: no document of the data has a {per_group.column}")
    place, group, order = np.array(places), np.array(groups), np.array(hashes, np.uint64)
    # Of copies the first.
    _, once = np.unique(order, return_index=True)
    place, group, order = place[once], group[once], order[once]
    if per_group is not None:
        sizes = Counter(group.tolist())
        spelled = {number: name for name, number in names.items()}
        largest = sorted(sizes, key=lambda one: (-sizes[one], spelled[one]))[: per_group.groups]
        by_group = np.lexsort((order, group))
        ordered = group[by_group]
        rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
        kept = (rank < per_group.documents) & np.isin(ordered, largest)
        place = place[by_group[kept]]
    return np.sort(place), first


def _groups(batch: pa.RecordBatch, per_group: PerGroup | None) -> list[str]:
    if per_group is None:
        return [""] * batch.num_rows
    values = [one or "" for one in batch.column(per_group.column).to_pylist()]
    return [_host(one) for one in values] if per_group.column == "url" else values


def _host(url: str) -> str:
    try:
        return urlsplit(url if "//" in url else f"//{url}").netloc.lower()
    except ValueError:
        return ""


def _write(
    corpus: Corpus, chosen: NDArray[np.int64], per_group: PerGroup | None, seed: int, path: Path
) -> None:
    first = 0
    rows: list[tuple[str, str, str, int]] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for documents in corpus:
            low, high = np.searchsorted(chosen, [first, first + len(documents)])
            named = _groups(documents.batch, per_group)
            for row in (chosen[low:high] - first).tolist():
                text = documents.text[row].as_py()
                order = xxhash.xxh3_64_intdigest(text.encode(), seed)
                rows.append((str(documents.batch[ID][row]), text, named[row], order))
                if len(rows) == BLOCK:
                    writer.write_batch(_batch(rows))
                    rows = []
            first += len(documents)
        if rows:
            writer.write_batch(_batch(rows))


def _batch(rows: Sequence[tuple[str, str, str, int]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(one, type_) for one, type_ in zip(columns, _SCHEMA.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)


def model_losses(documents: SeedDocuments, setting: ModelSetting) -> tuple[Float64, str]:
    """(nats of each document, what the model cuts text into). Blocks that an earlier call computed
    are not computed again.

    Raises:
        RecipeError, TamisError: if the model cannot be opened or gives no numbers.
    """
    home = documents.folder / "losses" / setting.fingerprint()
    about = home / "model.json"
    losses: list[Float64] = []
    model = None
    with explained(str(home)):
        home.mkdir(parents=True, exist_ok=True)
    for number, block in enumerate(documents.blocks()):
        found = _stored(home / f"{number:05}.f64", block.num_rows)
        if found is None or not about.exists():
            model = model or load_language_model(setting)
            _replace(about, orjson.dumps({"model": str(setting.model), "cuts": model.tokenizer}))
        if found is None:
            assert model is not None
            found = model.nats(block[TEXT].to_pylist()).nats
            _replace(home / f"{number:05}.f64", found.tobytes())
        losses.append(found)
    return np.concatenate(losses), str(json.loads(about.read_text())["cuts"])


def _stored(path: Path, count: int) -> Float64 | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return np.frombuffer(content) if len(content) == 8 * count else None


def _replace(path: Path, content: bytes) -> None:
    """Written as a whole or not at all."""
    scratch = path.with_name(f".{os.getpid()}-{path.name}")
    with explained(str(path)):
        scratch.write_bytes(content)
        scratch.replace(path)


def read_losses(documents: SeedDocuments, paths: Sequence[str]) -> Float64:
    """The nats of each document by files of JSON lines: an id, and ``nats`` or ``total_loss`` (both
    -ln p of the whole document), ``bits_per_byte`` or ``bits_per_character``. A document that no
    line is about, or whose loss is null or NaN, has NaN.

    Raises:
        TamisError: if a file cannot be read, a line has no id or loss, or two documents have one
            id.
    """
    row = {id_: number for number, id_ in enumerate(documents.ids)}
    if len(row) < len(documents):
        double = next(id_ for id_, count in Counter(documents.ids).items() if count > 1)
        raise TamisError(
            f"several documents have the id {double}, so that losses from files cannot be told "
            "apart: give ids that are unique, or the models themselves"
        )
    found, unit = np.full(len(documents), math.nan), np.full(len(documents), "", object)
    for path in paths:
        for place, record in json_lines(path):
            key = next((one for one in LOSS_KEYS if one in record), None)
            if "id" not in record or key is None:
                raise TamisError(
                    f"{place}: a line gives the id of a document and one of "
                    f"{', '.join(LOSS_KEYS)}{nearest('nats', record)}"
                )
            value = record[key]
            if value is not None and not isinstance(value, int | float):
                raise TamisError(f"{place}: {key} is a number, not {value!r:.40}")
            number = row.get(str(record["id"]))
            if number is not None:
                found[number], unit[number] = math.nan if value is None else value, key
    if (unit == "bits_per_byte").any():
        found *= np.where(unit == "bits_per_byte", documents.sizes * math.log(2), 1.0)
    if (unit == "bits_per_character").any():
        rows = np.flatnonzero(unit == "bits_per_character")
        for number, text in documents.texts(rows):
            found[number] *= len(text) * math.log(2)
    return found
