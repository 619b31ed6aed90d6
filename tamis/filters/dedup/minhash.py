"""Near-duplicates: MinHash signatures of word shingles, banded (LSH).

The hashes are defined in ``shingles`` and ``signatures``. Pairs are not verified: of two documents
that share a band, a few are less similar than the banding is made for (``candidate_probability``
says how many).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from tamis.filters.dedup.banding import optimal_banding
from tamis.filters.dedup.components import Components
from tamis.filters.dedup.duplicates import Deduplication, read_column
from tamis.filters.dedup.shingle_sets import signatures_of_units, units_of
from tamis.filters.dedup.signatures import band_keys, permutations, signatures
from tamis.filters.dedup.types import Int64, UInt32
from tamis.filters.text.words import Profile, words
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError
from tamis.pipeline.stages import Summaries

PRESETS: dict[str, dict[str, Any]] = {
    "fineweb": {"unit": "word", "ngram": 5, "bands": 14, "rows": 8},
    "curator": {"unit": "character", "ngram": 24, "bands": 20, "rows": 13},
    "text-dedup": {
        "unit": "word",
        "ngram": 5,
        "min_length": 5,
        "threshold": 0.7,
        "permutations": 240,
    },
}
"""The settings of FineWeb (datatrove), NeMo Curator and text-dedup; hashes are ours."""

_BANDING = ("bands", "rows")
_SOLVED = ("threshold", "permutations")
_THRESHOLD = 0.7
_PERMUTATIONS = 128


class MinHash(Deduplication):
    """Drop documents whose shingles are mostly those of another document.

    The default banding is FineWeb's: 14 bands of 8 rows find pairs of similarity 0.7 / 0.8 / 0.9
    with probability 0.56 / 0.92 / 0.9996. A shingle is ``ngram`` consecutive words without case and
    punctuation; a document of fewer words is one shingle of all its words, so copies of short
    documents are found; a document without any word is nobody's duplicate.
    """

    kind: ClassVar[str] = "minhash"

    preset: Literal["fineweb", "curator", "text-dedup"] | None = None
    """Settings by the name of the project that published them (``PRESETS``); what is set beside it
    wins.
    """
    ngram: int = Field(default=5, ge=1)
    """Words (or characters) in a shingle."""
    unit: Literal["word", "character"] = "word"
    """What a shingle is made of. Characters count as they are, with case, punctuation and white
    space.
    """
    min_length: int = Field(default=1, ge=1)
    """Words (or characters) below which a document is nobody's duplicate."""
    bands: int = Field(default=14, ge=1)
    rows: int = Field(default=8, ge=1)
    """Signature positions in a band: all have to agree. More rows find fewer pairs, more bands find
    more.
    """
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Choose bands and rows for this Jaccard similarity (``banding.optimal_banding``), from so many
    ``permutations`` (128). Bands and rows that are set win.
    """
    permutations: int | None = Field(default=None, ge=1, le=4096)
    """Positions that bands and rows may have together, for the ``threshold`` (0.7)."""
    seed: int = Field(default=1, ge=0, lt=2**64)
    """Of the permutations. Signatures of different seeds cannot be compared."""
    words: Profile = "whitespace"
    """How text is cut into words. Choose ``unicode`` for text without spaces between words (zh, ja,
    th).
    """

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, settings: Any) -> Any:
        """The settings of the preset below those that are given."""
        preset = settings.get("preset") if isinstance(settings, dict) else None
        if not isinstance(preset, str) or preset not in PRESETS:
            return settings
        known = PRESETS[preset]
        if any(settings.get(name) is not None for name in _SOLVED):
            known = {name: value for name, value in known.items() if name not in _BANDING}
        return {**known, **{name: value for name, value in settings.items() if value is not None}}

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        given = {name: getattr(self, name) for name in _BANDING if name in self.model_fields_set}
        if len(given) < 2 and (self.threshold is not None or self.permutations is not None):
            self._solve(given)

    def _solve(self, given: dict[str, int]) -> None:
        threshold = _THRESHOLD if self.threshold is None else self.threshold
        count = _PERMUTATIONS if self.permutations is None else self.permutations
        try:
            bands, rows = optimal_banding(threshold, count, **given)
        except ValueError as error:
            raise RecipeError(f"{self.name}: {error}; raise permutations") from error
        object.__setattr__(self, "bands", bands)
        object.__setattr__(self, "rows", rows)

    def signatures(self, documents: Documents, rows: Int64 | None = None) -> tuple[UInt32, UInt32]:
        """(signature, length) of the documents in ``rows`` (default: all): their MinHash, shape
        (rows, permutations), and how many words (or characters) they have.
        """
        rows = np.arange(len(documents)) if rows is None else rows
        permuted = permutations(self.bands * self.rows, self.seed)
        if self.unit == "character":
            units = units_of(documents, rows, self.unit, self.words)
            lengths = np.diff(units.first).astype(np.uint32)
            return signatures_of_units(units, self.ngram, permuted), lengths
        spans = words(documents, self.words)
        data, _ = documents.utf8()
        return signatures(data, (spans.first, spans.start, spans.end), rows, self.ngram, permuted)

    def keys(self, documents: Documents, rows: Int64) -> dict[str, pa.Array]:
        signature, counts = self.signatures(documents, rows)
        columns = {"words": pa.array(counts)}
        for band, keys in enumerate(band_keys(signature, self.bands)):
            columns[_band_name(band)] = pa.array(keys)
        return columns

    def join(self, summaries: Summaries, components: Components) -> None:
        present = read_column(summaries, "words", np.uint32) >= self.min_length
        for band in range(self.bands):
            key = read_column(summaries, _band_name(band), np.uint64)
            components.join(key, key, present)


def _band_name(band: int) -> str:
    return f"band_{band:02d}"
