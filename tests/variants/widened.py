"""Functions of one format, computed in another, and what an eager framework declares."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...spec import Arithmetic


def widened(function: Callable[..., Any], dtype: Any, *arrays: np.ndarray, **parameters: Any) -> Any:
    """The function's results for the arrays in a wider format, each rounded once to the arrays' own."""
    storage = arrays[0].dtype
    result = function(*(a.astype(dtype) for a in arrays), **parameters)
    if isinstance(result, tuple):
        return tuple(np.asarray(a).astype(storage) for a in result)
    return np.asarray(result).astype(storage)


def eager(operation, dtype):
    """Every step is stored in the format of the arrays, as by a framework that runs a kernel for each."""
    return Arithmetic(dtype, intermediates=dtype, function_ulps=3.0)
