"""Variants of softmax, attention and multi-head attention: online, two-pass, in base 2, by blocks, head by head."""

import math

import ml_dtypes
import numpy as np

from ...spec import Arithmetic
from ..planted import Planting
from .widened import eager, widened

softmax_variant, variant, multihead_variant = (Planting(op) for op in ("softmax", "attention", "multihead_attention"))


@softmax_variant(dtype="float64")
@softmax_variant()
def online_in_blocks_of_eight(x):
    """One pass for the maximum and the sum, which is rescaled wherever the maximum grows."""
    m, total = np.full((len(x), 1), -np.inf, x.dtype), np.zeros((len(x), 1), x.dtype)
    for i in range(0, x.shape[1], 8):
        block = x[:, i : i + 8]
        new = np.maximum(m, block.max(-1, keepdims=True))
        rescale = np.where(m == new, x.dtype.type(1), np.exp(m - new))
        shifted = np.where(block == new, x.dtype.type(0), block - new)
        total = total * rescale + np.exp(shifted).sum(-1, keepdims=True)
        m = new
    return np.exp(x - m) / total


@softmax_variant()
def through_exp2(x):
    """2^(z · log₂e), times the reciprocal of the sum."""
    e = np.exp2((x - x.max(-1, keepdims=True)) * x.dtype.type(math.log2(math.e)))
    return e * (1 / e.sum(-1, keepdims=True))


@softmax_variant()
def two_passes_summed_backwards(x):
    """The terms one after another, from the last."""
    e, total = np.exp(x - x.max(-1, keepdims=True)), x.dtype.type(0)
    for j in reversed(range(x.shape[1])):
        total = total + e[:, j : j + 1]
    return e / total


@softmax_variant(dtype="bfloat16")
@softmax_variant(dtype="float16")
def softmax_in_float32(x):
    """float32 inside, rounded once."""
    return widened(online_in_blocks_of_eight, np.float32, x)


@softmax_variant("gradient", dtype="float64")
@softmax_variant("gradient")
def jacobian_multiplied_out(x, dp):
    """p ⊙ dp − p Σ p dp."""
    p = online_in_blocks_of_eight(x)
    weighted = p * dp
    return (weighted - p * weighted.sum(-1, keepdims=True),)


def may_attend(q, k, mask, causal):
    allowed = np.ones((1, 1, q.shape[2], k.shape[2]), bool) if mask is None else mask
    return allowed & np.tri(*allowed.shape[2:], dtype=bool) if causal else allowed


def online(q, k, v, mask, causal, exp, base, operands=lambda a: a, block=5):
    """Rows are rescaled as keys come in blocks; exp is to a base whose logarithm of e is `base`."""
    zero, low = q.dtype.type(0), q.dtype.type(-np.inf)
    allowed = may_attend(q, k, mask, causal)
    m = np.full((*q.shape[:3], 1), low, q.dtype)
    total, y = np.zeros_like(m), np.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    factor = q.dtype.type(base / math.sqrt(q.shape[3]))
    for s in range(0, k.shape[2], block):
        scores = np.where(allowed[..., s : s + block], (q @ k[:, :, s : s + block].mT) * factor, low)
        new = np.maximum(m, scores.max(-1, keepdims=True))
        reference = np.where(np.isfinite(new), new, zero)
        rescale, p = exp(m - reference), exp(scores - reference)
        total = total * rescale + p.sum(-1, keepdims=True)
        y = y * rescale + operands(p) @ v[:, :, s : s + block]
        m = new
    return y / np.where(total > 0, total, q.dtype.type(1))


@variant(dtype="float64")
@variant()
def online_in_blocks_of_five_keys(q, k, v, mask=None, causal=False):
    """As FlashAttention walks over the keys."""
    return online(q, k, v, mask, causal, np.exp, 1.0)


@variant()
def online_in_base_two(q, k, v, mask=None, causal=False):
    """log₂e / √D is one constant, by which the scores are multiplied."""
    return online(q, k, v, mask, causal, np.exp2, math.log2(math.e), block=8)


@variant()
def weights_of_all_keys_at_once(q, k, v, mask=None, causal=False):
    """Unfused: every query scaled before the product, P whole, normalised before P V."""
    p, _ = weights(q * q.dtype.type(1 / math.sqrt(q.shape[3])), k, may_attend(q, k, mask, causal))
    return p @ v


@variant()
def attention_in_float64(q, k, v, **parameters):
    """float64 inside, rounded once."""
    return widened(online_in_blocks_of_five_keys, np.float64, q, k, v, **parameters)


@variant(dtype="bfloat16")
@variant(dtype="float16")
def attention_in_float32(q, k, v, **parameters):
    """float32 inside, rounded once."""
    return widened(online_in_base_two, np.float32, q, k, v, **parameters)


@variant(dtype="bfloat16", arithmetic=lambda op, dtype: Arithmetic(dtype, operands=dtype, function_ulps=3.0))
def p_rounded_to_bfloat16_and_declared(q, k, v, mask=None, causal=False):
    """Operands of products are bfloat16, P among them, and the declared arithmetic says so."""

    def wide(q, k, v):
        narrow = lambda p: p.astype(ml_dtypes.bfloat16).astype(np.float32)  # noqa: E731
        return online(q, k, v, mask, causal, np.exp, 1.0, narrow)

    return widened(wide, np.float32, q, k, v)


@variant(dtype="bfloat16", arithmetic=eager)
@variant(dtype="float16", arithmetic=eager)
def every_step_stored_in_16_bits_and_declared(q, k, v, mask=None, causal=False):
    """Unfused, as an eager framework computes: scores, differences, exponentials, their sum and P are stored."""
    return stored_product(stored_weights(q, k, may_attend(q, k, mask, causal)), v)


@variant("gradient", dtype="bfloat16", arithmetic=eager)
@variant("gradient", dtype="float16", arithmetic=eager)
def gradient_every_step_of_which_is_stored_and_declared(q, k, v, dy, mask=None, causal=False):
    """Unfused, in 16 bits: P, dP, P dP, its row sums and dS are stored."""
    p, dp = stored_weights(q, k, may_attend(q, k, mask, causal)), stored_product(dy, v.mT)
    ds = p * (dp - stored_sum(p * dp)) / q.dtype.type(math.sqrt(q.shape[3]))
    return stored_product(ds, k), stored_product(ds.mT, q), stored_product(p.mT, dy)


def stored_weights(q, k, allowed):
    s = np.where(allowed, stored_product(q, k.mT) / q.dtype.type(math.sqrt(q.shape[3])), q.dtype.type(-np.inf))
    m = s.max(-1, keepdims=True)
    e = np.exp(s - np.where(np.isfinite(m), m, q.dtype.type(0)))
    total = stored_sum(e)
    return e / np.where(total > 0, total, q.dtype.type(1))


def stored_product(a, b):
    return (a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype)


def stored_sum(a):
    return a.sum(-1, keepdims=True, dtype=np.float32).astype(a.dtype)


@variant("gradient", dtype="float64")
@variant("gradient")
def gradient_through_rowsum_of_y_dy(q, k, v, dy, mask=None, causal=False):
    """Σ P dP is Σ y dy: FlashAttention's D."""
    scale = q.dtype.type(1 / math.sqrt(q.shape[3]))
    p, _ = weights(q * scale, k, may_attend(q, k, mask, causal))
    D = np.sum((p @ v) * dy, axis=-1, keepdims=True)
    ds = p * (dy @ v.mT - D) * scale
    return ds @ k, ds.mT @ q, p.mT @ dy


@variant("gradient")
def gradient_from_the_log_sum_of_exponentials(q, k, v, dy, mask=None, causal=False):
    """P is computed anew, block of queries by block, as e^(score − L); dK and dV grow by a block at a time."""
    scale = q.dtype.type(1 / math.sqrt(q.shape[3]))
    allowed = np.broadcast_to(may_attend(q, k, mask, causal), (*q.shape[:3], k.shape[2]))
    _, L = weights(q * scale, k, allowed)
    dq, dk, dv = (np.zeros_like(a) for a in (q, k, v))
    for n in range(0, q.shape[2], 4):
        rows = (slice(None), slice(None), slice(n, n + 4))
        scores = np.where(allowed[rows], q[rows] @ k.mT * scale, q.dtype.type(-np.inf))
        p = np.exp(scores - L[rows])
        dp = dy[rows] @ v.mT
        ds = p * (dp - np.sum(p * dp, axis=-1, keepdims=True))
        dq[rows] = ds @ k * scale
        dk += ds.mT @ q[rows] * scale
        dv += p.mT @ dy[rows]
    return dq, dk, dv


@variant("gradient", dtype="float64")
@variant("gradient")
def gradient_with_the_output_of_the_forward(q, k, v, dy, mask=None, causal=False):
    """D = Σ y dy is the forward's y, while P is computed anew from scores that are scaled last: rounded otherwise."""
    scale = q.dtype.type(1 / math.sqrt(q.shape[3]))
    allowed = may_attend(q, k, mask, causal)
    p, L = weights(q * scale, k, allowed)
    D = np.sum((p @ v) * dy, axis=-1, keepdims=True)
    p = np.exp(np.where(allowed, q @ k.mT * scale, q.dtype.type(-np.inf)) - L)
    ds = p * (dy @ v.mT - D) * scale
    return ds @ k, ds.mT @ q, p.mT @ dy


def weights(q, k, allowed):
    """P of scaled queries, and each row's L = log Σ e^score; where no key is allowed, 0 and 0."""
    s = np.where(allowed, q @ k.mT, q.dtype.type(-np.inf))
    m = s.max(-1, keepdims=True)
    m = np.where(np.isfinite(m), m, q.dtype.type(0))
    e = np.exp(s - m)
    total = e.sum(-1, keepdims=True)
    total = np.where(total > 0, total, q.dtype.type(1))
    return e / total, m + np.log(total)


@multihead_variant()
def all_heads_in_one_product(q, k, v, W_q, W_k, W_v, W_o, mask=None, causal=False):
    """One projection for all heads; the output as a sum over heads."""
    h = len(W_q)

    def project(x, W):
        y = x @ np.concatenate(list(W), axis=1)
        return y.reshape(*y.shape[:2], h, -1).transpose(0, 2, 1, 3)

    heads = online_in_blocks_of_five_keys(project(q, W_q), project(k, W_k), project(v, W_v), mask, causal)
    return sum(heads[:, i] @ W for i, W in enumerate(np.split(W_o, h)))


@multihead_variant(dtype="bfloat16")
@multihead_variant(dtype="float16")
def multihead_in_float32(*arrays, **parameters):
    """float32 inside, rounded once."""
    return widened(all_heads_in_one_product, np.float32, *arrays, **parameters)


@multihead_variant("gradient", dtype="float64")
@multihead_variant("gradient")
def gradient_head_by_head(q, k, v, W_q, W_k, W_v, W_o, dy, mask=None, causal=False):
    """Each head alone, through attention's gradient; what q, k and v receive is added up over the heads."""
    dq, dk, dv = (np.zeros_like(a) for a in (q, k, v))
    gradients = [], [], [], []
    for n, W in enumerate(np.split(W_o, len(W_q))):
        one = mask if mask is None or mask.shape[1] == 1 else mask[:, n : n + 1]
        Q, K, V = ((x @ P[n])[:, None] for x, P in ((q, W_q), (k, W_k), (v, W_v)))
        y = online_in_blocks_of_five_keys(Q, K, V, one, causal)[:, 0]
        dQ, dK, dV = gradient_through_rowsum_of_y_dy(Q, K, V, (dy @ W.T)[:, None], one, causal)
        dq, dk, dv = dq + dQ[:, 0] @ W_q[n].T, dk + dK[:, 0] @ W_k[n].T, dv + dV[:, 0] @ W_v[n].T
        new = [np.einsum("blf,bld->fd", x, d[:, 0]) for x, d in ((q, dQ), (k, dK), (v, dV))]
        for parts, part in zip(gradients, [*new, np.einsum("bld,blf->df", y, dy)], strict=True):
            parts.append(part)
    dW_q, dW_k, dW_v = (np.stack(parts) for parts in gradients[:3])
    return dq, dk, dv, dW_q, dW_k, dW_v, np.concatenate(gradients[3])
