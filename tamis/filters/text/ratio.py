"""Fractions as Python has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """``part / whole`` in double precision; NaN (not applicable) for 0 / 0 and where ``part`` is
    negative, inf for n / 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        result: NDArray[np.float64] = np.true_divide(part, whole, dtype=np.float64)
    result[np.asarray(part) < 0] = np.nan
    return result
