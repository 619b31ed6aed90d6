"""A Bloom filter over 128-bit hashes: what was seen before, in few bits a hash.

A hash sets k bits of m, and is taken for seen before if they were all set. With n hashes in it the
filter errs at the rate ``p = (1 - exp(-k n / m))^k`` (Bloom 1970), least for ``k = log2(1 / p)``:
10 bits set and 14.4 in all for each hash at p = 0.001. The k places come from the two halves of the
hash by enhanced double hashing (Dillinger and Manolios 2004).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tamis.filters.dedup.types import UInt64
from tamis.kernel import kernel
from tamis.pipeline.errors import TamisError


class BloomSettings(BaseModel):
    """The size of a Bloom filter, by what it has to hold and how often it may be wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expected: int = Field(gt=0)
    """Different hashes that it has to hold; with more of them it errs more often."""
    false_positive_rate: float = Field(default=1e-3, gt=0, lt=1)
    """The chance, once it holds the expected number, that a new hash is taken for one it holds.
    Until then it is smaller.
    """

    def bits(self) -> int:
        """m: the size that gives the rate for this k, rounded up to a multiple of 64."""
        filled = self.false_positive_rate ** (1 / self.probes())
        return 64 * math.ceil(-self.probes() * self.expected / math.log1p(-filled) / 64)

    def probes(self) -> int:
        """k: the bits that a hash sets."""
        return max(1, round(-math.log2(self.false_positive_rate)))


class BloomFilter:
    """A set of 128-bit hashes that may take a new one for one that it holds, never the reverse.

    Raises:
        TamisError: if it does not fit into memory.
    """

    def __init__(self, settings: BloomSettings) -> None:
        self.probes = settings.probes()
        try:
            self._words = np.zeros(settings.bits() // 64, np.uint64)
        except (MemoryError, ValueError):
            size = f"{settings.bits() / 8e9:,.1f} GB"
            raise TamisError(
                f"A Bloom filter of {settings.expected:,} hashes takes {size}, more than there is: "
                "lower expected, or raise false_positive_rate."
            ) from None
        self._inserted = 0

    def __len__(self) -> int:
        """The hashes inserted that it had not taken for one that it held."""
        return self._inserted

    def insert(self, hashes: UInt64) -> NDArray[np.bool_]:
        """Add the rows of ``hashes`` (n, 2) one after the other; for each, whether it seemed to be
        there.
        """
        seen = np.empty(len(hashes), np.bool_)
        _insert(self._words, self.probes, hashes, seen)
        self._inserted += int((~seen).sum())
        return seen

    def false_positive_rate(self) -> float:
        """The chance that the next new hash is taken for one it holds: the part of its bits that is
        set, to the power of ``probes``.
        """
        filled = int(np.bitwise_count(self._words).sum()) / (64 * len(self._words))
        return float(filled**self.probes)


@kernel
def _insert(words: UInt64, probes: int, hashes: UInt64, seen: NDArray[np.bool_]) -> None:
    size = np.uint64(64 * words.size)
    low_six, six = np.uint64(63), np.uint64(6)
    for i in range(hashes.shape[0]):
        place: Any = hashes[i, 0] % size
        step: Any = hashes[i, 1] % size
        known = True
        for probe in range(probes):
            bit = np.uint64(1) << (place & low_six)
            word = place >> six
            known &= (words[word] & bit) != 0
            words[word] |= bit
            place = (place + step) % size
            step = (step + np.uint64(probe + 1)) % size
        seen[i] = known
