"""``tamis fit fasttext CONFIG``: a fastText classifier from labelled texts.

    positives: [instructions/*.jsonl.gz, answers/]
    negatives: crawl/*.parquet
    training: {recipe: dclm}
    output: models/quality.bin

or, where every document says its label: ``data: [labelled.jsonl]``, with ``label: quality`` for the
key. A part of the texts, chosen by a hash of the text so that copies are on the same side, is held
out and measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from tamis.filters.fasttext import load_model
from tamis.filters.toxicity.training import area_under_curve, as_documents
from tamis.fit import Fit
from tamis.pipeline.documents import ID, TEXT
from tamis.pipeline.errors import RecipeError, TamisError, nearest
from tamis.pipeline.readers import (
    BadRecord,
    Input,
    declare_schema,
    list_files,
    plan_slices,
    read_slice,
)
from tamis.pipeline.storage import shards_of
from tamis.scorers.artefact import write_facts
from tamis.scorers.fasttext import POSITIVE
from tamis.scorers.fasttext_training import FastTextSettings, train_classifier

TOP = 0.1
"""The share of the tokens whose precision is measured."""
_BINS = 10


def _as_inputs(given: Any) -> Any:
    many = given if isinstance(given, list | tuple) else [given]
    return [{"path": one} if isinstance(one, str) else one for one in many]


Inputs = Annotated[tuple[Input, ...], BeforeValidator(_as_inputs)]
"""One path or ``input`` of a recipe, or several."""


class Quality(NamedTuple):
    """How good scores are on texts whose label is known."""

    texts: int
    positive: int
    auc: float
    """The probability that a positive text scores above another, ties counting half."""
    precision_at_top: float
    """The share of the positive among the best texts that make up ``TOP`` of the tokens; by tokens,
    the last text as far as it is needed.
    """
    calibration_error: float
    """How far the mean probability of ten groups of equal size, by probability, is from the share
    of the positive among them: the mean of the absolute differences.
    """


class FitFastText(Fit):
    """Trains a fastText classifier, and measures it on texts held out."""

    kind: ClassVar[str] = "fasttext"

    data: Inputs = ()
    """Documents with their labels: files of any format that a recipe reads."""
    label: str = "label"
    """The column of ``data`` that has the label: a word or a whole number."""
    positives: Inputs = ()
    negatives: Inputs = ()
    """Instead of ``data``: documents like those that are wanted, and others; they get the labels hq
    and cc.
    """
    positive: str | None = None
    """The label that the stage scores. Default: hq of hq and cc, 1 of 1 and 0."""
    training: FastTextSettings = FastTextSettings()
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """The part of the texts that is measured and not trained on."""
    about: str = ""
    """Kept beside the model: what the data is, under which licence."""

    def model_post_init(self, context: object, /) -> None:
        if bool(self.data) == bool(self.positives or self.negatives):
            raise RecipeError(
                "give either data (documents with their labels), or positives and negatives"
            )
        if not self.data and not (self.positives and self.negatives):
            missing = "negatives" if self.positives else "positives"
            raise RecipeError(f"{missing}: a classifier needs examples of both kinds")
        if self.output.suffix != ".bin":
            raise RecipeError(f"output = {self.output}: the name of a model ends in .bin")

    def fit(self) -> str:
        held = _HeldOut(self.held_out)
        train_classifier(self._training_pairs(held), self.training, self.output)
        positive = self._positive(held.seen)
        quality = held.measure(self.output, positive)
        facts = {
            "trained_on": dict(sorted(held.trained.items())),
            "held_out": quality._asdict(),
        }
        write_facts(self.output, "fasttext", {"label": positive}, self, facts)
        return _told(self, positive, held, quality)

    def _training_pairs(self, held: _HeldOut) -> Iterator[tuple[str, str]]:
        """The pairs (label, text) to train on; TamisError behind the last, before anything is
        trained, if the model could not be measured.
        """
        for label, text in self._read():
            if not held.takes(label, text):
                yield label, text
        if len(held.seen) > 1:
            held.check(self._positive(held.seen))

    def _positive(self, seen: Counter[str]) -> str:
        labels = sorted(seen)
        label = self.positive
        if label is None:
            label = POSITIVE.get(frozenset(labels))
        elif label not in labels:
            raise TamisError(
                f"positive: no text has the label {label}; there are {', '.join(labels)}"
            )
        if label is None:
            raise TamisError(f"positive: say which label is the positive one: {', '.join(labels)}")
        return label

    def _read(self) -> Iterator[tuple[str, str]]:
        for entry in self.data:
            yield from labelled_texts(entry, self.label)
        for entry in self.positives:
            yield from (("hq", text) for text in texts_of(entry))
        for entry in self.negatives:
            yield from (("cc", text) for text in texts_of(entry))


def texts_of(entry: Input) -> Iterator[str]:
    """The texts of an input in their order.

    Raises:
        TamisError: if a path leads nowhere or a document cannot be read.
    """
    for batch in _batches(entry.model_copy(update={"columns": {}})):
        yield from filter(None, batch.column(TEXT).to_pylist())


def labelled_texts(entry: Input, key: str) -> Iterator[tuple[str, str]]:
    """(label, text) of the documents of an input; a label is a word or a whole number.

    Raises:
        TamisError: if a path leads nowhere, a document cannot be read, or has no label.
    """
    for batch in _batches(entry):
        if key not in batch.schema.names:
            raise TamisError(f"{entry.paths[0]}: no column {key}{nearest(key, batch.schema.names)}")
        column = batch.column(key)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if not (pa.types.is_integer(column.type) or _is_string(column.type)):
            raise TamisError(f"{entry.paths[0]}: {key} is {column.type}, not words or numbers")
        labels = pc.cast(column, pa.string()).to_pylist()
        ids, texts = batch.column(ID).to_pylist(), batch.column(TEXT).to_pylist()
        for id_, label, text in zip(ids, labels, texts, strict=True):
            if not label:
                raise TamisError(f"{entry.paths[0]}: the document {id_} has no {key}")
            if text:
                yield label.removeprefix("__label__"), text


def _is_string(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _batches(entry: Input) -> Iterator[pa.RecordBatch]:
    entry = entry.model_copy(update={"path": [shards_of(path) for path in entry.paths]})
    files = list_files(entry)
    schema = declare_schema(entry, files)
    for part in plan_slices(entry, files=files).slices:
        for batch in read_slice(part, entry, schema):
            if isinstance(batch, BadRecord):
                raise TamisError(f"{part.path}, {batch.position}: {batch.reason}")
            if isinstance(batch, pa.RecordBatch):
                yield batch


class _HeldOut:
    """Sorts the texts that are measured out of those that are trained on."""

    def __init__(self, part: float) -> None:
        self.below = int(part * 2**64)
        self.trained: Counter[str] = Counter()
        self.labels: list[str] = []
        self.texts: list[str] = []

    @property
    def seen(self) -> Counter[str]:
        """How many texts have each label."""
        return self.trained + Counter(self.labels)

    def takes(self, label: str, text: str) -> bool:
        """Whether this text is held out; which then keeps it."""
        out = xxhash.xxh3_64_intdigest(text.encode(errors="replace")) < self.below
        if out:
            self.labels.append(label)
            self.texts.append(text)
        else:
            self.trained[label] += 1
        return out

    def check(self, positive: str) -> None:
        """TamisError unless there are texts of both kinds to train on and to measure."""
        measured = {label == positive for label in self.labels}
        trained = {label == positive for label in self.trained}
        if len(measured) < 2 or len(trained) < 2:
            raise TamisError(
                f"of {self.seen.total():,} texts {self.seen[positive]:,} are {positive}: too few "
                f"to train on both kinds and to measure both on held_out = {self.below / 2**64:g}"
            )

    def measure(self, path: Path, positive: str) -> Quality:
        """The quality of a model on the texts held out, copies counted once."""
        once = sorted({text: row for row, text in reversed([*enumerate(self.texts)])}.values())
        truth = np.array([self.labels[row] == positive for row in once], np.bool_)
        documents = as_documents([self.texts[row] for row in once])
        said = load_model(path).predict_documents(documents, (positive,))
        order = said.scores[:, 0] if np.isnan(said.log_odds).all() else said.log_odds[:, 0]
        return measure_quality(order, said.scores[:, 0], truth, said.words)


def measure_quality(
    order: NDArray[np.float64],
    probability: NDArray[np.float64],
    positive: NDArray[np.bool_],
    tokens: NDArray[np.int64],
) -> Quality:
    """How good scores are, by which texts are put in ``order``, for texts of so many ``tokens``."""
    return Quality(
        len(positive),
        int(positive.sum()),
        area_under_curve(order, positive),
        precision_at_top(order, positive, tokens, TOP),
        calibration_error(probability, positive),
    )


def precision_at_top(
    order: NDArray[np.float64],
    positive: NDArray[np.bool_],
    tokens: NDArray[np.int64],
    share: float,
) -> float:
    """The part of positive tokens among the best ``share`` of all tokens, ties in their order."""
    best = np.argsort(-order, kind="stable")
    behind = np.cumsum(tokens[best])
    wanted = share * behind[-1]
    taken = np.clip(wanted - (behind - tokens[best]), 0, tokens[best])
    return float(taken[positive[best]].sum() / wanted)


def calibration_error(probability: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """See ``Quality``."""
    order = np.argsort(probability, kind="stable")
    groups = np.array_split(order, min(_BINS, len(order)))
    gaps = [abs(probability[rows].mean() - positive[rows].mean()) for rows in groups]
    return float(np.average(gaps, weights=[len(rows) for rows in groups]))


def _told(made: FitFastText, positive: str, held: _HeldOut, quality: Quality) -> str:
    trained = held.trained[positive] / held.trained.total()
    lines = [
        f"{positive}: AUC {quality.auc:.3f} on {quality.texts:,} texts held out, "
        f"{quality.positive:,} of them {positive}",
        f"of the best {TOP:.0%} of the tokens {quality.precision_at_top:.1%} are {positive}",
        f"probabilities are off by {quality.calibration_error:.3f} in the mean, where as many "
        f"are {positive} as in the training ({trained:.0%}); in a corpus with fewer they are too "
        "high: select a share of the tokens, not what is above 0.5",
    ]
    if made.training.threads > 1:
        lines.append(
            f"trained by {made.training.threads} threads without locks (Hogwild): the same data "
            "will not give the same file again"
        )
    lines.append(f"\ntrained on {held.trained.total():,} texts: {made.output}")
    return "\n".join(lines)
