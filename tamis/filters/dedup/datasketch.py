"""Signatures to and from datasketch.

Our permutations are those of datasketch's scheme ``affine32`` (2.0) with parameters of our own, so
its MinHash can hold our signatures: compare, merge and index them there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tamis.filters.dedup.signatures import permutations
from tamis.filters.dedup.types import UInt32
from tamis.pipeline.errors import TamisError

if TYPE_CHECKING:
    from datasketch import MinHash

_SCHEME = "affine32"


def to_datasketch(signature: UInt32, seed: int = 1) -> list[MinHash]:
    """A datasketch MinHash for each row of ``signature`` (documents, permutations), uint32.

    ``seed`` is that of the stage that made it.

    Raises:
        TamisError: if datasketch 2.0 is not installed, or the signatures are datatrove's.
    """
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise TamisError("to_datasketch needs datasketch: pip install 'datasketch>=2'") from error
    if signature.dtype != np.uint32:
        raise TamisError("datasketch has no permutations like those of compat: datatrove.")
    parameters = np.array(permutations(signature.shape[1], seed))
    try:
        return [
            MinHash(seed=seed, hashvalues=row, permutations=parameters, scheme=_SCHEME)
            for row in signature
        ]
    except TypeError as error:
        raise TamisError("to_datasketch needs datasketch 2.0 or later.") from error


def from_datasketch(sketches: Iterable[MinHash], seed: int = 1) -> UInt32:
    """The signatures, shape (documents, permutations), of sketches that ``to_datasketch`` made or
    that were merged from such.

    Raises:
        TamisError: if a sketch has other permutations than those of ``seed``.
    """
    rows = []
    for sketch in sketches:
        expected = np.array(permutations(len(sketch.hashvalues), seed))
        if sketch.scheme != _SCHEME or not np.array_equal(sketch.permutations, expected):
            raise TamisError(
                f"A datasketch MinHash has other permutations than seed {seed} of tamis: make "
                "sketches with to_datasketch, or give their permutations to MinHash."
            )
        rows.append(sketch.hashvalues)
    return np.array(rows, np.uint32)
