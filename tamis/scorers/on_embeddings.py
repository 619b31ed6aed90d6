"""What scorers have in common that look at embeddings with a model that ``tamis fit`` wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np

from tamis.embedding import Embedder, Embedding
from tamis.embedding.embedder import Float32, Int64, unit_vectors
from tamis.filters.once import once
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError, TamisError
from tamis.pipeline.stages import Measure
from tamis.scorers.arrays import Stored


class OnEmbeddings(Measure):
    """A measure of unit vectors, by arrays that are kept with the name of their embedder."""

    width_of: ClassVar[str]
    """The array whose last axis is as long as a vector."""

    model: Path
    embedding: Embedding | None = None

    load_model: ClassVar[Callable[[Path], Stored]]
    """Reads the file."""

    def requires(self) -> tuple[str, ...]:
        if self.embedding is not None:
            return self.embedding.requires()
        return self._embedder().requires() if self.model.is_file() else ()

    def models(self) -> tuple[Path, ...]:
        if not self.model.is_file():
            return (self.model,)
        try:
            return (self.model, *self._embedder().models())
        except TamisError as error:
            raise RecipeError(f"{self.name}: {error}") from None

    def vectors_of(self, documents: Documents) -> tuple[Int64, Float32]:
        """(rows, unit vectors) of the documents that are alive and have a vector.

        Raises:
            TamisError: if the model was made with vectors of another length.
        """
        alive = np.flatnonzero(documents.alive)
        vectors = unit_vectors(self._embedder().embed(documents, alive))
        some = np.flatnonzero(vectors.any(axis=1)) if vectors.size else np.zeros(0, np.int64)
        if len(some):
            width = self._stored().arrays[self.width_of].shape[-1]
            if width != vectors.shape[1]:
                raise TamisError(
                    f"{self.model} was made with vectors of {width} numbers, and this embedding "
                    f"gives {vectors.shape[1]}"
                )
        return alive[some], vectors[some]

    def _stored(self) -> Stored:
        return once(type(self).load_model, self.model, "there is no model {path}")

    def _embedder(self) -> Embedder:
        return self._stored().embedder() if self.embedding is None else self.embedding
