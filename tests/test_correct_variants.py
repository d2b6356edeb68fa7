"""Correct rewrites of the operations: other orders of summation, fused, blocked, wider inside. None may be refused.

`pytest tests/test_correct_variants.py --hypothesis-profile thorough` judges 2000 examples of each.
"""

import math

import numpy as np
import pytest

from opspec.impls import load
from opspec.tests.planted import backend, judge

correct = load("numpy").module
VARIANTS: list = []
f32 = np.float32


def variant(operation, property_="forward"):
    def add(function):
        VARIANTS.append(pytest.param(operation, property_, function, id=function.__name__))
        return function

    return add


def phi(z, activation):
    with np.errstate(over="ignore"):
        return {
            "identity": lambda z: z,
            "relu": lambda z: np.where(z > 0, z, z.dtype.type(0)),
            "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
            "tanh": np.tanh,
        }[activation](z)


@variant("dense")
def dense_one_term_after_another_from_the_bias(x, W, b, activation="identity"):
    z = np.broadcast_to(b, (x.shape[0], W.shape[1])).copy()
    for i in range(x.shape[1]):
        z += x[:, i : i + 1] * W[i]
    return phi(z, activation)


@variant("dense")
def dense_last_term_first(x, W, b, activation="identity"):
    z = np.zeros((x.shape[0], W.shape[1]), x.dtype)
    for i in reversed(range(x.shape[1])):
        z += x[:, i : i + 1] * W[i]
    return phi(z + b, activation)


@variant("dense")
def dense_in_blocks_of_sixteen(x, W, b, activation="identity"):
    parts = [x[:, i : i + 16] @ W[i : i + 16] for i in range(0, x.shape[1], 16)]
    while len(parts) > 1:
        parts = [sum(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return phi(parts[0] + b, activation)


@variant("dense")
def dense_in_float64(x, W, b, activation="identity"):
    return phi(x.astype(float) @ W.astype(float) + b, activation).astype(x.dtype)


@variant("mse")
def mse_compensated(y_hat, y):
    total = lost = f32(0)
    for d in (y_hat - y).reshape(-1):
        term = d * d - lost
        new = total + term
        lost, total = (new - total) - term, new
    return np.asarray(total / 2)


@variant("mse")
def mse_by_a_dot_product(y_hat, y):
    d = np.ascontiguousarray(y_hat - y).reshape(-1)
    return np.asarray(np.dot(d, d) * f32(0.5))


@variant("softmax")
def softmax_online_in_blocks_of_eight(x):
    m, total = np.full((len(x), 1), -np.inf, x.dtype), np.zeros((len(x), 1), x.dtype)
    for i in range(0, x.shape[1], 8):
        block = x[:, i : i + 8]
        new = np.maximum(m, block.max(-1, keepdims=True))
        with np.errstate(invalid="ignore"):
            rescale = np.where(m == new, f32(1), np.exp(m - new))
            shifted = np.where(block == new, f32(0), block - new)
        total = total * rescale + np.exp(shifted).sum(-1, keepdims=True)
        m = new
    return np.exp(x - m) / total


@variant("softmax")
def softmax_through_exp2(x):
    z = (x - x.max(-1, keepdims=True)) * f32(math.log2(math.e))
    e = np.exp2(z)
    return e * (1 / e.sum(-1, keepdims=True))


@variant("conv2d")
def conv2d_as_shifted_sums(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    kH, kW = w.shape[:2]
    oH, oW = (
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[1:3], (kH, kW), stride, dilation, strict=True)
    )
    y = 0
    for r in reversed(range(kH)):
        for s in range(kW):
            tap = x[:, r * dilation[0] :: stride[0], s * dilation[1] :: stride[1]][:, :oH, :oW]
            y = y + tap @ w[r, s]
    return y


@variant("conv2d")
def conv2d_by_einsum_in_float64(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    return conv2d_as_shifted_sums(x.astype(float), w.astype(float), stride, padding, dilation).astype(x.dtype)


@variant("maxpool2d")
def maxpool2d_tap_by_tap(x, window, stride=(1, 1)):
    oH, oW = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], window, stride, strict=True))
    taps = [x[:, r :: stride[0], s :: stride[1]][:, :oH, :oW] for r in range(window[0]) for s in range(window[1])]
    y = taps[-1]
    for tap in taps[-2::-1]:
        y = np.maximum(y, tap)
    return np.array(y)


@variant("rnn")
def rnn_with_one_product_a_step(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation="tanh"):
    W = np.concatenate([W_xh, W_hh], axis=1)
    h, hs = h0, []
    for x_t in x:
        h = phi(np.concatenate([x_t, h], axis=1) @ W.T + b_h, activation)
        hs.append(h)
    hs = np.stack(hs)
    return phi(hs @ W_yh.T + b_y, activation), hs


@variant("lstm")
def lstm_gate_by_gate(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    H, h, c, hs = h0.shape[1], h0, c0, []
    for x_t in x:
        f, i, g, o = (
            x_t @ W[:, H:].T + (b + h @ W[:, :H].T) for W, b in ((W_f, b_f), (W_i, b_i), (W_c, b_c), (W_o, b_o))
        )
        c = phi(i, "sigmoid") * np.tanh(g) + phi(f, "sigmoid") * c
        h = phi(o, "sigmoid") * np.tanh(c)
        hs.append(h)
    return np.stack(hs), c


@variant("attention")
def attention_online_in_blocks_of_five_keys(q, k, v, mask=None, causal=False):
    M, S, D = q.shape[2], k.shape[2], q.shape[3]
    allowed = np.ones((1, 1, M, S), bool) if mask is None else mask
    allowed = allowed & np.tri(M, S, dtype=bool) if causal else allowed
    m = np.full((*q.shape[:3], 1), -np.inf, q.dtype)
    total, y = np.zeros_like(m), np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    q = q * f32(1 / math.sqrt(D))
    for s in range(0, S, 5):
        scores = np.where(allowed[..., s : s + 5], q @ k[:, :, s : s + 5].mT, f32(-np.inf))
        new = np.maximum(m, scores.max(-1, keepdims=True))
        base = np.where(np.isfinite(new), new, f32(0))
        rescale, p = np.exp(m - base), np.exp(scores - base)
        total = total * rescale + p.sum(-1, keepdims=True)
        y = y * rescale + p @ v[:, :, s : s + 5]
        m = new
    return y / np.where(total > 0, total, f32(1))


@variant("attention", "gradient")
def attention_gradient_through_rowsum_of_y_dy(q, k, v, dy, mask=None, causal=False):
    scale = f32(1 / math.sqrt(q.shape[3]))
    allowed = np.ones((1, 1, q.shape[2], k.shape[2]), bool) if mask is None else mask
    allowed = allowed & np.tri(*allowed.shape[2:], dtype=bool) if causal else allowed
    s = np.where(allowed, q @ k.mT * scale, f32(-np.inf))
    m = s.max(-1, keepdims=True)
    e = np.exp(s - np.where(np.isfinite(m), m, f32(0)))
    total = e.sum(-1, keepdims=True)
    p = e / np.where(total > 0, total, f32(1))
    delta = np.sum((p @ v) * dy, axis=-1, keepdims=True)
    ds = p * (dy @ v.mT - delta) * scale
    return ds @ k, ds.mT @ q, p.mT @ dy


@variant("multihead_attention")
def multihead_attention_with_all_heads_in_one_product(q, k, v, W_q, W_k, W_v, W_o, mask=None, causal=False):
    h = len(W_q)

    def project(x, W):
        y = x @ np.concatenate(list(W), axis=1)
        return y.reshape(*y.shape[:2], h, -1).transpose(0, 2, 1, 3)

    heads = attention_online_in_blocks_of_five_keys(project(q, W_q), project(k, W_k), project(v, W_v), mask, causal)
    return sum(heads[:, i] @ W for i, W in enumerate(np.split(W_o, h)))


@pytest.mark.parametrize(("operation", "property_", "function"), VARIANTS)
def test_correct_variant_is_not_refused(operation, property_, function, suite):
    replaced = operation if property_ == "forward" else operation + "_vjp"
    result = judge(backend(**{replaced: function}), operation, property_, suite.seed)
    assert result.verdict == "pass", result
