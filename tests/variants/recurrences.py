"""Variants of rnn and lstm: projections batched or step by step, gradients summed per step or once."""

import numpy as np

from ..planted import Planting
from .products import phi
from .widened import widened

rnn_variant, lstm_variant = Planting("rnn"), Planting("lstm")


@rnn_variant(dtype="float64")
@rnn_variant()
def one_product_a_step(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation="tanh"):
    """[W_xh W_hh] [x; h], input and state in one product."""
    W = np.concatenate([W_xh, W_hh], axis=1)
    h, hs = h0, []
    for x_t in x:
        h = phi(np.concatenate([x_t, h], axis=1) @ W.T + b_h, activation)
        hs.append(h)
    states = np.stack(hs)
    return phi(states @ W_yh.T + b_y, activation), states


@rnn_variant()
def outputs_step_by_step_in_float64(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation="tanh"):
    """Two products a step, the output's at once; float64 inside."""

    def wide(x, h0, W_hh, W_xh, b_h, W_yh, b_y):
        h, hs, ys = h0, [], []
        for x_t in x:
            h = phi(W_hh @ h.T + (W_xh @ x_t.T + b_h[:, None]), activation).T
            hs.append(h)
            ys.append(phi(h @ W_yh.T + b_y, activation))
        return np.stack(ys), np.stack(hs)

    return widened(wide, np.float64, x, h0, W_hh, W_xh, b_h, W_yh, b_y)


@rnn_variant(dtype="bfloat16")
@rnn_variant(dtype="float16")
def rnn_in_float32(*arrays, activation="tanh"):
    """float32 inside, rounded once."""
    return widened(one_product_a_step, np.float32, *arrays, activation=activation)


@rnn_variant("gradient")
def rnn_gradient_summed_per_step(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, activation="tanh"):
    """Weights' gradients grow by one product a step, from the last step on."""

    def through(d, y):
        slope = {"identity": y * 0 + 1, "relu": y > 0, "tanh": (1 - y) * (1 + y), "sigmoid": y - y * y}
        return d * slope[activation].astype(d.dtype)

    y, h = one_product_a_step(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation=activation)
    before = np.concatenate([h0[None], h[:-1]])
    carried, dx = np.zeros_like(h0), np.zeros_like(x)
    dW_hh, dW_xh, db_h, dW_yh, db_y = (np.zeros_like(a) for a in (W_hh, W_xh, b_h, W_yh, b_y))
    for t in reversed(range(len(x))):
        delta_y = through(dy[t], y[t])
        delta = through(delta_y @ W_yh + dh[t] + carried, h[t])
        dx[t], carried = delta @ W_xh, delta @ W_hh
        dW_hh += delta.T @ before[t]
        dW_xh += delta.T @ x[t]
        db_h += delta.sum(axis=0)
        dW_yh += delta_y.T @ h[t]
        db_y += delta_y.sum(axis=0)
    return dx, carried, dW_hh, dW_xh, db_h, dW_yh, db_y


@lstm_variant(dtype="float64")
@lstm_variant()
def gate_by_gate(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """Eight products a step: every gate's from the input and from the state."""
    hs, _, c = states(x, h0, c0, ((W_f, b_f), (W_i, b_i), (W_c, b_c), (W_o, b_o)))
    return np.stack(hs[1:]), c[-1]


@lstm_variant()
def input_projected_for_all_steps(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """One product for all inputs and gates before the walk, in the order o, c, i, f."""
    H = h0.shape[1]
    W, b = np.concatenate([W_o, W_c, W_i, W_f]), np.concatenate([b_o, b_c, b_i, b_f])
    projected = np.einsum("tni,gi->tng", x, W[:, H:]) + b
    h, c, hs = h0, c0, []
    for z in projected:
        o, g, i, f = np.split(z + h @ W[:, :H].T, 4, axis=1)
        c = phi(f, "sigmoid") * c + phi(i, "sigmoid") * np.tanh(g)
        h = phi(o, "sigmoid") * np.tanh(c)
        hs.append(h)
    return np.stack(hs), c


@lstm_variant()
def lstm_in_float64(*arrays):
    """float64 inside, rounded once."""
    return widened(gate_by_gate, np.float64, *arrays)


@lstm_variant(dtype="bfloat16")
@lstm_variant(dtype="float16")
def lstm_in_float32(*arrays):
    """float32 inside, rounded once."""
    return widened(input_projected_for_all_steps, np.float32, *arrays)


@lstm_variant("gradient", dtype="float64")
@lstm_variant("gradient")
def lstm_gradient_with_stored_gates(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o, dh, dc_T):
    """The forward pass keeps its gates; gradients grow by one product a step and gate."""
    weights = ((W_f, b_f), (W_i, b_i), (W_c, b_c), (W_o, b_o))
    h, gates, c = states(x, h0, c0, weights)
    H, dx, dh_t, dc = h0.shape[1], np.zeros_like(x), np.zeros_like(h0), dc_T
    dW = [np.zeros_like(W) for W, _ in weights]
    db = [np.zeros_like(b) for _, b in weights]
    for t in reversed(range(len(x))):
        f, i, g, o = gates[t]
        dh_t = dh_t + dh[t]
        y = np.tanh(c[t + 1])
        dc = dc + (dh_t * o) * ((1 - y) * (1 + y))
        delta = (
            dc * c[t] * (f * (1 - f)),
            dc * g * (i * (1 - i)),
            dc * i * ((1 - g) * (1 + g)),
            dh_t * y * (o * (1 - o)),
        )
        dc, dh_t, read = dc * f, np.zeros_like(h0), np.concatenate([h[t], x[t]], axis=1)
        for n, (d, (W, _)) in enumerate(zip(delta, weights, strict=True)):
            dW[n] += d.T @ read
            db[n] += d.sum(axis=0)
            dh_t = dh_t + d @ W[:, :H]
            dx[t] += d @ W[:, H:]
    return (dx, dh_t, dc, *(a for pair in zip(dW, db, strict=True) for a in pair))


def states(x, h0, c0, weights):
    """h and c from step 0 on, and the gates f, i, g, o of every step."""
    H, h, c, gates = h0.shape[1], [h0], [c0], []
    for x_t in x:
        z = [x_t @ W[:, H:].T + (b + h[-1] @ W[:, :H].T) for W, b in weights]
        f, i, g, o = phi(z[0], "sigmoid"), phi(z[1], "sigmoid"), np.tanh(z[2]), phi(z[3], "sigmoid")
        c.append(i * g + f * c[-1])
        h.append(o * np.tanh(c[-1]))
        gates.append((f, i, g, o))
    return h, gates, c
