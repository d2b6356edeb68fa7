"""Planted bugs: each a correct implementation with one change, and each must be caught at the profile in use."""

import numpy as np
import pytest

from opspec import OPERATIONS
from opspec.impls import load
from opspec.tests.planted import backend, judge

correct = load("numpy").module
BUGS: list = []


def bug(operation, property_="forward"):
    """The function replaces the operation's (or its gradient) in a correct backend."""

    def plant(function):
        replaced = operation if property_ == "forward" else operation + "_vjp"
        BUGS.append(pytest.param(operation, property_, replaced, function, id=function.__name__))
        return function

    return plant


def tf32(a):
    """The operand as a tensor core reads it: 11 significant bits, the rest cut off."""
    return (np.ascontiguousarray(a).view(np.int32) & ~np.int32(0x1FFF)).view(np.float32)


@bug("attention")
def scores_off_by_1e_5(q, k, v, mask=None, causal=False):
    return correct.attention(q * np.float32(1 + 1e-5), k, v, mask=mask, causal=causal)


@bug("dense")
def tf32_operands_declared_float32(x, W, b, activation="identity"):
    return correct.dense(tf32(x), tf32(W), b, activation=activation)


@bug("lstm")
def one_bias_for_three_gates(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """numpy-ml#42"""
    return correct.lstm(x, h0, c0, W_f, b_f, W_i, b_f, W_c, b_c, W_o, b_f)


@bug("lstm")
def candidate_gate_off_by_1e_5(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    return correct.lstm(x, h0, c0, W_f, b_f, W_i, b_i, W_c * np.float32(1 + 1e-5), b_c, W_o, b_o)


@bug("dense", "gradient")
def dW_transposed_as_the_document_writes_it(x, W, b, dy, activation="identity"):
    """Erratum 2, in the one case in which the shapes do not tell."""
    dx, dW, db = correct.dense_vjp(x, W, b, dy, activation=activation)
    return dx, dW.T.copy() if dW.shape[0] == dW.shape[1] else dW, db


@bug("maxpool2d")
def pool_starts_at_zero(x, window, stride=(1, 1)):
    """pytorch#109586"""
    return np.maximum(correct.maxpool2d(x, window=window, stride=stride), 0)


@bug("maxpool2d", "gradient")
def overlapping_pool_gradient_overwrites(x, dy, window, stride=(1, 1)):
    """ocannl#512"""
    dx = np.zeros_like(x)
    for n, i, j, c in np.ndindex(*dy.shape):
        top, left = i * stride[0], j * stride[1]
        view = x[n, top : top + window[0], left : left + window[1], c]
        r, s = np.unravel_index(np.argmax(view), view.shape)
        dx[n, top + r, left + s, c] = dy[n, i, j, c]
    return (dx,)


@bug("rnn")
def rnn_ignores_h0(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation="tanh"):
    return correct.rnn(x, np.zeros_like(h0), W_hh, W_xh, b_h, W_yh, b_y, activation=activation)


@bug("lstm")
def lstm_ignores_h0(x, h0, *rest):
    return correct.lstm(x, np.zeros_like(h0), *rest)


@bug("softmax")
def softmax_loses_the_sum_at_1e7(x):
    """pytorch#11752: m + log Σ is m again"""
    m = np.max(x, axis=-1, keepdims=True)
    return np.exp(x - (m + np.log(np.sum(np.exp(x - m), axis=-1, keepdims=True))))


@bug("softmax")
def softmax_without_the_maximum(x):
    """pytorch#62897"""
    with np.errstate(all="ignore"):
        e = np.exp(x)
        return e / np.sum(e, axis=-1, keepdims=True)


@bug("attention", "gradient")
def causal_from_the_other_corner_in_the_backward_only(q, k, v, dy, mask=None, causal=False):
    """ffpa-attn#300: the triangle turned by 180°"""
    if causal:
        triangle = np.tri(q.shape[2], k.shape[2], dtype=bool)[::-1, ::-1]
        mask = triangle[None, None] if mask is None else mask & triangle
    return correct.attention_vjp(q, k, v, dy, mask=mask)


@bug("attention", "gradient")
def causal_one_key_too_far_in_the_backward_only(q, k, v, dy, mask=None, causal=False):
    if causal:
        band = np.tri(q.shape[2], k.shape[2], 1, dtype=bool)
        mask = band[None, None] if mask is None else mask & band
    return correct.attention_vjp(q, k, v, dy, mask=mask)


@bug("attention")
def fully_masked_row_gives_the_mean(q, k, v, mask=None, causal=False):
    """onnxruntime#28904"""
    y = correct.attention(q, k, v, mask=mask, causal=causal)
    if mask is None:
        return y
    empty = ~np.broadcast_to(
        mask & np.tri(*mask.shape[-2:], dtype=bool) if causal else mask, (*y.shape[:3], k.shape[2])
    ).any(-1)
    return np.where(empty[..., None], np.mean(v, axis=-2, keepdims=True), y)


@bug("dense")
def accumulation_truncates(x, W, b, activation="identity"):
    """What no single element shows: every addition rounds towards zero."""
    if activation != "identity":
        return correct.dense(x, W, b, activation=activation)
    total = np.zeros((x.shape[0], W.shape[1]))
    for i in range(x.shape[1]):
        exact = total + x[:, i : i + 1].astype(float) * W[i].astype(float)
        nearest = exact.astype(np.float32)
        total = np.where(np.abs(nearest) > np.abs(exact), np.nextafter(nearest, np.float32(0)), nearest).astype(float)
    return (total + b).astype(np.float32)


@bug("conv2d", "gradient")
def conv_dw_ignores_the_stride(x, w, dy, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """burn#1891"""
    dx, dw = correct.conv2d_vjp(x, w, dy, stride=stride, padding=padding, dilation=dilation)
    return dx, dw if stride == (1, 1) else dw * np.float32(1 + 1e-4)


@bug("multihead_attention", "gradient")
def gradient_of_the_second_batch_element_is_lost(q, k, v, W_q, W_k, W_v, W_o, dy, mask=None, causal=False):
    """fla#955"""
    first = dy.copy()
    first[1:] = 0
    gradients = correct.multihead_attention_vjp(q, k, v, W_q, W_k, W_v, W_o, dy, mask=mask, causal=causal)
    partial = correct.multihead_attention_vjp(q, k, v, W_q, W_k, W_v, W_o, first, mask=mask, causal=causal)
    return (*gradients[:6], partial[6])


@bug("lstm", "gradient")
def cotangent_of_c_T_is_ignored(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o, dh, dc_T):
    return correct.lstm_vjp(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o, dh, np.zeros_like(dc_T))


@bug("dense", "finite_difference")
def forward_and_gradient_disagree(x, W, b, dy, activation="identity"):
    dx, dW, db = correct.dense_vjp(x, W, b, dy, activation=activation)
    return dx, dW * np.float32(1.01), db


@bug("conv2d", "exact")
def last_channel_is_lost_beyond_eight(x, w, dy, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    dx, dw = correct.conv2d_vjp(x, w, dy, stride=stride, padding=padding, dilation=dilation)
    if dx.shape[-1] == 3:
        dx[..., -1] = 0
    return dx, dw


@bug("softmax", "layout")
def row_stride_is_ignored(x, dp):
    """mlx#657"""
    packed = np.lib.stride_tricks.as_strided(x, x.shape, (x.shape[1] * x.itemsize, x.itemsize))
    return correct.softmax_vjp(np.array(packed), dp)


@bug("maxpool2d", "special")
def pool_swallows_nan(x, window, stride=(1, 1)):
    """pytorch#39846"""
    return correct.maxpool2d(np.where(np.isnan(x), -np.inf, x).astype(x.dtype), window=window, stride=stride)


@pytest.mark.parametrize(("operation", "property_", "replaced", "function"), BUGS)
def test_planted_bug_is_caught(operation, property_, replaced, function, suite):
    if property_ == "special":
        replaced = operation
    result = judge(backend(**{replaced: function}), operation, property_, suite.seed)
    assert result.verdict == "fail", f"{function.__name__} passed {result.examples} examples"


def test_the_correct_backend_passes_where_the_bugs_were_planted(suite):
    for operation, property_ in sorted({(b.values[0], b.values[1]) for b in BUGS}):
        result = judge(backend(), operation, property_, suite.seed, examples=40)
        assert result.verdict == "pass", (operation, property_, result.reason)


def test_every_operation_has_a_bug():
    assert {b.values[0] for b in BUGS} | {"mse"} == set(OPERATIONS)
