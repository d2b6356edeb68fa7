"""Recurrent network: h_t = φ(W_hh h_{t−1} + W_xh x_t + b_h), y_t = φ(W_yh h_t + b_y).    (document §3.3.1)"""

import numpy as np

from .activations import ACTIVATIONS, known_activation
from .signature import Operation


def rnn(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation="tanh"):
    """h_t = φ(W_hh h_{t−1} + W_xh x_t + b_h), y_t = φ(W_yh h_t + b_y), for t = 1 … T, rows being the batch.

    x [T,N,I], h0 [N,H], W_hh [H,H], W_xh [H,I], b_h [H], W_yh [O,H], b_y [O] → y [T,N,O], h [T,N,H].
    Both φ are `activation`. Source: document §3.3.1.
    Laws: rnn.steps_chain           T₁ + T₂ steps are T₁ steps, then T₂ from the last h of those
          rnn.batch_is_independent  y(x, h0)ₙ = y(xₙ, h0ₙ), and so h
    """
    _, h, _, y = _forward(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation)
    return np.stack(y), np.stack(h)


def rnn_vjp(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, activation="tanh"):
    """Back-propagation through time: δ^y_t = dy_t ⊙ φ′, and δ^h_t = (dh_t + W_yhᵀ δ^y_t + W_hhᵀ δ^h_{t+1}) ⊙ φ′.

    Laws: rnn.vjp_is_linear  in (dy, dh): the vjp of a sum is the sum of the vjps
    """
    phi = ACTIVATIONS[activation]
    a, h, z, y = _forward(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation)
    T = x.shape[0]
    delta_y = [dy[t] * phi.derivative(z[t], y[t]) for t in range(T)]
    delta_h = [None] * T
    for t in reversed(range(T)):
        dh_t = dh[t] + delta_y[t] @ W_yh
        if t + 1 < T:
            dh_t = dh_t + delta_h[t + 1] @ W_hh
        delta_h[t] = dh_t * phi.derivative(a[t], h[t])
    over_time = np.concatenate  # the sum over t and the batch is one product over all rows
    D_h, D_y = over_time(delta_h), over_time(delta_y)
    return (
        np.stack([d @ W_xh for d in delta_h]),
        delta_h[0] @ W_hh,
        D_h.mT @ over_time([h0, *h[:-1]]),
        D_h.mT @ over_time([x[t] for t in range(T)]),
        np.sum(D_h, axis=0),
        D_y.mT @ over_time(h),
        np.sum(D_y, axis=0),
    )


def _forward(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation):
    """Per step: a_t (the argument of φ), h_t, z_t (the argument of the output's φ) and y_t."""
    phi = ACTIVATIONS[activation].function
    a, h, z, y = [], [], [], []
    h_t = h0
    for t in range(x.shape[0]):
        a.append(h_t @ W_hh.mT + x[t] @ W_xh.mT + b_h)
        h_t = phi(a[t])
        h.append(h_t)
        z.append(h_t @ W_yh.mT + b_y)
        y.append(phi(z[t]))
    return a, h, z, y


def _derive(sizes, *, activation):
    known_activation("rnn", activation)
    return {}


OPERATION = Operation(
    name="rnn",
    function=rnn,
    vjp=rnn_vjp,
    section="3.3.1",
    equation="h_t = φ(W_hh h_{t−1} + W_xh x_t + b_h), y_t = φ(W_yh h_t + b_y)",
    arrays={"x": "T N I", "h0": "N H", "W_hh": "H H", "W_xh": "H I", "b_h": "H", "W_yh": "O H", "b_y": "O"},
    outputs={"y": "T N O", "h": "T N H"},
    defaults={"activation": "tanh"},
    derive=_derive,
    polynomial=lambda activation="tanh": activation in ("identity", "relu"),
    recurrent=True,
)
