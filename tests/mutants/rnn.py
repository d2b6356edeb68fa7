"""Mutants of the recurrent network."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import bfloat16, float16, tf32

correct = load("numpy").module
mutant = Planting("rnn")


@mutant()
def h0_is_ignored(x, h0, *weights, **parameters):
    """Zeros, as most callers leave it."""
    return correct.rnn(x, np.zeros_like(h0), *weights, **parameters)


@mutant()
def h0_of_the_first_for_all(x, h0, *weights, **parameters):
    """Only for the second batch element, and only for h0 ≠ 0: one row is broadcast."""
    return correct.rnn(x, np.repeat(h0[:1], len(h0), axis=0), *weights, **parameters)


@mutant()
def recurrent_weight_is_transposed(x, h0, W_hh, *rest, **parameters):
    """W_hh is square: no shape tells."""
    return correct.rnn(x, h0, W_hh.T, *rest, **parameters)


@mutant()
def last_output_is_of_the_state_before(x, h0, *rest, **parameters):
    """Only for the last step: y_T is computed before h_T is written."""
    y, h = correct.rnn(x, h0, *rest, **parameters)
    if len(x) > 1:
        y[-1] = correct.rnn(x[:-1], h0, *rest, **parameters)[0][-1]
    return y, h


@mutant()
def ninth_step_starts_anew(x, h0, *rest, **parameters):
    """Only at block size + 1: a second launch over time begins with h0 again."""
    y, h = correct.rnn(x, h0, *rest, **parameters)
    if len(x) > 8:
        y[8:], h[8:] = correct.rnn(x[8:], h0, *rest, **parameters)
    return y, h


@mutant()
def one_activation_for_all(x, h0, *rest, activation="tanh"):
    """The output layer applies tanh, whatever was asked for."""
    y, h = correct.rnn(x, h0, *rest, activation=activation)
    W_yh, b_y = rest[-2:]
    return correct.dense(h.reshape(-1, h.shape[2]), W_yh.T, b_y, activation="tanh").reshape(y.shape), h


mutant.line(
    "step_reads_what_it_writes",
    "xla#49176: half of the units are updated in place before the other half is multiplied.",
    ("        h[t + 1] += h[t] @ W_hh.T\n",
     "        half, now = len(W_hh) // 2, h[t].copy()\n"
     "        h[t + 1, :, :half] += now @ W_hh[:half].T\n"
     "        now[:, :half] = _activate(h[t + 1, :, :half].copy(), activation)\n"
     "        h[t + 1, :, half:] += now @ W_hh[half:].T\n"),
)  # fmt: skip
mutant.line(
    "bias_is_added_twice",
    "Once with the input, once with the state, as where there are two biases.",
    ("        h[t + 1] += h[t] @ W_hh.T\n", "        h[t + 1] += h[t] @ W_hh.T + b_h\n"),
)
mutant.line(
    "state_is_kept_in_bfloat16",
    "Between steps it is rounded, under a claim of float32.",
    ("h[t] @ W_hh.T", "bfloat16(h[t]) @ W_hh.T"),
    bfloat16=bfloat16,
)
mutant.line(
    "recurrent_product_in_tf32",
    "Under a claim of float32.",
    ("h[t] @ W_hh.T", "tf32(h[t]) @ tf32(W_hh).T"),
    tf32=tf32,
)
mutant.line(
    "recurrent_sum_is_rounded_to_float16",
    "Of float16 the product with the state is stored before it is added, under a claim of float32.",
    ("h[t + 1] += h[t] @ W_hh.T", "h[t + 1] += float16(h[t] @ W_hh.T)"),
    dtype="float16",
    float16=float16,
)


@mutant()
def output_is_memory_of_the_call_before(x, h0, *rest, **parameters):
    """The states are views of a workspace that all calls of a shape share."""
    y, h = correct.rnn(x, h0, *rest, **parameters)
    kept = _states.setdefault(h.shape, np.empty_like(h))
    kept[...] = h
    return y, kept


_states: dict = {}
mutant.line(
    "relu_cell_has_the_gradient_of_tanh",
    "pytorch#11662",
    ("np.matmul(_through(delta[t], h[t + 1], activation), W_hh, out=carried)",
     'np.matmul(_through(delta[t], h[t + 1], "tanh"), W_hh, out=carried)'),
    direction="gradient",
)  # fmt: skip


@mutant("gradient", "layout")
def cotangent_is_read_as_if_contiguous(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, **parameters):
    """pytorch#619"""
    dh = np.reshape(dh.ravel(order="K"), dh.shape)
    return correct.rnn_vjp(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, **parameters)


@mutant("gradient")
def bias_gradient_from_the_wrong_pointer(*arrays, **parameters):
    """mxnet#17872: db_h and db_y are exchanged where their sizes agree."""
    gradients = list(correct.rnn_vjp(*arrays, **parameters))
    if gradients[4].shape == gradients[6].shape:
        gradients[4], gradients[6] = gradients[6], gradients[4]
    return tuple(gradients)


@mutant("gradient")
def cotangent_of_h_is_ignored(*arrays, **parameters):
    """Only in one output's cotangent: a loss reads y, says the author."""
    return correct.rnn_vjp(*arrays[:-1], np.zeros_like(arrays[-1]), **parameters)


mutant.line(
    "truncated_after_four_steps",
    "Back-propagation through time ends early.",
    ("        delta[t] += carried\n", "        delta[t] += carried * (t % 4 != 3)\n"),
    direction="gradient",
)
mutant.line(
    "dW_hh_of_the_state_after",
    "h_t in the place of h_{t−1}.",
    ("        flat.T @ _flat(h[:-1]),\n        flat.T @ _flat(x),",
     "        flat.T @ _flat(h[1:]),\n        flat.T @ _flat(x),"),
    direction="gradient",
)  # fmt: skip
mutant.line(
    "dW_hh_without_the_first_step",
    "Only for h0 ≠ 0: the sum starts at the second step, where h0 is gone.",
    ("        flat.T @ _flat(h[:-1]),\n        flat.T @ _flat(x),",
     "        _flat(delta[1:]).T @ _flat(h[1:-1]),\n        flat.T @ _flat(x),"),
    direction="gradient",
)  # fmt: skip
mutant.line(
    "dh0_is_carried_untransposed",
    "W_hhᵀ for W_hh.",
    ("activation), W_hh, out=carried)", "activation), W_hh.T, out=carried)"),
    direction="gradient",
)


@mutant("gradient")
def dW_xh_transposed_where_square(*arrays, **parameters):
    """H = I hides it from every comparison of shapes."""
    gradients = list(correct.rnn_vjp(*arrays, **parameters))
    if gradients[3].shape[0] == gradients[3].shape[1]:
        gradients[3] = gradients[3].T.copy()
    return tuple(gradients)


@mutant("gradient")
def state_of_zeros_gets_no_gradient(x, h0, *rest, **parameters):
    """Zeros are taken for 'no state was given'."""
    gradients = list(correct.rnn_vjp(x, h0, *rest, **parameters))
    if not h0.any():
        gradients[1] = np.zeros_like(h0)
    return tuple(gradients)


@mutant("gradient")
def history_has_sixteen_steps(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, **parameters):
    """A ring buffer of states: of a longer sequence the first steps get nothing."""
    dx, *others = correct.rnn_vjp(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, **parameters)
    dx[:-16] = 0
    return (dx, *others)


@mutant()
def units_beyond_96_are_tiled_one_late(x, h0, W_hh, *rest, **parameters):
    """Above 96 units the recurrent product goes in tiles of 32, and the last partial one leaves its first column out."""
    if len(W_hh) > 96 and len(W_hh) % 32:
        W_hh = W_hh.copy()
        W_hh[:, len(W_hh) // 32 * 32] = 0
    return correct.rnn(x, h0, W_hh, *rest, **parameters)
