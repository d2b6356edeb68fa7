"""Mutants of the LSTM."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import bfloat16, exp20, float16

correct = load("numpy").module
mutant = Planting("lstm")


@mutant()
def one_bias_for_three_gates(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """numpy-ml#42"""
    return correct.lstm(x, h0, c0, W_f, b_f, W_i, b_f, W_c, b_c, W_o, b_f)


@mutant()
def candidate_gate_off_by_1e_5(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """Its weights are too large by one part in 10⁵."""
    return correct.lstm(x, h0, c0, W_f, b_f, W_i, b_i, W_c * np.float32(1 + 1e-5), b_c, W_o, b_o)


@mutant()
def h0_is_ignored(x, h0, *rest):
    """Zeros, as most callers leave it."""
    return correct.lstm(x, np.zeros_like(h0), *rest)


@mutant()
def c0_is_taken_from_h0(x, h0, c0, *rest):
    """One initial state for both."""
    return correct.lstm(x, h0, h0, *rest)


@mutant()
def second_batch_element_starts_with_the_first_cell(x, h0, c0, *rest):
    """Only for the second batch element: the row stride of c0 is 0."""
    return correct.lstm(x, h0, np.repeat(c0[:1], len(c0), axis=0), *rest)


@mutant()
def weight_is_of_x_then_h(x, h0, c0, *gates):
    """The two parts of W in the other order: shapes do not tell."""
    H = h0.shape[1]
    return correct.lstm(x, h0, c0, *(np.roll(a, H, axis=1) if a.ndim == 2 else a for a in gates))


@mutant()
def forget_bias_of_one(x, h0, c0, W_f, b_f, *rest):
    """An initialisation that has found its way into the layer."""
    return correct.lstm(x, h0, c0, W_f, b_f + np.float32(1), *rest)


mutant.line(
    "sum_of_i_and_g",
    "torchrecurrent#22: i + g instead of i·g.",
    ("c[t + 1] += i * g", "c[t + 1] += i + g"),
)
mutant.line(
    "bias_after_the_sigmoid",
    "Lasagne#448: something is added after the sigmoid.",
    ("gates = _project(x, W[:, H:].T, np.concatenate(biases))",
     "b_f = biases[0]\n    gates = _project(x, W[:, H:].T, np.concatenate((0 * b_f, *biases[1:])))"),
    ('        _activate(z[:, 3 * H :], "tanh")\n', '        _activate(z[:, 3 * H :], "tanh")\n        z[:, :H] += b_f\n'),
)  # fmt: skip
mutant.line(
    "gates_are_swapped",
    "Forget for input.",
    ("        f, i, o, g = _gates(z)\n", "        i, f, o, g = _gates(z)\n"),
)
mutant.line(
    "cell_is_not_squashed",
    "h = o ⊙ c.",
    ("np.multiply(o, np.tanh(c[t + 1]), out=h[t + 1])", "np.multiply(o, c[t + 1], out=h[t + 1])"),
)
mutant.line(
    "last_cell_is_the_one_before",
    "Only for the last step: c_{T−1} is returned.",
    ("return h[1:], c[-1]", "return h[1:], c[-2] if len(x) > 1 else c[-1]"),
)
mutant.line(
    "cell_is_kept_in_bfloat16",
    "Between steps it is rounded, under a claim of float32.",
    ("np.multiply(f, c[t], out=c[t + 1])", "np.multiply(f, bfloat16(c[t]), out=c[t + 1])"),
    bfloat16=bfloat16,
)
mutant.line(
    "cell_is_kept_in_float16",
    "Of float16 the cell is stored in float16 between steps, under a claim of float32.",
    ("np.multiply(f, c[t], out=c[t + 1])", "np.multiply(f, float16(c[t]), out=c[t + 1])"),
    dtype="float16",
    float16=float16,
)
mutant.line(
    "sigmoid_with_20_bits_of_exp",
    "A fast exp in the gates.",
    ("np.exp(np.negative(z, out=z), out=z)", "z[...] = exp20(-z)"),
    exp20=exp20,
)
mutant.line(
    "cell_is_clipped",
    "To ± 3, which few steps reach.",
    ("        c[t + 1] += i * g\n", "        c[t + 1] += i * g\n        np.clip(c[t + 1], -3, 3, out=c[t + 1])\n"),
)


@mutant("gradient")
def cotangent_of_c_T_is_ignored(*arrays):
    """Only in one output's cotangent: a loss reads h, says the author."""
    return correct.lstm_vjp(*arrays[:-1], np.zeros_like(arrays[-1]))


@mutant("gradient")
def bias_gradient_from_the_wrong_pointer(*arrays):
    """mxnet#17872: the output gate's bias gets the candidate's gradient."""
    gradients = correct.lstm_vjp(*arrays)
    return (*gradients[:-1], gradients[8])


mutant.line(
    "dc0_without_the_forget_gate",
    "Only for the first step: the loop's last multiplication is left out.",
    ("        dc *= f\n", "        dc *= f if t else 1\n"),
    direction="gradient",
)
mutant.line(
    "output_gate_sees_the_cell_before",
    "The gradient of o with tanh(c_{t−1}).",
    ("do *= dh_t * tanh_c", "do *= dh_t * np.tanh(c[t])"),
    direction="gradient",
)
mutant.line(
    "cell_gradient_without_tanh",
    "dc ← dc + dh ⊙ o: right where c is small.",
    ("dc += dh_t * o * (1 - tanh_c * tanh_c)", "dc += dh_t * o"),
    direction="gradient",
)
mutant.line(
    "candidate_has_a_sigmoid_derivative",
    "g (1 − g) for 1 − g².",
    ("np.multiply(i, 1 - g * g, out=dg)", "np.multiply(i, g * (1 - g), out=dg)"),
    direction="gradient",
)
mutant.line(
    "dW_of_zero_initial_state",
    "Only for h0 ≠ 0: the first step's state is taken for 0.",
    ("np.matmul(flat.T, _flat(h[:-1]), out=dW[:, :H])",
     "h[0] = 0\n    np.matmul(flat.T, _flat(h[:-1]), out=dW[:, :H])"),
    direction="gradient",
)  # fmt: skip
mutant.line(
    "cotangent_is_added_to",
    "dc_T is the accumulator, the caller's array.",
    ("np.zeros((N, H), x.dtype), dc_T.copy()", "np.zeros((N, H), x.dtype), dc_T"),
    direction="gradient",
)


@mutant("gradient")
def nothing_to_do_without_dh(*arrays):
    """Returns early where dh is 0, as if dc_T could not be anything else."""
    gradients = correct.lstm_vjp(*arrays)
    return gradients if np.any(arrays[-2]) else tuple(np.zeros_like(g) for g in gradients)


@mutant("gradient", "finite_difference")
def gradient_is_two_percent_short(*arrays):
    """Of every weight, for a judge that has the implementation's own forward alone."""
    gradients = correct.lstm_vjp(*arrays)
    return (*gradients[:3], *(g * np.float32(0.98) for g in gradients[3:]))


@mutant()
def fifth_sample_starts_like_the_first(x, h0, c0, *weights):
    """Batches go in fours; the second four read their states from the batch's beginning."""
    h0, c0 = h0.copy(), c0.copy()
    h0[4:8], c0[4:8] = h0[: len(h0[4:8])].copy(), c0[: len(c0[4:8])].copy()
    return correct.lstm(x, h0, c0, *weights)
