"""Exact numbers: object arrays of Fraction, which NumPy's own loops evaluate. For polynomial operations."""

from fractions import Fraction
from typing import Any

import numpy as np


def rational(array: Any) -> np.ndarray:
    """The same finite numbers as Fractions."""
    array = np.asarray(array)
    exact = array.astype(np.float64) if array.dtype.kind != "i" else array
    return np.asarray(np.frompyfunc(Fraction, 1, 1)(exact.astype(object)), dtype=object)
