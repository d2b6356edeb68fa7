"""Mutants of the dense layer."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import bfloat16, exp20, float16, product, tf32

correct = load("numpy").module
mutant = Planting("dense")


@mutant()
def tf32_operands_declared_float32(x, W, b, **parameters):
    """What cuBLAS and compiled Triton may do to float32 unless told not to."""
    return correct.dense(tf32(x), tf32(W), b, **parameters)


@mutant()
def accumulation_truncates(x, W, b, activation="identity"):
    """As tensor cores add: every partial sum is rounded towards zero, which no single element shows."""
    if activation != "identity":
        return correct.dense(x, W, b, activation=activation)
    return product(x, W) + b


@mutant(dtype="float16")
def accumulation_in_float16(x, W, b, activation="identity"):
    """Every partial sum is rounded to the storage format, not to float32."""
    z = product(x, W, lambda exact: exact.astype(np.float16)) + b
    return correct.dense(z, np.eye(len(b), dtype=x.dtype), 0 * b, activation=activation)


@mutant(dtype="bfloat16")
def accumulation_in_bfloat16(x, W, b, activation="identity"):
    """Every partial sum is rounded to the storage format, not to float32."""
    x, W, b = (a.astype(np.float32) for a in (x, W, b))
    z = product(x, W, lambda exact: bfloat16(exact)) + b
    return bfloat16(correct.dense(z, np.eye(len(b), dtype=x.dtype), 0 * b, activation=activation)).astype("bfloat16")


@mutant(dtype="float64")
def float32_inside_float64(x, W, b, **parameters):
    """A kernel for float32 behind a cast."""
    return correct.dense(*(a.astype(np.float32) for a in (x, W, b)), **parameters).astype(np.float64)


@mutant()
def tail_of_k_is_lost(x, W, b, **parameters):
    """triton#630: K is walked in whole blocks of 16 only."""
    K = x.shape[1] if x.shape[1] < 16 else x.shape[1] // 16 * 16
    return correct.dense(x[:, :K], W[:K], b, **parameters)


@mutant()
def one_column_is_taken_for_none(x, W, b, **parameters):
    """triton#934: K = 1 is a case of its own, and wrong."""
    return correct.dense(x if x.shape[1] > 1 else 0 * x, W, b, **parameters)


@mutant()
def row_17_repeats_row_16(x, W, b, **parameters):
    """Only at block size + 1: the last block starts one row early."""
    y = correct.dense(x, W, b, **parameters)
    if len(y) == 17:
        y[16] = y[15]
    return y


@mutant()
def one_element_of_the_second_tile(x, W, b, **parameters):
    """A single element of a tile of 16 × 32 is off by 2⁻¹⁰."""
    y = correct.dense(x, W, b, **parameters)
    y[16:17, 31:32] *= np.float32(1 + 2.0**-10)
    return y


@mutant("forward", "layout")
def negative_strides_are_taken_for_positive(x, W, b, **parameters):
    """numpy#29164"""
    backwards = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides)
    return correct.dense(x[backwards], W, b, **parameters)


@mutant("forward", "layout")
def transposed_weight_is_read_in_memory_order(x, W, b, **parameters):
    """pytorch#46764"""
    return correct.dense(x, np.reshape(W.ravel(order="K"), W.shape), b, **parameters)


@mutant()
def bias_runs_along_the_rows(x, W, b, **parameters):
    """Where N = O, both broadcasts have the right shape."""
    if len(x) != len(b):
        return correct.dense(x, W, b, **parameters)
    activate = np.eye(len(b), dtype=x.dtype)
    return correct.dense(correct.dense(x, W, 0 * b) + b[:, None], activate, 0 * b, **parameters)


@mutant()
def one_output_drops_its_axis(x, W, b, **parameters):
    """squeeze() after the product: O = 1 gives [N]."""
    y = correct.dense(x, W, b, **parameters)
    return y if y.shape[1] > 1 else y[:, 0]


@mutant()
def result_is_float64(x, W, b, **parameters):
    """A constant of the wrong type has promoted it."""
    return correct.dense(x, W, b, **parameters).astype(np.float64)


@mutant()
def input_is_scaled_in_place(x, W, b, **parameters):
    """x is multiplied for the kernel, and divided again after it: nearly the same numbers."""
    x *= np.float32(3)
    y = correct.dense(x, W / np.float32(3), b, **parameters)
    x /= np.float32(3)
    return y


@mutant()
def output_memory_is_reused(x, W, b, **parameters):
    """One buffer per shape for all calls, handed out to the caller."""
    y = correct.dense(x, W, b, **parameters)
    out = _buffers.setdefault(y.shape, np.empty_like(y))
    out[...] = y
    return out


_buffers: dict = {}
mutant.line(
    "tanh_overflows",
    "tanh as (e²ᶻ − 1) / (e²ᶻ + 1), which is ∞/∞ above 44.",
    ("np.tanh(z, out=z)", "z[...] = np.expm1(2 * z) / (np.expm1(2 * z) + 2)"),
)
mutant.line(
    "tanh_cancels_near_zero",
    "tanh as 1 − 2 / (e²ᶻ + 1): right to 24 bits of 1, and to none of a small z.",
    ("np.tanh(z, out=z)", "z[...] = 1 - 2 / (np.exp(2 * z) + 1)"),
)
mutant.line(
    "sigmoid_with_20_bits_of_exp",
    "A fast exp in the epilogue.",
    ("np.exp(np.negative(z, out=z), out=z)", "z[...] = exp20(-z)"),
    exp20=exp20,
)
mutant.line(
    "bias_is_rounded_to_bfloat16",
    "The epilogue keeps its vectors in the operands' format.",
    ("y += b", "y += bfloat16(b)"),
    bfloat16=bfloat16,
)
mutant.line(
    "relu_swallows_nan",
    "fmax, the instruction of most GPUs, takes the operand that is a number.",
    ("np.maximum(z, 0, out=z)", "np.fmax(z, 0, out=z)"),
    property_="special",
)


@mutant("forward", "special")
def infinity_is_clipped(x, W, b, **parameters):
    """The result is clamped to the largest finite number."""
    y = correct.dense(x, W, b, **parameters)
    largest = np.finfo(y.dtype).max
    return np.clip(y, -largest, largest)


@mutant("gradient")
def dW_transposed_as_the_document_writes_it(x, W, b, dy, **parameters):
    """Erratum 2, in the one case in which the shapes do not tell."""
    dx, dW, db = correct.dense_vjp(x, W, b, dy, **parameters)
    return dx, dW.T.copy() if dW.shape[0] == dW.shape[1] else dW, db


@mutant("gradient")
def workspace_is_cleared_once(x, W, b, dy, **parameters):
    """dW is added to a buffer that only its allocation clears: right in a first call."""
    dx, dW, db = correct.dense_vjp(x, W, b, dy, **parameters)
    out = _workspaces.setdefault(W.shape, np.zeros_like(dW))
    out += dW
    return dx, out.copy(), db


_workspaces: dict = {}


@mutant("gradient", "finite_difference")
def forward_and_gradient_disagree(x, W, b, dy, **parameters):
    """dW is 1 % too large, for a judge that has the implementation's own forward alone."""
    dx, dW, db = correct.dense_vjp(x, W, b, dy, **parameters)
    return dx, dW * np.float32(1.01), db


@mutant("gradient", "layout")
def cotangent_is_read_as_if_contiguous(x, W, b, dy, **parameters):
    """pytorch#619"""
    return correct.dense_vjp(x, W, b, np.reshape(dy.ravel(order="K"), dy.shape), **parameters)


@mutant("gradient", dtype="float16")
def slope_of_relu_from_the_stored_output(x, W, b, dy, activation="identity"):
    """y is kept of the forward, and not z: where a small z has become 0 in float16, the gradient does, too."""
    if activation != "relu":
        return correct.dense_vjp(x, W, b, dy, activation=activation)
    return correct.dense_vjp(x, W, b, dy * (correct.dense(x, W, b, activation="relu") > 0))


@mutant("gradient", dtype="float16")
def delta_is_rounded_before_the_products(x, W, b, dy, activation="identity"):
    """δ is stored in float16 on the way, under a claim of float32 intermediates."""
    x, W, b, dy = (a.astype(np.float32) for a in (x, W, b, dy))
    delta = float16(correct.dense_vjp(np.eye(len(x), dtype=x.dtype), x @ W, b, dy, activation=activation)[1])
    return tuple(a.astype(np.float16) for a in (delta @ W.T, x.T @ delta, delta.sum(axis=0)))


mutant.line(
    "relu_has_a_slope_at_zero",
    "y ≥ 0 is true wherever ReLU cut.",
    ("d *= y > 0", "d *= y >= 0"),
    direction="gradient",
)
mutant.line(
    "sigmoid_derivative_forgets_a_factor",
    "φ′ as 1 − y.",
    ("d *= y * (1 - y)", "d *= 1 - y"),
    direction="gradient",
)
mutant.line(
    "db_of_the_cotangent_before_phi",
    "db sums dy, not δ.",
    ("return delta @ W.T, x.T @ delta, delta.sum(axis=0)", "return delta @ W.T, x.T @ delta, dy.sum(axis=0)"),
    direction="gradient",
)
mutant.line(
    "db_is_a_mean",
    "The mean over the batch instead of its sum.",
    ("return delta @ W.T, x.T @ delta, delta.sum(axis=0)", "return delta @ W.T, x.T @ delta, delta.mean(axis=0)"),
    direction="gradient",
)
mutant.line(
    "cotangent_becomes_delta",
    "φ′ is multiplied into dy, the caller's array.",
    ("_through(dy.copy(), _activate(_project(x, W, b), activation), activation)\n    return delta @",
     "_through(dy, _activate(_project(x, W, b), activation), activation)\n    return delta @"),
    direction="gradient",
)  # fmt: skip


@mutant()
def subnormal_numbers_are_flushed(x, W, b, **parameters):
    """-ftz, under a claim that says nothing of it."""
    y = correct.dense(x, W, b, **parameters)
    return np.where(np.abs(y) < np.finfo(y.dtype).tiny, 0, y).astype(y.dtype)


@mutant("forward", "layout")
def one_row_takes_columns_for_rows(x, W, b, **parameters):
    """The matrix-vector path reads the weight's memory in the order of its addresses."""
    if len(x) > 1:
        return correct.dense(x, W, b, **parameters)
    return correct.dense(x, np.reshape(W.ravel(order="K"), W.shape), b, **parameters)


@mutant("forward", "stateless")
def weights_are_packed_once_per_address(x, W, b, **parameters):
    """A cache of packed weights whose key is where they lie: an optimiser's step in place goes unnoticed."""
    packed = _packed.setdefault((W.ctypes.data, W.shape, W.strides), W.copy())
    return correct.dense(x, packed, b, **parameters)


_packed: dict = {}


@mutant("gradient")
def cotangent_is_clipped_to_float16(x, W, b, dy, **parameters):
    """What mixed precision has left behind: a scaled loss goes beyond 65504."""
    return correct.dense_vjp(x, W, b, np.clip(dy, -65504, 65504).astype(dy.dtype), **parameters)
