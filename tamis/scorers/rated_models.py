"""What scorers that learn from the losses of rated models share: models with benchmark results, the
losses that they give documents, and the classifier of two kinds of documents.

The losses are kept beside the output, in ``OUTPUT.work``, as they are computed.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator

from tamis.filters.fasttext import load_model
from tamis.filters.toxicity.training import area_under_curve
from tamis.fit import Fit
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers.artefact import write_facts
from tamis.scorers.fasttext_training import FastTextSettings, train_classifier
from tamis.scorers.language_models import ModelSetting
from tamis.scorers.predictive_strength import check_distinct, check_models
from tamis.scorers.seed_documents import (
    PerGroup,
    SeedDocuments,
    draw_documents,
    model_losses,
    read_losses,
)

POSITIVE, NEGATIVE = "1", "0"
"""The labels of PreSelect's released classifier."""
FEWEST = 10
"""Documents of either kind below which nothing is trained."""
_SHOWN_GROUPS = 8

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class RatedModel(ModelSetting):
    """A model, or the losses that it gave, and how good it is."""

    model: Path = Path()
    losses: tuple[str, ...] = ()
    """Files of JSON lines instead of a model: ``{"id": ..., "nats": ...}``."""
    name: str = ""
    benchmark: float | Path
    """How good the model is, the higher the better; or where that stands: what ``tamis evaluate``
    wrote (its centered accuracy, else bits per byte), or a JSON file with a number, or with one for
    each benchmark, whose mean is taken.
    """

    @field_validator("losses", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    def model_post_init(self, context: Any, /) -> None:
        if (self.model == Path()) == (not self.losses):
            raise RecipeError("models: each has either a model or its losses")

    def label(self) -> str:
        """The name, else where the model or its losses are."""
        return self.name or (self.losses[0] if self.losses else str(self.model))


class Judged(NamedTuple):
    """Documents, and what models make of them."""

    documents: SeedDocuments
    losses: Float64
    """(models, documents), in nats of the whole document; NaN where it is not known."""
    benchmarks: list[float]
    names: list[str]


class Examples(NamedTuple):
    """What a classifier is trained on: numbers of documents."""

    positives: Int64
    negatives: Int64


class Trained(NamedTuple):
    """The classifier, in numbers."""

    positives: int
    negatives: int
    held_out: int
    auc: float


class FitFromLosses(Fit):
    """Trains a fastText classifier of documents that were chosen by the losses of models."""

    data: tuple[str, ...] = Field(min_length=1)
    """The documents that are judged: files of any format, folders and runs. They should not be
    among those that will be trained on.
    """
    models: tuple[RatedModel, ...] = Field(min_length=1)
    """In any order; six or more of one family."""
    min_tokens: int = Field(default=200, ge=1)
    """Shorter documents are left out, as noise orders their losses; a token counts as 4 bytes,
    whatever the tokenizers.
    """
    per_group: PerGroup | None = None
    """A sample of the documents: so many of each of the largest hosts. ``{}`` is PreSelect's: 300
    of each of 3,000. By default all documents are judged.
    """
    training: FastTextSettings = FastTextSettings.preset("preselect")
    """PreSelect's: epoch 5, pairs of words, ``</s>`` without weight. Its code has epoch 3."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """The part of the positives and negatives that the classifier is measured on."""
    seed: int = Field(default=0, ge=0)
    """Of the sample, and of which of equally good documents are taken."""
    work: Path | None = None
    """Where documents and losses are kept; by default beside the output."""

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def model_post_init(self, context: object, /) -> None:
        if self.output.suffix != ".bin":
            raise RecipeError(f"output = {self.output}: the name of a model ends in .bin")

    @abstractmethod
    def judge(self, judged: Judged) -> tuple[Examples, dict[str, Any], list[str]]:
        """(examples, what was measured, what to tell) from the losses."""

    def fit(self) -> str:
        names = [one.label() for one in self.models]
        benchmarks = benchmark_results(self.models)
        check_models(np.zeros((len(names), 0)), benchmarks)
        check_distinct(names, benchmarks)
        for one in self.models:
            if not one.losses:
                one.path()
        work = self.work or self.output.with_name(f"{self.output.name}.work")
        documents = draw_documents(self.data, work, self.min_tokens, self.per_group, self.seed)
        losses, cuts = self._losses(documents)
        missing = int(np.isnan(losses).any(axis=0).sum())
        if missing > len(documents) / 2:
            raise TamisError(
                f"{missing:,} of {len(documents):,} documents lack the loss of a model: are the "
                "files of losses complete, and their ids those of the data?"
            )
        chosen, found, told = self.judge(Judged(documents, losses, benchmarks, names))
        if min(map(len, chosen)) < FEWEST:
            raise TamisError(
                f"of {len(documents) - missing:,} documents {len(chosen.positives):,} are wanted, "
                f"and {len(chosen.negatives):,} are not; it takes {FEWEST} of each: give more "
                "data, or models that differ more"
            )
        trained = self._train(documents, chosen)
        groups = _groups(documents, chosen.positives)
        facts = {
            "models": dict(zip(names, benchmarks, strict=True)),
            "tokenizers": len(cuts),
            "documents": len(documents),
            **documents.drawn_from,
            "without_losses": missing,
            **found,
            **trained._asdict(),
            "groups": groups,
        }
        write_facts(self.output, "fasttext", {"label": POSITIVE}, self, facts)
        return "\n".join(
            [*told, *_notes(documents, len(cuts), missing, groups), self._said(trained)]
        )

    def _said(self, trained: Trained) -> str:
        return (
            f"trained on {trained.positives:,} positives and {trained.negatives:,} negatives, "
            f"AUC {trained.auc:.3f} on {trained.held_out:,} held out: {self.output}"
        )

    def _losses(self, documents: SeedDocuments) -> tuple[NDArray[np.float64], set[str]]:
        """((models, documents) nats, the tokenizers of those models that were opened here)."""
        losses, cuts = [], set()
        for one in self.models:
            if one.losses:
                found = read_losses(documents, one.losses)
            else:
                try:
                    found, cut = model_losses(documents, one)
                except TamisError as error:
                    raise type(error)(f"{one.label()}: {error}") from error
                cuts.add(cut)
            if np.isnan(found).all():
                raise TamisError(
                    f"{one.label()} has a loss for none of the {len(documents):,} documents: are "
                    "the ids those of the data?"
                )
            losses.append(found)
        return np.array(losses), cuts

    def _train(self, documents: SeedDocuments, chosen: Examples) -> Trained:
        labels = {int(row): POSITIVE for row in chosen.positives}
        labels |= {int(row): NEGATIVE for row in chosen.negatives}
        # Not by the order of the documents, which has chosen the negatives.
        draw = np.random.default_rng(self.seed).permutation(len(documents))
        held = {row for row in labels if draw[row] < self.held_out * len(documents)}
        kinds = Counter(labels[row] for row in held)
        if len(kinds) < 2:
            raise TamisError("too few documents to hold any out: raise held_out, or give more data")
        train_classifier(
            ((labels[row], text) for row, text in documents.texts(sorted(labels.keys() - held))),
            *(self.training, self.output),
        )
        rows, texts = zip(*documents.texts(sorted(held)), strict=True)
        truth = np.array([labels[row] == POSITIVE for row in rows])
        said = load_model(self.output).predict_text(pa.array(texts), (POSITIVE,))
        auc = area_under_curve(said.log_odds[:, 0], truth)
        learned = Counter(labels[row] for row in labels.keys() - held)
        return Trained(learned[POSITIVE], learned[NEGATIVE], len(held), auc)


def benchmark_results(models: tuple[RatedModel, ...]) -> list[float]:
    """How good each model is, the higher the better.

    Raises:
        RecipeError: if a file has no result, or the files have results of different kinds.
    """
    found = [_benchmark(one.benchmark) for one in models]
    kinds = {kind: one for (_, kind), one in zip(found, models, strict=True)}
    if len(kinds) > 1:
        one, other = sorted(kinds)[:2]
        raise RecipeError(
            f"the benchmark of {kinds[one].label()} is {one}, and that of "
            f"{kinds[other].label()} {other}: they cannot be compared"
        )
    return [value for value, _ in found]


def _benchmark(given: float | Path) -> tuple[float, str]:
    """(result, what it is)."""
    if not isinstance(given, Path):
        return given, "a number"
    path = given / "results.json" if given.is_dir() else given
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"the benchmark {path} cannot be read: {error}") from None
    if _is_number(content):
        return float(content), "a number"
    if isinstance(content, dict):
        if _is_number(content.get("centered_accuracy")):
            tasks = ", ".join(sorted(content.get("tasks") or {}))
            return float(content["centered_accuracy"]), f"the centered accuracy of {tasks}"
        if isinstance(content.get("all_sources"), dict):
            sources = ", ".join(sorted(content.get("sources") or {}))
            return -float(content["all_sources"]["bits_per_byte"]), f"bits per byte of {sources}"
        if content and all(map(_is_number, content.values())):
            mean = sum(content.values()) / len(content)
            return float(mean), f"the mean of {', '.join(sorted(content))}"
    raise RecipeError(
        f"the benchmark {path} is neither a number, nor one for each benchmark, nor what tamis "
        "evaluate writes"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _groups(documents: SeedDocuments, positives: Int64) -> dict[str, list[int]]:
    """Of the largest groups: (positives, documents), those with the largest share first."""
    all_of, of_positives = (
        Counter(documents.groups),
        Counter(documents.groups[i] for i in positives),
    )
    if len(all_of) < 2:
        return {}
    named = [one for one, _ in all_of.most_common(200)]
    named.sort(key=lambda one: (-of_positives[one] / all_of[one], one))
    return {one: [of_positives[one], all_of[one]] for one in named}


def _notes(
    documents: SeedDocuments, tokenizers: int, missing: int, groups: dict[str, list[int]]
) -> list[str]:
    """What the user should know about."""
    notes = []
    if documents.drawn_from["unreadable"]:
        notes.append(f"{documents.drawn_from['unreadable']:,} documents could not be read")
    if missing:
        notes.append(f"{missing:,} documents lack the loss of a model and were left out")
    if tokenizers > 1:
        notes.append(
            f"the models have {tokenizers} tokenizers; the nats of whole documents are compared, "
            "which do not depend on them, but models of different families add noise"
        )
    if groups:
        shown = [
            f"{name or '(none)'} {a}/{b}" for name, (a, b) in [*groups.items()][:_SHOWN_GROUPS]
        ]
        notes.append(f"largest shares of positives: {', '.join(shown)}")
    return notes
