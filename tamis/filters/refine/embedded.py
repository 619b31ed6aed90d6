"""The compact refiner: a line tagger and a document head that come as one file and need a CPU only.

Lines get one of three labels (keep, remove, cut the address out) from a linear-chain conditional
random field over the hashed features of ``line_features``; a second one of length 1 says whether
the document stays. Labels become programs. The file is an ``.npz`` of weights and a header in JSON;
nothing in it is executed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from tamis.filters.once import once
from tamis.filters.refine.chain import emissions, learn, viterbi
from tamis.filters.refine.line_features import (
    ADDRESS,
    COUNTS,
    HAS_URL,
    HASHES,
    KEEP,
    LABELS,
    LENGTH,
    MOST_DOCUMENT_FEATURES,
    MOST_FEATURES,
    REMOVE,
    SHAPES,
    URL,
    WHOLE,
    describe,
    document_features,
    line_features,
    mix,
)
from tamis.filters.refine.line_programs import address_sources, line_program
from tamis.filters.text.bitmap import readonly, text_arrays
from tamis.filters.text.lines import lines
from tamis.kernel import kernel
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import TamisError

DEFAULT = Path(__file__).parent / "data" / "refiner.npz"
"""The refiner that comes along."""
LOWEST_BITS, HIGHEST_BITS = 8, 22
_FORMAT = "tamis compact refiner 1"
_PREFIXES = tuple(
    readonly(np.frombuffer(one, np.uint8)) for one in (b"http://", b"https://", b"www.", b"ftp://")
)


class Weights(NamedTuple):
    """What is learned."""

    lines: NDArray[np.float32]
    """(2^bits, 3): of the features of lines."""
    transitions: NDArray[np.float64]
    """(3, 3): from the label of a line to that of the next."""
    documents: NDArray[np.float32]
    """(2^document_bits, 2): keep, drop."""


class Tagged(NamedTuple):
    """What a refiner says of a batch."""

    first: NDArray[np.int64]
    """Document i has lines ``first[i]:first[i + 1]``; none if it is not alive."""
    labels: NDArray[np.int8]
    """KEEP, REMOVE or ADDRESS of each line."""
    log_odds: NDArray[np.float64]
    """(documents,): ln p(drop) / p(keep)."""


class CompactRefiner:
    """A trained tagger. ``facts`` is what was stored with it: on what it was trained, and how good
    it is on sites that it has not seen.
    """

    def __init__(self, weights: Weights, lean: tuple[float, float], facts: dict[str, Any]) -> None:
        self.weights = Weights(*(readonly(one) for one in weights))
        self.lean = lean
        """Added to the log-odds of removing a line and of dropping a document."""
        self.facts = facts

    def tag(self, documents: Documents) -> Tagged:
        """Labels of all lines, and whether documents stay; in time linear in the text."""
        data, _, _ = text_arrays(documents)
        found = lines(documents)
        labels = np.zeros(len(found.start), np.int8)
        log_odds = np.zeros(len(documents))
        _tag(
            *(data, tuple(map(readonly, found)), _PREFIXES, tuple(self.weights)),
            *(self.lean[0], labels, log_odds),
        )
        return Tagged(found.first, labels, log_odds + self.lean[1])

    def chunk_programs(self, documents: Documents) -> list[str]:
        """The program of each document; empty for rows that are not alive."""
        tagged = self.tag(documents)
        texts = documents.text
        programs = [""] * len(documents)
        for row in np.flatnonzero(documents.alive).tolist():
            labels = tagged.labels[tagged.first[row] : tagged.first[row + 1]]
            sources: dict[int, Sequence[str]] = {}
            if (labels == ADDRESS).any():
                split = (texts[row].as_py() or "").split("\n")
                sources = {
                    int(at): address_sources(split[at]) for at in np.flatnonzero(labels == ADDRESS)
                }
            programs[row] = line_program(labels.tolist(), sources)
        return programs

    def document_programs(self, documents: Documents) -> list[str]:
        """``drop_doc()`` or ``keep_doc()`` for each document; empty for rows that are not alive."""
        drops = self.tag(documents).log_odds > 0
        return [
            ("drop_doc()" if drop else "keep_doc()") if alive else ""
            for drop, alive in zip(drops, documents.alive, strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write the file, weights rounded to float16; equal refiners give equal bytes.

        Raises:
            TamisError: if it cannot be written.
        """
        header = {"format": _FORMAT, "lean": list(self.lean), "facts": self.facts}
        text = json.dumps(header, sort_keys=True).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                np.savez_compressed(
                    file,
                    header=np.frombuffer(text, np.uint8),
                    lines=self.weights.lines.astype(np.float16),
                    transitions=self.weights.transitions,
                    documents=self.weights.documents.astype(np.float16),
                )
        except OSError as error:
            raise TamisError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> CompactRefiner:
        """Read what ``save`` wrote.

        Raises:
            TamisError: if the file is missing, damaged, or something else.
        """
        try:
            if path.is_file() and not zipfile.is_zipfile(path):
                raise ValueError("it is no .npz archive")
            with np.load(path, allow_pickle=False) as stored:
                header = json.loads(stored["header"].tobytes())
                if header["format"] != _FORMAT:
                    raise ValueError(f"its format is {header['format']}")
                remove, drop = map(float, header["lean"])
                facts = dict(header["facts"])
                weights = Weights(
                    stored["lines"].astype(np.float32),
                    stored["transitions"].astype(np.float64),
                    stored["documents"].astype(np.float32),
                )
        except OSError as error:
            raise TamisError(f"{path} cannot be read as a refiner: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise TamisError(
                f"{path} is not a refiner that tamis fit refiner wrote: {error}"
            ) from error
        sizes = {2**bits for bits in range(LOWEST_BITS, HIGHEST_BITS + 1)}
        shapes = [one.shape for one in weights]
        if (*(shapes[0][1:], shapes[1], shapes[2][1:]),) != (
            (LABELS,),
            (LABELS, LABELS),
            (2,),
        ) or not {shapes[0][0], shapes[2][0]} <= sizes:
            raise TamisError(f"{path} is damaged: its weights have the shapes {shapes}")
        if not all(np.isfinite(one).all() for one in weights):
            raise TamisError(f"{path} is damaged: a weight is no number")
        return cls(weights, (remove, drop), facts)


def load_refiner(path: Path = DEFAULT) -> CompactRefiner:
    """``CompactRefiner.load``, once a process for a file that stays the same."""
    return once(CompactRefiner.load, path, "there is no refiner {path}")


def refiner_identity(path: Path = DEFAULT) -> str:
    """A hash of the file.

    Raises:
        TamisError: if it cannot be read.
    """
    try:
        return f"compact refiner {xxhash.xxh3_128_hexdigest(path.read_bytes())}"
    except OSError as error:
        raise TamisError(f"there is no refiner {path}: {error.strerror}") from error


class Lessons(NamedTuple):
    """Documents with their gold labels."""

    documents: Documents
    labels: NDArray[np.int8]
    """Of all lines, one document after the other."""
    keep: NDArray[np.bool_]
    """(documents,)"""


def train(
    lessons: Lessons,
    bits: int = 16,
    document_bits: int = 12,
    epochs: int = 3,
    learning_rate: float = 0.05,
    unseen: float = 0.6,
    seed: int = 0,
) -> Weights:
    """Weights from gold labels: first those of the lines, from documents that stay, then those of
    the documents, with the lines as the first ones label them.

    Args:
        lessons: What is learned from.
        bits: Features of lines are hashed to 2^bits buckets.
        document_bits: Those of documents.
        epochs: How often each document is seen.
        learning_rate: Of AdaGrad.
        unseen: The part of the lines that are learned from as if their words were not known, so
            that shape and place are learned, too.
        seed: Of the order; the same data, settings and seed give the same weights.
    """
    random = np.random.default_rng(seed)
    data, _, _ = text_arrays(lessons.documents)
    spans = tuple(map(readonly, lines(lessons.documents)))
    weights = Weights(
        np.zeros((1 << bits, LABELS), np.float32),
        np.zeros((LABELS, LABELS)),
        np.zeros((1 << document_bits, 2), np.float32),
    )
    squares = tuple(np.zeros_like(one) for one in weights)
    labels = readonly(_possible(lessons))
    drop = readonly((~lessons.keep).astype(np.int8))
    kept = np.flatnonzero(lessons.keep)
    line_tables = (weights.lines, squares[0], weights.transitions, squares[1])
    nothing = np.zeros((2, 2)), np.zeros((2, 2))
    document_tables = (weights.documents, squares[2], *nothing)
    where = (data, spans, _PREFIXES)
    for _ in range(epochs):
        order = readonly(random.permutation(kept))
        left_out = np.uint64(int(unseen * 2**63) * 2), random.integers(2**63, dtype=np.uint64)
        _train_lines(*where, order, labels, learning_rate, *left_out, line_tables)
    for _ in range(epochs):
        order = readonly(random.permutation(len(lessons.keep)))
        # A draw that nothing uses, so that the orders are those of refiners made before.
        random.integers(2**63, dtype=np.uint64)
        _train_documents(
            *(*where, order, drop, learning_rate),
            *(weights.lines, weights.transitions, document_tables),
        )
    return weights


def _possible(lessons: Lessons) -> NDArray[np.int8]:
    """The labels, with KEEP for ADDRESS where a line has no address that the tagger sees."""
    data, _, _ = text_arrays(lessons.documents)
    spans = tuple(map(readonly, lines(lessons.documents)))
    labels = lessons.labels.copy()
    if len(labels) != len(spans[1]):
        raise ValueError(f"{len(labels)} labels for {len(spans[1])} lines")
    _forget_impossible(data, spans, _PREFIXES, labels)
    return labels


@kernel
def _forget_impossible(data: Any, spans: Any, prefixes: Any, labels: Any) -> None:
    first, _, _ = spans
    for doc in range(len(first) - 1):
        shapes = _describe_lines(data, spans, doc, prefixes)[0]
        for i in range(len(shapes)):
            if labels[first[doc] + i] == ADDRESS and shapes[i, URL] != HAS_URL:
                labels[first[doc] + i] = KEEP


@kernel
def _describe_lines(data: Any, spans: Any, doc: Any, prefixes: Any) -> Any:
    """(shapes, hashes, counts, how often each line stood before, places among those not blank)."""
    first, start, end = spans
    count = first[doc + 1] - first[doc]
    shapes = np.empty((count, SHAPES), np.int64)
    hashes = np.empty((count, HASHES), np.uint64)
    counts = np.empty((count, COUNTS), np.int64)
    places = np.zeros(count + 1, np.int64)
    for i in range(count):
        line = first[doc] + i
        describe(data, start[line], end[line], prefixes, shapes[i], hashes[i], counts[i])
        places[i + 1] = places[i] + (shapes[i, LENGTH] > 0)
    repeated = np.zeros(count, np.int64)
    order = np.argsort(hashes[:, WHOLE], kind="mergesort")
    for k in range(1, count):
        one, other = order[k - 1], order[k]
        if hashes[one, WHOLE] == hashes[other, WHOLE]:
            repeated[other] = repeated[one] + 1
    return shapes, hashes, counts, repeated, places


@kernel
def _allowed(shapes: Any, allowed: Any) -> None:
    """A label is allowed if there is something for it to do."""
    for i in range(len(shapes)):
        allowed[i] = LABELS if shapes[i, URL] == HAS_URL else ADDRESS


@kernel
def _fill(
    data: Any, spans: Any, doc: Any, described: Any, begin: Any, mask: Any, filled: Any
) -> None:
    """The features of some lines of a document, from number ``begin`` on: see ``line_features``."""
    out, shaped, found = filled
    first, start, end = spans
    shapes, hashes, counts, repeated, places = described
    for k in range(len(found)):
        i = begin + k
        line = first[doc] + i
        place = (i, places[i], places[-1] - places[i])
        span = (start[line], end[line])
        shaped[k], found[k] = line_features(
            data, span, place, shapes, hashes, counts, repeated[i], mask, out[k]
        )


@kernel
def _scores(
    data: Any, spans: Any, doc: Any, described: Any, weights: Any, lean: Any, scores: Any
) -> None:
    """The scores of all labels of all lines of a document; features of a few lines at a time."""
    shapes = described[0]
    count = len(shapes)
    mask = np.uint64(len(weights) - 1)
    size = min(count, 256)
    features = np.empty((size, MOST_FEATURES), np.int32)
    shaped, found = np.zeros(size, np.int64), np.zeros(size, np.int64)
    allowed = np.empty(count, np.int64)
    _allowed(shapes, allowed)
    for begin in range(0, count, size):
        end = min(begin + size, count)
        some = found[: end - begin]
        _fill(data, spans, doc, described, begin, mask, (features, shaped, some))
        emissions(features, some, allowed[begin:end], weights, scores[begin:end])
        for i in range(begin, end):
            scores[i, REMOVE] += lean


@kernel
def _tag(
    data: Any, spans: Any, prefixes: Any, weights: Any, lean: Any, labels: Any, log_odds: Any
) -> None:
    of_lines, transitions, of_documents = weights
    features = np.empty(MOST_DOCUMENT_FEATURES, np.int32)
    mask = np.uint64(len(of_documents) - 1)
    first, start, end = spans
    for doc in range(len(log_odds)):
        count = first[doc + 1] - first[doc]
        if count == 0:
            continue
        described = _describe_lines(data, spans, doc, prefixes)
        scores = np.empty((count, LABELS))
        _scores(data, spans, doc, described, of_lines, lean, scores)
        mine = labels[first[doc] : first[doc + 1]]
        viterbi(scores, transitions, mine)
        shapes, hashes, counts, _, _ = described
        whole = np.array([start[first[doc]], end[first[doc + 1] - 1]])
        found = document_features(data, whole, shapes, hashes, counts, mine, mask, features)
        for k in range(found):
            log_odds[doc] += of_documents[features[k], 1] - of_documents[features[k], 0]


@kernel
def _train_lines(
    data: Any,
    spans: Any,
    prefixes: Any,
    order: Any,
    gold: Any,
    rate: Any,
    unseen: Any,
    seed: Any,
    tables: Any,
) -> None:
    """One pass over documents for the labels of lines."""
    first, _, _ = spans
    mask = np.uint64(len(tables[0]) - 1)
    for doc in order:
        count = first[doc + 1] - first[doc]
        described = _describe_lines(data, spans, doc, prefixes)
        features = np.empty((count, MOST_FEATURES), np.int32)
        shaped, found = np.zeros(count, np.int64), np.zeros(count, np.int64)
        allowed = np.empty(count, np.int64)
        _allowed(described[0], allowed)
        _fill(data, spans, doc, described, 0, mask, (features, shaped, found))
        for i in range(count):
            if mix(mix(seed, np.uint64(doc)), np.uint64(i)) < unseen:
                found[i] = shaped[i]
        learn(features, found, allowed, gold[first[doc] : first[doc + 1]], rate, tables)


@kernel
def _train_documents(
    data: Any,
    spans: Any,
    prefixes: Any,
    order: Any,
    drop: Any,
    rate: Any,
    of_lines: Any,
    transitions: Any,
    tables: Any,
) -> None:
    """One pass over documents for whether they stay, with lines as they are labelled by now."""
    first, start, end = spans
    mask = np.uint64(len(tables[0]) - 1)
    features = np.empty((1, MOST_DOCUMENT_FEATURES), np.int32)
    for doc in order:
        count = first[doc + 1] - first[doc]
        described = _describe_lines(data, spans, doc, prefixes)
        shapes, hashes, counts, _, _ = described
        scores, mine = np.empty((count, LABELS)), np.empty(count, np.int8)
        _scores(data, spans, doc, described, of_lines, 0.0, scores)
        viterbi(scores, transitions, mine)
        whole = np.array([start[first[doc]], end[first[doc + 1] - 1]])
        found = document_features(data, whole, shapes, hashes, counts, mine, mask, features[0])
        allowed, size = np.array([2]), np.array([found])
        learn(features, size, allowed, drop[doc : doc + 1], rate, tables)
