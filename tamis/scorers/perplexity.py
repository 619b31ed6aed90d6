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
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError
from tamis.pipeline.stages import Measure, Measures, Quantity, count
from tamis.scorers.ccnet import ccnet_normalize
from tamis.scorers.language_models import ModelSetting, open_language_model

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
        rows, total = np.flatnonzero(documents.alive), len(documents)
        texts = [one or "" for one in documents.text.take(rows).to_pylist()]
        split = [sentences(one, self.normalize, self.lines) for one in texts]
        row = np.repeat(rows, [len(one) for one in split])
        flat = [sentence for one in split for sentence in one]
        found = open_language_model(self.setting).nats(flat)
        nats, tokens, bytes_, characters = (
            np.bincount(row, values, total)
            for values in (
                *(found.nats, found.tokens),
                *([len(one.encode()) for one in flat], [len(one) for one in flat]),
            )
        )
        units = {"token": tokens, "byte": bytes_, "character": characters}[self.unit]
        return {
            "score": np.exp(_ratio(nats, units, tokens > 0)),
            "bits_per_byte": _ratio(nats, bytes_, tokens > 0) / math.log(2),
            "tokens": tokens.astype(np.int64),
        }


def sentences(text: str, normalize: Normalize, lines: bool) -> list[str]:
    """What the model is given of a document: each line by itself, or the whole."""
    parts = text.splitlines() if lines else [text]
    if normalize == "none":
        return parts
    return [ccnet_normalize(one, normalize == "ccnet_compatible") for one in parts]


def _ratio(
    nats: NDArray[Any], units: NDArray[Any], where: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """NaN where nothing was predicted."""
    found = np.full(len(nats), np.nan)
    np.divide(nats, units, out=found, where=where)
    return found
