"""``tamis fit preselect``: a fastText classifier of the documents on which the losses of existing
models predict how good the models are (PreSelect; Shum et al. 2025, arXiv:2503.00808).

    data: [crawl_sample.jsonl.zst]             # not what will be trained on
    models:
      - {model: models/10M, benchmark: 0.312}
      - {model: models/30M, benchmark: results-30M}     # a folder or file of results
      - {losses: losses/7B.jsonl, benchmark: 0.587}     # computed elsewhere
    output: models/preselect.bin

Every document gets a predictive strength (``predictive_strength``). Those of strength 1 are the
positives, and as many of the lowest strengths the negatives; a fastText classifier learns to tell
them apart and scores the corpus. Losses are kept beside the output, in ``preselect.bin.work``, as
they are computed.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

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
from tamis.scorers.predictive_strength import (
    check_distinct,
    check_models,
    predictive_strength,
    reliability,
)
from tamis.scorers.seed_documents import (
    PerGroup,
    SeedDocuments,
    draw_documents,
    model_losses,
    read_losses,
)

POSITIVE, NEGATIVE = "1", "0"
"""The labels of the released classifier."""
FEWEST = 10
"""Positives below which nothing is trained."""
_SHOWN_GROUPS = 8

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


class FitPreSelect(Fit):
    """Trains the classifier, and says how far the order of the documents can be trusted."""

    kind: ClassVar[str] = "preselect"

    data: tuple[str, ...] = Field(min_length=1)
    """The documents that are judged: files of any format, folders and runs. They should not be
    among those that will be trained on.
    """
    models: tuple[RatedModel, ...] = Field(min_length=1)
    """From weak to strong or in any order; six of one family are what the paper has."""
    min_tokens: int = Field(default=200, ge=1)
    """Shorter documents are left out, as noise orders their losses; a token counts as 4 bytes,
    whatever the tokenizers.
    """
    per_group: PerGroup | None = None
    """A sample of the documents: so many of each of the largest hosts. ``{}`` is the paper's: 300
    of each of 3,000. By default all documents are judged.
    """
    training: FastTextSettings = FastTextSettings.preset("preselect")
    """The paper's: epoch 5, pairs of words, ``</s>`` without weight. Its code has epoch 3."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """The part of the positives and negatives that the classifier is measured on."""
    seed: int = Field(default=0, ge=0)
    """Of the sample, and of which negatives of equal strength are taken."""
    work: Path | None = None
    """Where documents and losses are kept; by default beside the output."""

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def model_post_init(self, context: object, /) -> None:
        if self.output.suffix != ".bin":
            raise RecipeError(f"output = {self.output}: the name of a model ends in .bin")

    def fit(self) -> str:
        names = [one.label() for one in self.models]
        benchmarks = benchmark_results(self.models)
        check_models(np.zeros((len(names), 0)), benchmarks)
        check_distinct(names, benchmarks)
        work = self.work or self.output.with_name(f"{self.output.name}.work")
        for one in self.models:
            if not one.losses:
                one.path()
        documents = draw_documents(self.data, work, self.min_tokens, self.per_group, self.seed)
        losses, cuts = self._losses(documents)
        strength = predictive_strength(losses, benchmarks)
        found = reliability(losses, benchmarks, documents.sizes, names)
        chosen = choose_examples(strength, documents.order)
        missing = int(np.isnan(strength).sum())
        _check(chosen, len(documents), missing)
        trained = self._train(documents, chosen)
        groups = _groups(documents, chosen.positives)
        facts = {
            "models": dict(zip(names, benchmarks, strict=True)),
            "tokenizers": len(cuts),
            "documents": len(documents),
            "without_losses": missing,
            "reliability": found.facts(),
            "highest_negative": chosen.highest_negative,
            **trained._asdict(),
            "groups": groups,
        }
        write_facts(self.output, "fasttext", {"label": POSITIVE}, self, facts)
        lines = [found.format(), *_notes(len(cuts), missing, chosen, groups)]
        lines.append(
            f"trained on {trained.positives:,} positives and {trained.negatives:,} negatives, "
            f"AUC {trained.auc:.3f} on {trained.held_out:,} held out: {self.output}"
        )
        return "\n".join(lines)

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


class Examples(NamedTuple):
    """What a classifier is trained on: numbers of documents."""

    positives: Int64
    negatives: Int64
    highest_negative: float
    """The highest predictive strength among the negatives."""


class Trained(NamedTuple):
    """The classifier, in numbers."""

    positives: int
    negatives: int
    held_out: int
    auc: float


def choose_examples(strength: NDArray[np.float64], order: NDArray[Any]) -> Examples:
    """The documents of strength 1, and as many of the lowest strengths (fewer if there are not as
    many others); of equal strengths those that come first in ``order``. A document without a
    strength (NaN) is neither.
    """
    positives = np.flatnonzero(strength == 1)
    others = np.flatnonzero(strength < 1)
    lowest = others[np.lexsort((order[others], strength[others]))][: len(positives)]
    highest = float(strength[lowest].max()) if len(lowest) else math.nan
    return Examples(positives, np.sort(lowest), highest)


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


def _check(chosen: Examples, documents: int, missing: int) -> None:
    if missing > documents / 2:
        raise TamisError(
            f"{missing:,} of {documents:,} documents lack the loss of a model: are the files of "
            "losses complete, and their ids those of the data?"
        )
    if min(len(chosen.positives), len(chosen.negatives)) < FEWEST:
        raise TamisError(
            f"{len(chosen.positives):,} of {documents - missing:,} documents order all models "
            f"rightly, and {len(chosen.negatives):,} others are there; it takes {FEWEST} of each: "
            "give more data, or models that differ more"
        )


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
    tokenizers: int, missing: int, chosen: Examples, groups: dict[str, list[int]]
) -> Iterator[str]:
    """What the user should know about."""
    if missing:
        yield f"{missing:,} documents lack the loss of a model and were left out"
    if tokenizers > 1:
        yield (
            f"the models have {tokenizers} tokenizers; the nats of whole documents are compared, "
            "which do not depend on them, but models of different families add noise"
        )
    if chosen.highest_negative > 0.5:
        yield (
            f"negatives have strengths up to {chosen.highest_negative:.2f}: most documents order "
            "the models rightly, and the classifier learns small differences"
        )
    if groups:
        shown = [
            f"{name or '(none)'} {a}/{b}" for name, (a, b) in [*groups.items()][:_SHOWN_GROUPS]
        ]
        yield f"largest shares of positives: {', '.join(shown)}"
