"""Near-duplicates: MinHash signatures of word shingles, banded (LSH).

The hashes are defined in ``shingles`` and ``signatures``. Pairs are not verified: of two documents
that share a band, a few are less similar than the banding is made for (``candidate_probability``
says how many).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.filters.dedup.components import Components
from tamis.filters.dedup.duplicates import Deduplication, read_column
from tamis.filters.dedup.signatures import band_keys, permutations, signatures
from tamis.filters.dedup.types import Int64, UInt32
from tamis.filters.text.words import Profile, words
from tamis.pipeline.documents import Documents
from tamis.pipeline.stages import Summaries


class MinHash(Deduplication):
    """Drop documents whose shingles are mostly those of another document.

    The default banding is FineWeb's: 14 bands of 8 rows find pairs of similarity 0.7 / 0.8 / 0.9
    with probability 0.56 / 0.92 / 0.9996. A shingle is ``ngram`` consecutive words without case and
    punctuation; a document of fewer words is one shingle of all its words, so copies of short
    documents are found; a document without any word is nobody's duplicate.
    """

    kind: ClassVar[str] = "minhash"

    ngram: int = Field(default=5, ge=1)
    """Words in a shingle."""
    bands: int = Field(default=14, ge=1)
    rows: int = Field(default=8, ge=1)
    """Signature positions in a band: all have to agree. More rows find fewer pairs, more bands find
    more.
    """
    seed: int = Field(default=1, ge=0, lt=2**64)
    """Of the permutations. Signatures of different seeds cannot be compared."""
    words: Profile = "whitespace"
    """How text is cut into words. Choose ``unicode`` for text without spaces between words (zh, ja,
    th).
    """

    def signatures(self, documents: Documents, rows: Int64 | None = None) -> tuple[UInt32, UInt32]:
        """(signature, words) of the documents in ``rows`` (default: all); see
        ``signatures.signatures``.
        """
        spans = words(documents, self.words)
        data, _ = documents.utf8()
        rows = np.arange(len(documents)) if rows is None else rows
        permuted = permutations(self.bands * self.rows, self.seed)
        return signatures(data, (spans.first, spans.start, spans.end), rows, self.ngram, permuted)

    def keys(self, documents: Documents, rows: Int64) -> dict[str, pa.Array]:
        signature, counts = self.signatures(documents, rows)
        columns = {"words": pa.array(counts)}
        for band, keys in enumerate(band_keys(signature, self.bands)):
            columns[_band_name(band)] = pa.array(keys)
        return columns

    def join(self, summaries: Summaries, components: Components) -> None:
        present = read_column(summaries, "words", np.uint32) > 0
        for band in range(self.bands):
            key = read_column(summaries, _band_name(band), np.uint64)
            components.join(key, key, present)


def _band_name(band: int) -> str:
    return f"band_{band:02d}"
