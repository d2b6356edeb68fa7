"""Mutants: correct implementations with one change each, which the suite must refuse. One file per operation.

A mutant names the property that kills it at the default profile. It is written as its change: around the NumPy backend's
function, to a line of its source, or to a line of a Triton kernel's. What is said of it is where the bug has been seen,
or what the slip is. Equivalent mutants are not listed.
"""

from ..planted import Planted
from . import attention, attention_vjp, conv2d, dense, lstm, maxpool2d, mse, multihead_attention, rnn, softmax, triton

_MODULES = (dense, mse, softmax, conv2d, maxpool2d, rnn, lstm, attention, attention_vjp, multihead_attention)
MUTANTS: tuple[Planted, ...] = (*(m for module in _MODULES for m in module.mutant.plants), *triton.PLANTS)
