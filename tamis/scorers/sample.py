"""A uniform sample of a corpus, and its embeddings, on disk: what was done is not done again when a
training is killed, or run again with other settings.

    FOLDER/sample.json      what the sample was drawn from
           documents.arrow  its documents
           order.npy        which of them count, in the order of their ids
           vectors.json     what the embeddings were made with, and how many batches are done
           vectors.npy      a unit vector for each document, zeros where it has no words
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from tamis.embedding import Embedder
from tamis.embedding.embedder import unit_vectors
from tamis.pipeline.documents import ID, TEXT, Documents
from tamis.pipeline.errors import TamisError
from tamis.pipeline.plan import model_fingerprint
from tamis.pipeline.storage import explained
from tamis.scorers.reading import Corpus

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

PIECE = 512
"""Documents that are embedded, and kept, at a time."""
_SCHEMA = pa.schema([(ID, pa.string()), (TEXT, pa.large_string())])


class Sample:
    """Documents that were drawn; document i is the one whose id is the i-th in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "sample.json").read_text())
        self._row = np.load(folder / "order.npy")

    def __len__(self) -> int:
        return len(self._row)

    def batches(self) -> Iterator[tuple[Int64, Documents]]:
        """(numbers, documents): the documents in the order of the corpus, and the number of
        each.
        """
        with pa.memory_map(str(self.folder / "documents.arrow")) as source:
            stored = pa.ipc.open_file(source)
            number = np.full(self.facts["stored"], -1)
            number[self._row] = np.arange(len(self._row))
            first = 0
            for index in range(stored.num_record_batches):
                whole = stored.get_batch(index)
                for begin in range(0, whole.num_rows, PIECE):
                    batch = whole.slice(begin, PIECE)
                    numbers = number[first : first + batch.num_rows]
                    first += batch.num_rows
                    chosen = numbers >= 0
                    yield numbers[chosen], Documents(batch.filter(pa.array(chosen)))

    def texts(self, numbers: Sequence[int] | Int64) -> list[str]:
        """The texts of some documents."""
        wanted = {int(number): place for place, number in enumerate(numbers)}
        found = [""] * len(wanted)
        for here, documents in self.batches():
            for row in np.flatnonzero(np.isin(here, list(wanted))):
                found[wanted[int(here[row])]] = documents.text[int(row)].as_py()
        return found

    def vectors(self, embedder: Embedder) -> Float32:
        """The unit vectors of all documents, (documents, dimensions), as a memory map; documents
        without words have zeros.

        Raises:
            TamisError: if a document cannot be embedded, or nothing can be written.
        """
        key = self.facts["key"]
        return stored_vectors(self.batches(), len(self), embedder, self.folder, key)


def stored_vectors(
    batches: Iterable[tuple[Int64, Documents]],
    count: int,
    embedder: Embedder,
    folder: Path,
    key: str,
) -> Float32:
    """The unit vectors of documents numbered 0 to ``count`` - 1, as a memory map in the folder.
    Those that an earlier call with the same ``key`` and embedder has made are not made again.

    Raises:
        TamisError: if a document cannot be embedded, or nothing can be written.
    """
    state, path = folder / "vectors.json", folder / "vectors.npy"
    models = [model_fingerprint(model) for model in embedder.models()]
    made_with = {"embedding": embedder.settings(), "models": models, "documents": key}
    done = _state(state, made_with) if path.exists() else 0
    vectors: Float32 | None = np.load(path, mmap_mode="r+") if done else None
    for number, (rows, documents) in enumerate(batches, 1):
        if number <= done or not len(rows):
            continue
        try:
            made = unit_vectors(embedder.embed(documents, np.arange(len(documents))))
        except ValueError as error:
            raise TamisError(f"a document of the sample cannot be embedded: {error}") from error
        with explained(str(path)):
            if vectors is None:
                state.unlink(missing_ok=True)
                folder.mkdir(parents=True, exist_ok=True)
                shape = (count, made.shape[1])
                vectors = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            vectors[rows] = made
            if isinstance(vectors, np.memmap):
                vectors.flush()
            _write(state, {**made_with, "batches": number})
    if vectors is None:
        raise TamisError("there are no documents to embed")
    return vectors


def draw_sample(corpus: Corpus, folder: Path, most: int | None, seed: int = 0) -> Sample:
    """Draw at most ``most`` documents of a corpus, each as probable as any other, and keep them in
    the folder; texts without a word are left out. Which ones depends on their ids and the seed.

    If the folder has a sample of the same files, size and seed, that is it.

    Raises:
        TamisError: if there are no documents, or the folder cannot be written.
    """
    key = f"{corpus.fingerprint()}:{most}:{seed}"
    about = folder / "sample.json"
    if _read(about).get("key") == key:
        return Sample(folder)
    with explained(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("sample.json", "vectors.json", "vectors.npy"):
            (folder / name).unlink(missing_ok=True)
        ids, hashes, read = _write_candidates(corpus, folder / "documents.arrow", most, seed)
        if not len(ids):
            raise TamisError("there are no documents with text in the sample")
        row = np.sort(np.argsort(hashes, kind="stable")[:most])
        by_id = np.asarray(pc.sort_indices(ids.take(pa.array(row))))
        np.save(folder / "order.npy", row[by_id].astype(np.int64))
        facts = {"key": key, "read": read, "stored": len(ids), "unreadable": corpus.unreadable}
        _write(about, facts)
    return Sample(folder)


def _write_candidates(
    corpus: Corpus, path: Path, most: int | None, seed: int
) -> tuple[pa.Array, NDArray[np.uint64], int]:
    """(ids, hashes, read): what is written, in its order: every document whose hash was among the
    ``most`` smallest so far, or was not yet known not to be.
    """
    ids: list[pa.Array] = []
    hashes = np.zeros(0, np.uint64)
    limit = np.uint64(2**64 - 1)
    read = pruned = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for documents in corpus:
            read += len(documents)
            found = np.array(
                [
                    xxhash.xxh3_64_intdigest(str(one).encode(), seed)
                    for one in documents.batch[ID].to_pylist()
                ],
                np.uint64,
            )
            some = pc.match_substring_regex(documents.text, r"\S").fill_null(False)
            chosen = (found <= limit) & np.asarray(some)
            batch = documents.batch.select([ID, TEXT]).filter(pa.array(chosen))
            if not batch.num_rows:
                continue
            writer.write_batch(batch)
            ids.append(batch[ID])
            hashes = np.concatenate([hashes, found[chosen]])
            if most is not None and len(hashes) > max(2 * pruned, 2 * most):
                limit, pruned = np.partition(hashes, most - 1)[most - 1], len(hashes)
    return pa.concat_arrays(ids) if ids else pa.array([], pa.string()), hashes, read


def _read(path: Path) -> dict[str, Any]:
    """A file of facts; empty if there is none, or it is damaged."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _state(path: Path, key: dict[str, Any]) -> int:
    """How many batches are done with these settings."""
    found = _read(path)
    batches = int(found.pop("batches", 0))
    return batches if found == key else 0


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace the file as a whole."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(content))
    scratch.replace(path)


def nonzero_vectors(vectors: Float32, path: Path | None) -> tuple[Int64, Float32]:
    """(rows, vectors): those that are not zeros, as they are if that is all, else copied, to a
    memory map if there is a ``path``.
    """
    step = 1 << 14
    nonzero = [
        first + np.flatnonzero(vectors[first : first + step].any(axis=1))
        for first in range(0, len(vectors), step)
    ]
    rows = np.concatenate([np.zeros(0, np.int64), *nonzero])
    if len(rows) == len(vectors):
        return rows, vectors
    if path is None or not len(rows):
        return rows, vectors[rows]
    with explained(str(path)):
        kept = np.lib.format.open_memmap(path, "w+", np.float32, (len(rows), vectors.shape[1]))
        for first in range(0, len(rows), step):
            kept[first : first + step] = vectors[rows[first : first + step]]
    return rows, kept
