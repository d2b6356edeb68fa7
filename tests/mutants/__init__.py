"""Mutants: correct implementations with one change each, which the suite must refuse. One file per operation.

A mutant names the property that kills it at the default profile. It is written as its change: around the NumPy backend's
function. Its docstring says where the bug has been seen, or what the slip is. Equivalent mutants are not listed.
"""

from ..planted import Planted
from . import dense, softmax

MUTANTS: tuple[Planted, ...] = (*dense.MUTANTS, *softmax.MUTANTS)
