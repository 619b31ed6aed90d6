"""The compact refiner as a writer of programs: ``writer: {model: FILE}``, null for the one that
comes along.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tamis.filters.refine.embedded import DEFAULT, load_refiner, refiner_identity
from tamis.filters.refine.writers import ProgramWriter
from tamis.pipeline.documents import Documents


class Tagger(ProgramWriter):
    """Programs of a refiner that ``tamis fit refiner`` trained."""

    kind: ClassVar[str] = "model"

    model: Path | None = None
    """The ``.npz`` file; null for the refiner that comes along (docs/refine.md has its card)."""

    def document_programs(self, documents: Documents) -> list[str]:
        return load_refiner(self._path()).document_programs(documents)

    def chunk_programs(self, documents: Documents) -> list[str]:
        return load_refiner(self._path()).chunk_programs(documents)

    def identity(self) -> str:
        return refiner_identity(self._path())

    def models(self) -> tuple[Path, ...]:
        return (self._path(),)

    def needs_processes(self) -> bool:
        return False

    def _path(self) -> Path:
        return self.model or DEFAULT
