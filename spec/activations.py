"""The activation functions φ and their derivatives, each written once.    (document §3.1.1, §3.3)"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Activation(NamedTuple):
    """φ and its derivative, a function of z and y = φ(z)."""

    function: Callable[[Any], Any]
    derivative: Callable[[Any, Any], Any]


def sigmoid(z):
    """σ(z) = 1 / (1 + e⁻ᶻ)      (document §4.1)"""
    return 1 / (1 + np.exp(-z))


def relu(z):
    """max(z, 0); its derivative at 0 is declared to be 0."""
    return np.maximum(z, 0)


ACTIVATIONS = {
    "identity": Activation(lambda z: z, lambda z, y: 1),
    "relu": Activation(relu, lambda z, y: np.where(z > 0, 1, 0)),
    "sigmoid": Activation(sigmoid, lambda z, y: y * (1 - y)),
    "tanh": Activation(np.tanh, lambda z, y: 1 - y * y),
}


def known_activation(operation: str, activation: Any) -> None:
    """Raises ValueError, naming the known ones, where `activation` is none of them."""
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"{operation}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
