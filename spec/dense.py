"""Dense layer: z = Wᵀx + b, ŷ = φ(z).    (document §3.1.1; gradient §3.1.2)"""

import numpy as np

from .activations import ACTIVATIONS, known_activation
from .signature import Operation


def dense(x, W, b, activation="identity"):
    """y = φ(x W + b), the rows of x being the document's x.

    x [N,I], W [I,O], b [O] → y [N,O]. ReLU has derivative 0 at 0. Source: document §3.1.1.
    Laws: dense.batch_is_independent  y(x, W, b)ₙ = y(xₙ, W, b)
    """
    return ACTIVATIONS[activation].function(x @ W + b)


def dense_vjp(x, W, b, dy, activation="identity"):
    """δ = dy ⊙ φ′(z);  ∂L/∂x = δ Wᵀ, ∂L/∂W = xᵀ δ, ∂L/∂b = Σₙ δ.

    The document writes ∂L/∂W as δ xᵀ, the transpose of W's own shape. Source: document §3.1.2.
    Laws: dense.vjp_is_linear  vjp(dy + dz) = vjp(dy) + vjp(dz), for given arrays
    """
    phi = ACTIVATIONS[activation]
    z = x @ W + b
    delta = dy * phi.derivative(z, phi.function(z))
    return delta @ W.mT, x.mT @ delta, np.sum(delta, axis=0)


def _derive(sizes, *, activation):
    known_activation("dense", activation)
    return {}


OPERATION = Operation(
    name="dense",
    function=dense,
    vjp=dense_vjp,
    section="3.1.1",
    equation="ŷ = φ(Wᵀx + b)",
    arrays={"x": "N I", "W": "I O", "b": "O"},
    outputs={"y": "N O"},
    defaults={"activation": "identity"},
    derive=_derive,
    polynomial=lambda activation="identity": activation in ("identity", "relu"),
)
