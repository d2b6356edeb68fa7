"""Mutants of the dense layer."""

import numpy as np

from ...impls import load
from ..planted import Planted, planting

correct = load("numpy").module
MUTANTS: list[Planted] = []
mutant = planting(MUTANTS, "dense")


def tf32(a):
    """The operand as a tensor core reads it: 11 significant bits, the rest cut off."""
    return (np.ascontiguousarray(a).view(np.int32) & ~np.int32(0x1FFF)).view(np.float32)


@mutant()
def tf32_operands_declared_float32(x, W, b, activation="identity"):
    """The default of compiled Triton and of cuBLAS under allow_tf32."""
    return correct.dense(tf32(x), tf32(W), b, activation=activation)


@mutant("gradient")
def dW_transposed_as_the_document_writes_it(x, W, b, dy, activation="identity"):
    """Erratum 2, in the one case in which the shapes do not tell."""
    dx, dW, db = correct.dense_vjp(x, W, b, dy, activation=activation)
    return dx, dW.T.copy() if dW.shape[0] == dW.shape[1] else dW, db
