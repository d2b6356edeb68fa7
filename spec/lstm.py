"""Long short-term memory: gates f, i, o, candidate C̃, cell C, hidden state h.    (document §3.3.2)"""

import numpy as np

from .activations import sigmoid
from .signature import Operation


def lstm(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """For t = 1 … T, with [h,x] the concatenation and σ the sigmoid, rows being the batch:

    f_t = σ(W_f [h_{t−1}, x_t] + b_f),  i_t = σ(W_i [h_{t−1}, x_t] + b_i),  C̃_t = tanh(W_C [h_{t−1}, x_t] + b_C),
    C_t = f_t ⊙ C_{t−1} + i_t ⊙ C̃_t,  o_t = σ(W_o [h_{t−1}, x_t] + b_o),  h_t = o_t ⊙ tanh(C_t).

    x [T,N,I], h0 [N,H], c0 [N,H], each W [H,H+I], each b [H] → h [T,N,H], c_T [N,H]. Source: document §3.3.2.
    Laws: lstm.steps_chain           T₁ + T₂ steps are T₁ steps, then T₂ from the last h and C of those
          lstm.batch_is_independent  h(x, h0, c0)ₙ = h(xₙ, h0ₙ, c0ₙ), and so c_T
    """
    steps = _forward(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o)
    return np.stack([step["h"] for step in steps]), steps[-1]["C"]


def lstm_vjp(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o, dh, dc_T):
    """Back-propagation through time of the six equations, last step first.

    Laws: lstm.vjp_is_linear  in (dh, dc_T): the vjp of a sum is the sum of the vjps
    """
    steps = _forward(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o)
    H = h0.shape[1]
    dC, dh_next = dc_T, 0
    dx, deltas = [], []
    for t in reversed(range(len(steps))):
        f, i, g, o, C, C_before = (steps[t][name] for name in ("f", "i", "g", "o", "C", "C_before"))
        dh_t = dh[t] + dh_next
        dC = dC + dh_t * o * (1 - np.tanh(C) * np.tanh(C))
        delta_f = dC * C_before * (f * (1 - f))
        delta_i = dC * g * (i * (1 - i))
        delta_g = dC * i * (1 - g * g)
        delta_o = dh_t * np.tanh(C) * (o * (1 - o))
        dhx = delta_f @ W_f + delta_i @ W_i + delta_g @ W_c + delta_o @ W_o
        dh_next, dC = dhx[:, :H], dC * f
        dx.append(dhx[:, H:])
        deltas.append((delta_f, delta_i, delta_g, delta_o))
    hx = np.concatenate([step["hx"] for step in reversed(steps)])
    gradients = []
    for delta in zip(*deltas, strict=True):
        delta = np.concatenate(delta)  # the sum over t and the batch is one product over all rows
        gradients += [delta.mT @ hx, np.sum(delta, axis=0)]
    return (np.stack(dx[::-1]), dh_next, dC, *gradients)


def _forward(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    steps, h, C = [], h0, c0
    for t in range(x.shape[0]):
        hx = np.concatenate([h, x[t]], axis=-1)
        C_before = C
        f = sigmoid(hx @ W_f.mT + b_f)
        i = sigmoid(hx @ W_i.mT + b_i)
        g = np.tanh(hx @ W_c.mT + b_c)
        C = f * C_before + i * g
        o = sigmoid(hx @ W_o.mT + b_o)
        h = o * np.tanh(C)
        steps.append({"hx": hx, "f": f, "i": i, "g": g, "C_before": C_before, "C": C, "o": o, "h": h})
    return steps


OPERATION = Operation(
    name="lstm",
    function=lstm,
    vjp=lstm_vjp,
    section="3.3.2",
    equation="f, i, o = σ(W [h_{t−1}, x_t] + b), C̃ = tanh(W_C [h_{t−1}, x_t] + b_C), "
    "C_t = f ⊙ C_{t−1} + i ⊙ C̃, h_t = o ⊙ tanh(C_t)",
    arrays={"x": "T N I", "h0": "N H", "c0": "N H"}
    | {f"{kind}_{gate}": shape for gate in "fico" for kind, shape in (("W", "H H+I"), ("b", "H"))},
    outputs={"h": "T N H", "c_T": "N H"},
    recurrent=True,
)
