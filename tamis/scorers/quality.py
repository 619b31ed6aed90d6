"""How good documents are, in somebody's opinion: a regression on embeddings, learned from ratings.

    labels: [ratings.jsonl]         {"text": ..., "score": 0 to 5}
    embedding: {sentence_transformers: models/snowflake-arctic-embed-m}
    output: models/edu.npz

Source: Penedo et al. 2024 (arXiv:2406.17557, FineWeb-Edu) and the code of its classifier: a linear
head with one output on embeddings that do not change, trained on ratings from 0 to 5 by squared
error, a tenth of the texts of every rating held out; int_score is the output rounded and cut to 0
to 5, and documents with an int_score of 3 and more are kept.

The authors train the head by gradient descent, and choose the epoch by its macro-F1. Here the least
squares are solved exactly, with a penalty on the weights (ridge) that is chosen by leaving out one
text at a time, which has a closed form: the same head from the same data, whatever the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from tamis.embedding import Embedder, Embedding, Function
from tamis.embedding.embedder import unit_vectors
from tamis.fit import Fit
from tamis.pipeline.documents import ID, TEXT, Documents
from tamis.pipeline.errors import RecipeError, TamisError, nearest
from tamis.pipeline.readers.json_lines import json_lines
from tamis.pipeline.stages import Measures, Quantity
from tamis.pipeline.storage import digest
from tamis.scorers.arrays import Stored, load_arrays, save_arrays
from tamis.scorers.artefact import write_facts
from tamis.scorers.on_embeddings import OnEmbeddings
from tamis.scorers.sample import PIECE, stored_vectors

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

PENALTIES = tuple(float(one) for one in 10.0 ** np.arange(-6, 3))
"""That are tried, in units of the mean variance of the vectors along their principal axes."""
FEWEST = 20
"""Rated texts that a training needs at least."""
_BLOCK = 8192


class Head(NamedTuple):
    """A linear function of vectors."""

    weights: Float64
    bias: float
    penalty: float = 0.0

    def predict(self, vectors: Float32) -> Float64:
        """The value for each vector, (n,)."""
        # Row by row: the sums have the same bits whichever other rows are in the batch.
        products = vectors.astype(np.float64) * self.weights
        values: Float64 = products.sum(axis=1) + self.bias
        return values


def fit_head(vectors: Float32, ratings: Float64, penalty: float | None = None) -> Head:
    """The weights w and bias b that minimise the sum of (x w + b - y)^2 + a |w|^2 over the rows x
    of ``vectors``, (n, d), and ``ratings``, (n,), where a is ``penalty`` times n times the mean
    variance along the principal axes. None takes the one of ``PENALTIES`` under which texts that
    are left out, one at a time, are predicted best.

    Vectors are read in blocks of 8192; beside them there are matrices of d x d.

    Raises:
        TamisError: if all vectors are the same.
    """
    count, mean = len(vectors), np.asarray(vectors.mean(axis=0, dtype=np.float64))
    target, centre = ratings - ratings.mean(), float(ratings.mean())
    covariance, moment = np.zeros((len(mean), len(mean))), np.zeros(len(mean))
    for first in range(0, count, _BLOCK):
        part = vectors[first : first + _BLOCK] - mean
        covariance += part.T @ part
        moment += part.T @ target[first : first + _BLOCK]
    values, axes = np.linalg.eigh(covariance)
    values = np.maximum(values, 0.0)
    if not values.max() > 0:
        raise TamisError("all rated texts have the same embedding: nothing can be learned")
    penalties = np.array(PENALTIES if penalty is None else (penalty,))
    shrunk = 1 / (values[:, None] + penalties * values.mean() + np.finfo(float).tiny)
    weights = (axes.T @ moment)[:, None] * shrunk
    if penalty is None:
        errors = np.zeros(len(penalties))
        for first in range(0, count, _BLOCK):
            along = (vectors[first : first + _BLOCK] - mean) @ axes
            left = target[first : first + _BLOCK, None] - along @ weights
            # How far a text pulls its own prediction towards its rating: the diagonal of the hat
            # matrix.
            leverage = np.minimum(1 / count + along**2 @ shrunk, 1 - 1e-9)
            errors += ((left / (1 - leverage)) ** 2).sum(axis=0)
        best = int(errors.argmin())
    else:
        best = 0
    direction = axes @ weights[:, best]
    return Head(direction, centre - float(mean @ direction), float(penalties[best]))


def rounded(scores: Float64, lowest: int = 0, highest: int = 5) -> Float64:
    """``int_score``: cut to the scale and rounded, halves to the even number (2.5 is 2)."""
    cut: Float64 = np.rint(np.clip(scores, lowest, highest))
    return cut


def f1_of(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN); 0 where nothing is true or said to be."""
    both = int((truth & said).sum())
    return 2 * both / max(1, int(truth.sum()) + int(said.sum()))


def measure_head(ratings: Float64, scores: Float64, scale: tuple[int, int], keep: int) -> Any:
    """How good predicted scores are: the F1 of every rating of the rounded ones, their mean
    (macro-F1, over the ratings that occur or are predicted), the precision, recall and F1 of
    keeping ``keep`` and more, and the mean absolute error.
    """
    truth, said = rounded(ratings, *scale), rounded(scores, *scale)
    each = {int(one): f1_of(truth == one, said == one) for one in np.union1d(truth, said)}
    wanted, kept = truth >= keep, said >= keep
    right = int((wanted & kept).sum())
    return {
        "texts": len(ratings),
        "macro_f1": sum(each.values()) / len(each),
        "f1": {str(rating): value for rating, value in each.items()},
        "keep_from": keep,
        "keep_f1": f1_of(wanted, kept),
        "keep_precision": right / max(1, int(kept.sum())),
        "keep_recall": right / max(1, int(wanted.sum())),
        "mean_absolute_error": float(np.abs(scores - ratings).mean()),
    }


def _load(path: Path) -> Stored:
    return load_arrays(path, "quality", ("weights", "bias"))


class Quality(OnEmbeddings):
    """Adds the rating that a linear head on embeddings predicts.

    ``score`` is the output of the head, which may lie outside of the scale; ``int_score`` is it
    rounded and cut to the scale. FineWeb-Edu keeps an ``int_score`` of 3 and more. A document
    without a word has no score (NaN).
    """

    kind: ClassVar[str] = "quality"
    width_of: ClassVar[str] = "weights"
    load_model: ClassVar[Callable[[Path], Stored]] = _load

    model: Path
    """What ``tamis fit quality`` wrote (``.npz``)."""
    embedding: Embedding | None = None
    """Where the embedder is here, if not where it was: it has to be the same."""

    def provides(self) -> tuple[Quantity, ...]:
        return (
            Quantity("score", "score", "predicted rating", -math.inf),
            Quantity("int_score", "score", "the rating, rounded and cut to the scale", -math.inf),
        )

    def measure(self, documents: Documents) -> Measures:
        rows, vectors = self.vectors_of(documents)
        stored, score = self._stored(), np.full(len(documents), np.nan)
        if len(rows):
            head = Head(stored.arrays["weights"], float(stored.arrays["bias"]))
            score[rows] = head.predict(vectors)
        return {"score": score, "int_score": rounded(score, *stored.header["scale"])}


class Rated(NamedTuple):
    """Texts with their ratings."""

    batch: pa.RecordBatch
    """``id``, ``text``, and the columns that the embedder needs."""
    ratings: Float64
    unrated: int
    """Lines without a rating."""


class FitQuality(Fit):
    """Trains the head, and measures it on texts held out."""

    kind: ClassVar[str] = "quality"

    labels: str | tuple[str, ...]
    """JSONL files with rated texts; lines whose rating is null are passed over. ``tamis fit
    annotations`` makes such a file with a language model.
    """
    text: str = "text"
    """Key of the text."""
    label: str = "score"
    """Key of the rating, a number."""
    scale: tuple[int, int] = (0, 5)
    """The lowest and the highest rating."""
    embedding: Embedding
    keep_from: int = 3
    """What the facts say about: documents of this ``int_score`` and more are kept."""
    penalty: float | None = Field(default=None, gt=0)
    """On large weights; null for the best of several."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """The part of the texts of every rating that is measured and not trained on."""
    seed: int = Field(default=0, ge=0)
    """Of the texts that are held out."""
    work: Path | None = None
    """Where the embeddings of the texts are kept. Default: OUTPUT.work."""

    def model_post_init(self, context: object, /) -> None:
        if self.output.suffix != ".npz":
            raise RecipeError(f"output = {self.output}: the name of a model ends in .npz")
        if isinstance(self.embedding, Function):
            raise RecipeError("embedding: a function cannot be kept in a model; name one")
        if not self.scale[0] < self.scale[1]:
            raise RecipeError(f"scale = {list(self.scale)}: the lowest rating stands first")

    def fit(self) -> str:
        self.embedding.models()
        rated = self._read()
        vectors = self._embed(rated)
        words = vectors.any(axis=1)
        held = stratified(rounded(rated.ratings, *self.scale), self.held_out, self.seed)
        train, measured = np.flatnonzero(words & ~held), np.flatnonzero(words & held)
        if len(train) < FEWEST or not len(measured):
            raise TamisError(
                f"{int(words.sum()):,} rated texts with words are too few: it takes {FEWEST} to "
                "learn from, and some that are held out"
            )
        head = fit_head(vectors[train], rated.ratings[train], self.penalty)
        quality = measure_head(
            *(rated.ratings[measured], head.predict(vectors[measured])),
            *(self.scale, self.keep_from),
        )
        header = {"embedding": self.embedding.settings(), "scale": list(self.scale)}
        arrays: dict[str, NDArray[Any]] = {"weights": head.weights, "bias": np.float64(head.bias)}  # type: ignore[dict-item]
        save_arrays(self.output, Quality.kind, header, arrays)
        facts = {
            "trained_on": len(train),
            "unrated": rated.unrated,
            "without_words": int((~words).sum()),
            "penalty": head.penalty,
            "held_out": quality,
        }
        write_facts(self.output, Quality.kind, {}, self, facts)
        return _told(self, facts)

    def _read(self) -> Rated:
        """Every text once; one that stands there several times has the mean of its ratings."""
        found: dict[str, list[float]] = {}
        columns: dict[str, list[Any]] = {name: [] for name in self.embedding.requires()}
        unrated = 0
        for path in (self.labels,) if isinstance(self.labels, str) else self.labels:
            for place, record in json_lines(path):
                text, rating = record.get(self.text), record.get(self.label)
                if not isinstance(text, str):
                    hint = nearest(self.text, record)
                    raise TamisError(f"{place}: no text under {self.text}{hint}")
                if self.label not in record:
                    hint = nearest(self.label, record)
                    raise TamisError(f"{place}: no rating under {self.label}{hint}")
                if rating is None:
                    unrated += 1
                    continue
                if not isinstance(rating, int | float) or isinstance(rating, bool):
                    raise TamisError(f"{place}: {self.label} is a number, not {rating!r:.40}")
                if not self.scale[0] <= rating <= self.scale[1]:
                    raise TamisError(
                        f"{place}: {self.label} is {rating:g}, and the scale goes from "
                        f"{self.scale[0]} to {self.scale[1]}"
                    )
                if text not in found:
                    for name, values in columns.items():
                        values.append(record.get(name))
                found.setdefault(text, []).append(float(rating))
        texts = {
            ID: pa.array([str(number) for number in range(len(found))], pa.string()),
            TEXT: pa.array(list(found), pa.large_string()),
        }
        batch = pa.RecordBatch.from_pydict({**texts, **columns})
        ratings = np.array([sum(some) / len(some) for some in found.values()])
        return Rated(batch, ratings, unrated)

    def _embed(self, rated: Rated) -> Float32:
        folder = self.work or self.output.with_name(self.output.name + ".work")
        count = rated.batch.num_rows
        pieces = (
            (
                np.arange(first, min(first + PIECE, count)),
                Documents(rated.batch.slice(first, PIECE)),
            )
            for first in range(0, count, PIECE)
        )
        key = digest(*rated.batch.to_pydict().values())
        return np.asarray(stored_vectors(pieces, count, self.embedding, folder, key))


def stratified(classes: NDArray[Any], part: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are held out: about ``part`` of the rows of each class."""
    random, held = np.random.default_rng(seed), np.zeros(len(classes), np.bool_)
    for one in np.unique(classes):
        rows = random.permutation(np.flatnonzero(classes == one))
        held[rows[: round(part * len(rows))]] = True
    return held


def rate_texts(
    train: Sequence[str], ratings: Sequence[float], texts: Sequence[str], embedding: Embedder
) -> Float64:
    """The scores of texts by a head that is trained on other texts and their ratings, in memory."""
    vectors = unit_vectors(embedding.embed_texts(train))
    head = fit_head(vectors, np.asarray(ratings, np.float64))
    return head.predict(unit_vectors(embedding.embed_texts(texts)))


def _told(fit: FitQuality, facts: dict[str, Any]) -> str:
    held = facts["held_out"]
    lines = [
        f"macro-F1 {held['macro_f1']:.3f}, mean absolute error {held['mean_absolute_error']:.2f} "
        f"on {held['texts']:,} texts held out",
        f"an int_score of {held['keep_from']} and more: precision {held['keep_precision']:.3f}, "
        f"recall {held['keep_recall']:.3f}, F1 {held['keep_f1']:.3f}",
        *(f"  rating {rating}: F1 {value:.3f}" for rating, value in held["f1"].items()),
    ]
    if facts["unrated"]:
        lines.append(f"{facts['unrated']:,} lines have no rating")
    return "\n".join([*lines, "", f"trained on {facts['trained_on']:,} texts: {fit.output}"])
