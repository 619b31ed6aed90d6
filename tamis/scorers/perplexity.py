"""How well a language model predicts a document: perplexity and bits per byte.

    perplexity = exp(nats / tokens)          bits per byte = nats / (ln 2 x bytes)

Which perplexities are good depends on the corpus: CCNet (Wenzek et al. 2020, arXiv:1911.00359) cuts
it at the 30th and 60th percentile into head, middle and tail; Marion et al. 2023 (arXiv:2309.04564)
keep the middle, Ankner et al. 2024 (arXiv:2405.20541) the middle or the high part. The lowest are
boilerplate, lists and repeated lines, the highest noise. So this stage only measures; ``select``
keeps a fraction or a band of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError
from tamis.pipeline.stages import Measure, Measures, Quantity, count
from tamis.scorers.ccnet import ccnet_normalize
from tamis.scorers.language_models import ModelSetting, Predicted, open_language_model

Normalize = Literal["none", "ccnet", "ccnet_compatible"]


class Perplexity(Measure):
    """Adds the perplexity of each document under a language model, and drops nothing.

    A document without text, or of which normalisation leaves nothing, has no perplexity (NaN).
    """

    kind: ClassVar[str] = "perplexity"

    model: Path
    """A folder with a causal model (a training of ours, or one that transformers loads), or a KenLM
    file.
    """
    pieces: Path | None = None
    """The SentencePiece model of a KenLM model of pieces, as CCNet's are."""
    normalize: Normalize = "none"
    """``ccnet``: the text as CCNet's models want it; ``ccnet_compatible``: also with the words of
    adjacent lines joined, as CCNet does.
    """
    lines: bool = False
    """Each line is a sentence of its own to a KenLM model (as data-juicer does); nats and tokens
    are added up. By default the document is one sentence.
    """
    unit: Literal["token", "byte", "character"] = "token"
    """Perplexity per token of the model (of KenLM: words or pieces, and the end), or per byte or
    character of the text, which can be compared between tokenizers.
    """
    context: int | None = Field(default=None, ge=1)
    """Tokens that are seen at once; all that the model can by default."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens between two windows; half the context by default."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def setting(self) -> ModelSetting:
        """The model and how it is asked."""
        names = ("model", "pieces", "context", "stride", "device")
        return ModelSetting(**{name: getattr(self, name) for name in names})

    def provides(self) -> tuple[Quantity, ...]:
        return (
            Quantity("score", "score", f"perplexity per {self.unit}", 1.0),
            Quantity("bits_per_byte", "score", "bits of the model per byte of text"),
            count("tokens", "tokens that the model predicted"),
        )

    def models(self) -> tuple[Path, ...]:
        path = self.setting.path()
        if self.lines and not self.setting.is_ngram:
            raise RecipeError(f"lines: true is for n-gram models, and {self.model} is none")
        return (path,) if self.pieces is None else (path, self.pieces)

    def needs_processes(self) -> bool:
        # KenLM and the text for it hold the interpreter lock; torch has threads of its own.
        return self.setting.is_ngram

    def measure(self, documents: Documents) -> Measures:
        rows = np.flatnonzero(documents.alive)
        texts = [_normalized(one or "", self.normalize) for one in _texts(documents, rows)]
        found = self._predict(texts)
        size = np.array([len(one.encode()) for one in texts], np.int64)
        units = {
            "token": found.tokens,
            "byte": size,
            "character": np.array([len(one) for one in texts], np.int64),
        }
        tokens = np.zeros(len(documents), np.int64)
        tokens[rows] = found.tokens
        return {
            "score": _spread(np.exp(_per(found.nats, units[self.unit])), rows, len(documents)),
            "bits_per_byte": _spread(_per(found.nats, size) / math.log(2), rows, len(documents)),
            "tokens": tokens,
        }

    def _predict(self, texts: Sequence[str]) -> Predicted:
        model = open_language_model(self.setting)
        if not (self.lines and self.setting.is_ngram):
            return model.nats(texts)
        split = [text.splitlines() for text in texts]
        owner = np.repeat(np.arange(len(texts)), [len(one) for one in split])
        found = model.nats([line for lines in split for line in lines])
        nats = np.bincount(owner, found.nats, len(texts)).astype(np.float64)
        tokens = np.bincount(owner, found.tokens, len(texts)).astype(np.int64)
        return Predicted(nats, tokens)


def _texts(documents: Documents, rows: NDArray[np.int64]) -> list[str | None]:
    texts: list[str | None] = documents.text.take(rows).to_pylist()
    return texts


def _normalized(text: str, how: Normalize) -> str:
    return text if how == "none" else ccnet_normalize(text, how == "ccnet_compatible")


def _per(nats: NDArray[np.float64], units: NDArray[np.int64]) -> NDArray[np.float64]:
    """NaN where nothing was predicted."""
    found = np.full(len(nats), np.nan)
    np.divide(nats, units, out=found, where=units > 0)
    return found


def _spread(values: NDArray[np.float64], rows: NDArray[np.int64], length: int) -> Any:
    spread = np.full(length, np.nan)
    spread[rows] = values
    return spread
