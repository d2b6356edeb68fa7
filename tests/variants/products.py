"""Variants of dense and mse: what may be summed may be summed in any order."""

from zlib import crc32

import numpy as np

from ...spec import Arithmetic
from ..mutants.coarse import product
from ..planted import Planting
from .widened import eager, widened

dense_variant, mse_variant = Planting("dense"), Planting("mse")


def phi(z, activation):
    """With the sigmoid that never overflows: eᶻ / (1 + eᶻ) left of 0."""
    if activation == "sigmoid":
        e = np.exp(-np.abs(z))
        return np.where(z < 0, e, z.dtype.type(1)) / (1 + e)
    return {"identity": z, "relu": np.maximum(z, 0), "tanh": np.tanh(z)}[activation]


@dense_variant(dtype="float64")
@dense_variant()
def one_term_after_another_from_the_bias(x, W, b, activation="identity"):
    """z ← z + x_i W_i, from z = b on."""
    z = np.broadcast_to(b, (x.shape[0], W.shape[1])).copy()
    for i in range(x.shape[1]):
        z += x[:, i : i + 1] * W[i]
    return phi(z, activation)


@dense_variant()
def last_term_first(x, W, b, activation="identity"):
    """Summed backwards, the bias at the end."""
    z = np.zeros((x.shape[0], W.shape[1]), x.dtype)
    for i in reversed(range(x.shape[1])):
        z += x[:, i : i + 1] * W[i]
    return phi(z + b, activation)


@dense_variant()
def in_a_random_order(x, W, b, activation="identity"):
    """An order that the numbers decide: another for every input."""
    z = np.zeros((x.shape[0], W.shape[1]), x.dtype)
    for i in np.random.default_rng(crc32(x.tobytes())).permutation(x.shape[1]):
        z += x[:, i : i + 1] * W[i]
    return phi(z + b, activation)


@dense_variant(dtype="float64")
@dense_variant()
def in_blocks_of_sixteen(x, W, b, activation="identity"):
    """Split along I, the parts added pairwise."""
    parts = [x[:, i : i + 16] @ W[i : i + 16] for i in range(0, x.shape[1], 16)]
    while len(parts) > 1:
        parts = [sum(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return phi(parts[0] + b, activation)


@dense_variant()
def compensated(x, W, b, activation="identity"):
    """Kahan's sum of the products."""
    total = np.zeros((x.shape[0], W.shape[1]), x.dtype)
    lost = np.zeros_like(total)
    for i in range(x.shape[1]):
        term = x[:, i : i + 1] * W[i] - lost
        new = total + term
        lost, total = (new - total) - term, new
        lost = np.where(np.isfinite(lost), lost, 0).astype(x.dtype)
    return phi(total + b, activation)


@dense_variant()
def in_float64(x, W, b, activation="identity"):
    """float64 inside, rounded once."""
    return widened(last_term_first, np.float64, x, W, b, activation=activation)


@dense_variant(dtype="bfloat16")
@dense_variant(dtype="float16")
def in_float32(x, W, b, activation="identity"):
    """float32 inside, rounded once."""
    return widened(one_term_after_another_from_the_bias, np.float32, x, W, b, activation=activation)


@dense_variant("gradient", dtype="float64")
@dense_variant("gradient")
def gradient_split_over_the_rows(x, W, b, dy, activation="identity"):
    """dW and db in strips of seven rows, the last strip first; φ′ from z where that is shorter."""
    z = x @ W + b
    if activation == "sigmoid":
        delta = dy * (phi(z, "sigmoid") * phi(-z, "sigmoid"))
    elif activation == "tanh":
        y = np.tanh(z)
        delta = dy - dy * (y * y)
    else:
        delta = np.where(z > 0, dy, 0).astype(dy.dtype) if activation == "relu" else dy
    strips = [slice(n, n + 7) for n in reversed(range(0, len(x), 7))]
    dW = sum(x[s].T @ delta[s] for s in strips)
    return delta @ W.T, dW, sum(delta[s].sum(axis=0) for s in strips)


def truncating(operation, dtype):
    """Every partial sum is cut off, as tensor cores do."""
    return Arithmetic(dtype, rounding="truncate")


@dense_variant(arithmetic=truncating)
def cut_off_after_every_addition_and_declared(x, W, b, activation="identity"):
    """Towards zero, the products exact until they are added: the first of them, too."""
    return phi(product(x, W) + b, activation)


@dense_variant("gradient", arithmetic=truncating)
def gradient_cut_off_after_every_addition_and_declared(x, W, b, dy, activation="identity"):
    """The same of δ Wᵀ, xᵀ δ and Σ δ."""
    y = phi(product(x, W) + b, activation)
    slope = {"identity": np.ones_like(y), "relu": (y > 0).astype(y.dtype), "tanh": 1 - y * y, "sigmoid": y * (1 - y)}
    delta = dy * slope[activation]
    return product(delta, W.T), product(x.T, delta), product(np.ones((1, len(x)), x.dtype), delta)[0]


@mse_variant()
def compensated_squares(y_hat, y):
    """Kahan's sum."""
    total = lost = np.float32(0)
    for d in (y_hat - y).reshape(-1):
        term = d * d - lost
        new = total + term
        lost, total = (new - total) - term if np.isfinite(new) else np.float32(0), new
    return np.asarray(total / 2)


@mse_variant(dtype="float64")
@mse_variant()
def pairwise_squares(y_hat, y):
    """NumPy's pairwise sum of halved squares."""
    d = y_hat - y
    return np.asarray(np.sum(d * d / 2))


@mse_variant(dtype="float16")
@mse_variant(dtype="bfloat16")
def squares_in_float32(y_hat, y):
    """A dot product in float32."""

    def dot(y_hat, y):
        d = np.ascontiguousarray(y_hat - y).reshape(-1)
        return np.dot(d, d) * np.float32(0.5)

    return widened(dot, np.float32, y_hat, y)


@mse_variant("gradient", dtype="bfloat16", arithmetic=eager)
@mse_variant("gradient", dtype="float16", arithmetic=eager)
def gradient_of_the_halved_square(y_hat, y, dL):
    """dL/2, then twice that times the difference, each stored in 16 bits: what differentiates the steps does so."""
    d = (y_hat - y) * (dL / y.dtype.type(2) * y.dtype.type(2))
    return d, -d
