"""How much like its positive examples a fastText classifier takes a document to be.

Source: Joulin et al. 2016 (arXiv:1607.01759); as a filter of training data Li et al. 2024
(arXiv:2406.11794, DCLM), Shum et al. 2025 (arXiv:2503.00808, PreSelect), Mizrahi et al. 2025
(arXiv:2507.12466, BETR). The models they have released can be used as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from tamis.filters.fasttext import load_model
from tamis.filters.fasttext.model import read_labels
from tamis.filters.once import once
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.stages import Measure, Measures, Quantity
from tamis.scorers.artefact import facts_path, read_facts

DCLM_THRESHOLD = 0.018112
"""DCLM-Baseline keeps what its classifier scores at least so: about a tenth of its pool. It is so
low because half of the examples of the training are positive, and fewer of a crawl.
"""

POSITIVE = {frozenset({"hq", "cc"}): "hq", frozenset({"0", "1"}): "1"}
"""Which label is the positive one, where the two are those of DCLM or of PreSelect."""


class FastText(Measure):
    """Adds the probability of one label of a fastText classifier to the documents.

    The probability is the library's to 1e-5, and at most 1. A line break counts as a space, as in
    the training of the released models; a filter that leaves line breaks out glues words together
    that the model does not know. A document without a word has no score (NaN).
    """

    kind: ClassVar[str] = "fasttext"

    model: Path
    """A supervised fastText model (``.bin`` or ``.ftz``): one of ``tamis fit``, or a released
    one.
    """
    label: str | None = None
    """The label that is scored, with or without ``__label__``. Default: what ``tamis fit`` noted
    beside the model; ``hq`` of hq and cc (DCLM), ``1`` of 1 and 0 (PreSelect).
    """
    end_of_line: bool = True
    """Add the word ``</s>`` to every document, as the library does. False makes the score free of
    the length, but not that of other programs.
    """

    def provides(self) -> tuple[Quantity, ...]:
        return (
            Quantity("score", "score", "probability of the label", 0.0, 1.0),
            Quantity("logit", "score", "logarithm of its odds; tells ties apart", -np.inf),
        )

    def models(self) -> tuple[Path, ...]:
        if not self.model.is_file():
            return (self.model,)
        try:
            self.positive()
        except TamisError as error:
            raise RecipeError(f"{self.name}: {error}") from None
        facts = facts_path(self.model)
        return (self.model, facts) if facts.is_file() else (self.model,)

    def positive(self) -> str:
        """The label that is scored.

        Raises:
            TamisError: if it cannot be told, or the model has no such label.
        """
        labels = once(read_labels, self.model, "there is no model {path}")
        if self.label is not None:
            return _known(self.label, labels, self.model)
        noted = read_facts(self.model)
        if noted is not None and "label" in noted.settings:
            return _known(str(noted.settings["label"]), labels, self.model)
        label = POSITIVE.get(frozenset(labels))
        if label is None:
            raise TamisError(f"label: say which one of {self.model.name}: {_listed(labels)}")
        return label

    def measure(self, documents: Documents) -> Measures:
        label, model = self.positive(), load_model(self.model)
        said = model.predict_documents(documents, (label,), self.end_of_line)
        return {
            "score": np.where(said.words > 0, said.scores[:, 0], np.nan),
            "logit": np.where(said.words > 0, said.log_odds[:, 0], np.nan),
        }


def _known(label: str, labels: Sequence[str], model: Path) -> str:
    """The label without ``__label__``; TamisError if it is not among those of the model."""
    name = label.removeprefix("__label__")
    if name not in labels:
        raise TamisError(f"{model.name} has no label {name}; it has {_listed(labels)}")
    return name


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 20} more" if len(labels) > 20 else ""
    return ", ".join(labels[:20]) + more
