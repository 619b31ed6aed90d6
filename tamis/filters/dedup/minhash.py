"""Near-duplicates: MinHash signatures of word shingles, banded (LSH).

The hashes are defined in ``shingles`` and ``signatures``. Without ``verify``, documents that share
a band are duplicates, and some of them are less similar than the banding is made for
(``banding.candidate_probability`` says how many); with it, no duplicate is less similar to the
document that is kept for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from tamis.filters.dedup.band_table import key_ranges
from tamis.filters.dedup.banding import optimal_banding
from tamis.filters.dedup.components import Components
from tamis.filters.dedup.datatrove import permutations61, signatures61, word_shingles
from tamis.filters.dedup.duplicates import Clusters, Deduplication
from tamis.filters.dedup.shingle_sets import (
    ShingleSets,
    distinct_of_each,
    shingle_sets,
    signatures_of_units,
    units_of,
)
from tamis.filters.dedup.signatures import Permutations, band_keys, permutations, signatures
from tamis.filters.dedup.summary_columns import (
    take_column,
    take_list_lengths,
    take_numbers,
)
from tamis.filters.dedup.types import Int64, UInt32, UInt64
from tamis.filters.dedup.verification import groups_of_clusters, split_clusters
from tamis.filters.text.words import Profile, words
from tamis.pipeline.documents import Documents
from tamis.pipeline.errors import RecipeError
from tamis.pipeline.stages import Quantity, Summaries, fraction

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
_SHINGLES = "shingles"
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
    verify: float | None = Field(default=None, gt=0, le=1)
    """A duplicate must have this exact Jaccard similarity to the document that is kept for it: see
    ``verification``. The summaries then hold the shingles of every document, 4 bytes each.
    """
    seed: int = Field(default=1, ge=0, lt=2**64)
    """Of the permutations. Signatures of different seeds cannot be compared."""
    compat: Literal["datatrove"] | None = None
    """Signatures equal to datatrove's (module ``datatrove``): spaCy's English words of simplified
    text, whatever ``words`` says. Needs the extra ``spacy``.
    """
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

        if self.compat is not None:
            if self.unit != "word":
                raise RecipeError(f"{self.name}: compat: {self.compat} has shingles of words")
            if self.seed >= 2**32:
                raise RecipeError(f"{self.name}: compat: {self.compat} needs a seed below 2^32")

    def needs_processes(self) -> bool:
        return self.compat is not None

    def _solve(self, given: dict[str, int]) -> None:
        threshold = _THRESHOLD if self.threshold is None else self.threshold
        count = _PERMUTATIONS if self.permutations is None else self.permutations
        try:
            bands, rows = optimal_banding(threshold, count, **given)
        except ValueError as error:
            raise RecipeError(f"{self.name}: {error}; raise permutations") from error
        object.__setattr__(self, "bands", bands)
        object.__setattr__(self, "rows", rows)

    def signatures(
        self, documents: Documents, rows: Int64 | None = None
    ) -> tuple[UInt32 | UInt64, UInt32]:
        """(signature, length) of the documents in ``rows`` (default: all): their MinHash, shape
        (rows, permutations), uint32 (uint64 with ``compat``), and how many words (or characters)
        they have.
        """
        rows = np.arange(len(documents)) if rows is None else rows
        if self.compat is not None or self.unit == "character":
            return self._sketch(documents, rows, with_sets=False)[:2]
        spans = words(documents, self.words)
        data, _ = documents.utf8()
        found = spans.first, spans.start, spans.end
        return signatures(data, found, rows, self.ngram, self._permutations())

    def _permutations(self) -> Permutations:
        return permutations(self.bands * self.rows, self.seed)

    def _sketch(
        self, documents: Documents, rows: Int64, with_sets: bool
    ) -> tuple[UInt32 | UInt64, UInt32, ShingleSets | None]:
        """(signature, length, sets of shingles) by way of the shingles."""
        if self.compat is not None:
            shingles = word_shingles(documents, rows, self.ngram)
            permuted = permutations61(self.bands * self.rows, self.seed)
            # Sets are of 32-bit hashes, as without compat: half of the memory.
            low = shingles.value.astype(np.uint32) if with_sets else None
            sets = None if low is None else distinct_of_each(shingles.first, low)
            return signatures61(shingles, permuted), shingles.words.astype(np.uint32), sets
        units = units_of(documents, rows, self.unit, self.words)
        signature = signatures_of_units(units, self.ngram, self._permutations())
        sets = shingle_sets(units, self.ngram) if with_sets else None
        return signature, np.diff(units.first).astype(np.uint32), sets

    def provides(self) -> tuple[Quantity, ...]:
        known = "exact" if self.verify is not None else "estimated from equal bands"
        similarity = fraction(
            "similarity", f"Jaccard similarity to the document that is kept for it, {known}"
        )
        return (*super().provides(), similarity)

    def keys(self, documents: Documents, rows: Int64) -> dict[str, pa.Array]:
        sets = None
        if self.verify is None:
            signature, lengths = self.signatures(documents, rows)
        else:
            signature, lengths, sets = self._sketch(documents, rows, with_sets=True)
        columns = {"words": pa.array(lengths)}
        for band, key in enumerate(band_keys(signature, self.bands)):
            columns[_band_name(band)] = pa.array(key)
        if sets is not None:
            columns[_SHINGLES] = pa.LargeListArray.from_arrays(sets.first, sets.value)
        return columns

    def _shortest(self) -> int:
        """Words (or characters) that a document needs to have a signature that counts."""
        return self.min_length if self.compat is None else max(self.min_length, self.ngram)

    def join(self, summaries: Summaries, components: Components) -> None:
        self._join(summaries, components, None)

    def _join(self, summaries: Summaries, components: Components, folder: Path | None) -> None:
        length = len(components.parent)
        for band in range(self.bands):
            for part in key_ranges(summaries, _band_name(band), self._shortest(), length, folder):
                components.join_keys(part.key, part.document)

    def clusters(self, summaries: Summaries, length: int, folder: Path | None) -> Clusters:
        components = Components(length)
        self._join(summaries, components, folder)
        found = self.in_keep_order(summaries, components, length)
        if self.verify is not None:
            return verified(summaries, found, self.verify)
        return self._with_estimates(summaries, found)

    def _with_estimates(self, summaries: Summaries, found: Clusters) -> Clusters:
        """Similarities from the share of bands that agree, which is J^rows on average; 0 if none
        does, as may happen to documents that others connect.
        """
        equal = np.zeros(len(found.member), np.int64)
        for band in range(self.bands):
            key = take_numbers(summaries, _band_name(band), found.member, np.uint64)
            equal += key == key[found.first_of_each()]
        estimate = (equal / self.bands) ** (1 / self.rows)
        return replace(found, similarity=found.of_duplicates(estimate))


def verified(summaries: Summaries, found: Clusters, threshold: float) -> Clusters:
    """The clusters of ``verification``, from those that banding gave, some of them at a time."""
    bounds = found.bounds()
    sizes = take_list_lengths(summaries, _SHINGLES, found.member)
    keeper = np.arange(len(found.member))
    similarity = np.full(len(found.member), np.nan)
    for low, high in groups_of_clusters(bounds, sizes):
        part = slice(bounds[low], bounds[high])
        lists = take_column(summaries, _SHINGLES, found.member[part], pa.large_list(pa.uint32()))
        sets = lists.offsets.to_numpy(), lists.values.to_numpy()
        always = found.indexed_members()[part]
        stars = split_clusters(bounds[low : high + 1] - part.start, sets, always, threshold)
        keeper[part] = stars.keeper + part.start
        similarity[part] = stars.similarity
    order = np.argsort(keeper, kind="stable")
    order = order[np.bincount(keeper, minlength=len(keeper))[keeper[order]] > 1]
    return replace(
        found,
        member=found.member[order],
        label=keeper[order],
        similarity=similarity[order],
    )


def _band_name(band: int) -> str:
    return f"band_{band:02d}"
