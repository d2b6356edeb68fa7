"""Mutants of softmax."""

import numpy as np

from ...impls import load
from ..planted import Planted, planting

correct = load("numpy").module
MUTANTS: list[Planted] = []
mutant = planting(MUTANTS, "softmax")


@mutant()
def sum_lost_at_1e7(x):
    """pytorch#11752: m + log Σ is m again."""
    m = np.max(x, axis=-1, keepdims=True)
    return np.exp(x - (m + np.log(np.sum(np.exp(x - m), axis=-1, keepdims=True))))


@mutant()
def no_maximum_subtracted(x):
    """pytorch#62897"""
    with np.errstate(all="ignore"):
        e = np.exp(x)
        return e / np.sum(e, axis=-1, keepdims=True)
