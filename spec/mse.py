"""Squared error: L = ½‖ŷ − y‖².    (document §4.1.2)"""

import numpy as np

from .signature import Operation


def mse(y_hat, y):
    """L = ½ Σ (ŷ − y)², over all entries: half the squared norm, not a mean.

    y_hat [N,O], y [N,O] → L []. Source: document §4.1.2, where §3.1.2's factor (ŷ − y) comes from.
    Laws: mse.batch_is_independent  L(ŷ, y) = Σₙ L(ŷₙ, yₙ)
    """
    return np.sum((y_hat - y) * (y_hat - y), axis=(0, 1)) / 2


def mse_vjp(y_hat, y, dL):
    """∂L/∂ŷ = ŷ − y, ∂L/∂y = −(ŷ − y).    (document §3.1.2)

    By the chain rule the factors are dL/2 and then 2: half of a subnormal number may lose its last bit on the way.
    Laws: mse.vjp_is_linear  vjp(dL + dK) = vjp(dL) + vjp(dK), for given ŷ and y
    """
    d = (y_hat - y) * (2 * (dL / 2))
    return d, -d


OPERATION = Operation(
    name="mse",
    function=mse,
    vjp=mse_vjp,
    section="4.1.2",
    equation="L = ½‖ŷ − y‖²",
    arrays={"y_hat": "N O", "y": "N O"},
    outputs={"L": "()"},
    polynomial=lambda: True,
)
