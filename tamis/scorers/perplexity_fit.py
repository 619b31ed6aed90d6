"""``tamis fit perplexity``: an n-gram language model of text that is known to be good.

    data: wikipedia.jsonl.zst
    output: models/wikipedia.arpa

As CCNet has it (Wenzek et al. 2020, arXiv:1911.00359): order 5, a document is one sentence; there
the words are SentencePiece pieces, ``pieces``, and the text is normalised. KenLM's ``build_binary``
makes a file of the ARPA file that is opened faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field, field_validator

from tamis.fit import Fit
from tamis.pipeline.documents import TEXT
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.scorers.artefact import write_facts
from tamis.scorers.language_models import split_words
from tamis.scorers.ngram import train_ngram
from tamis.scorers.perplexity import Normalize, Perplexity, sentences
from tamis.scorers.reading import Corpus

_MEASURED = 10_000
"""Held-out documents that are measured at most."""


class FitPerplexity(Fit):
    """Trains an n-gram model by modified Kneser-Ney smoothing, and measures it on documents held
    out: their 30th and 60th percentile of perplexity are where CCNet cuts head, middle and tail.
    """

    kind: ClassVar[str] = "perplexity"

    data: tuple[str, ...] = Field(min_length=1)
    """Good text: files of any format, folders and runs."""
    order: int = Field(default=5, ge=2, le=6)
    """Words that are looked at together. Memory grows with it: some 150 bytes a word and order."""
    pieces: Path | None = None
    """A SentencePiece model, whose pieces are then the words."""
    normalize: Normalize = "ccnet"
    """As of the stage ``perplexity``, which will do the same."""
    lines: bool = False
    """Each line is a sentence, instead of each document."""
    held_out: float = Field(default=0.05, gt=0, lt=1)
    """The part of the documents, by a hash of their text, that is measured and not learned from."""

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def model_post_init(self, context: object, /) -> None:
        if self.output.suffix != ".arpa":
            raise RecipeError(f"output = {self.output}: the name of an n-gram model ends in .arpa")
        if self.pieces is not None and not self.pieces.is_file():
            raise RecipeError(f"pieces: there is no file {self.pieces}")

    def fit(self) -> str:
        held: list[str] = []
        grams = train_ngram(self._sentences(held), self.order, self.output)
        settings = {
            "pieces": None if self.pieces is None else str(self.pieces),
            "normalize": self.normalize,
            "lines": self.lines,
        }
        stage = Perplexity(model=self.output, **settings)
        found = stage(pa.table({TEXT: held[:_MEASURED]})).column(f"{stage.name}.score").to_numpy()
        found = found[~np.isnan(found)]
        if not len(found):
            raise TamisError("no document was held out to measure: raise held_out")
        percentiles = {str(one): float(np.percentile(found, one)) for one in (10, 30, 60, 90)}
        facts = {"ngrams": grams, "held_out": len(found), "percentiles": percentiles}
        write_facts(self.output, "perplexity", settings, self, facts)
        shown = ", ".join(f"{one}th {value:.1f}" for one, value in percentiles.items())
        return (
            f"{grams:,} n-grams; perplexity of {len(found):,} documents held out, percentiles: "
            f"{shown}: {self.output}"
        )

    def _sentences(self, held: list[str]) -> Iterator[list[str]]:
        """What is learned from; the rest is put into ``held``."""
        cut = split_words(self.pieces)
        below = int(self.held_out * 2**64)
        for documents in Corpus(self.data, "data"):
            for text in filter(None, documents.text.to_pylist()):
                if xxhash.xxh3_64_intdigest(text.encode()) < below:
                    held.append(text)
                    continue
                for sentence in sentences(text, self.normalize, self.lines):
                    if words := cut(sentence):
                        yield words
