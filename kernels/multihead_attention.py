"""Multi-head attention and its gradient: projections are products with the weights of all heads side by side, [F, h·d].

No head is copied: a projection [B·L, h·d] is read as heads [B,h,L,d] by its strides, and what attention writes by heads
is, in memory, their concatenation. The weights, a head's of which are a matrix each, are copied to lie side by side.
Queries, keys, values, heads and their gradients are kept in the arrays' format: they are operands of products only.
Bytes and flops: those of linear (dense.py) for the projections, 2·B·L·F·h·d each, and of attention for the heads.
"""

from .attention import attend
from .attention_backward import differentiate
from .dense import linear
from .launch import empty


def multihead_attention(q, k, v, W_q, W_k, W_v, W_o, *, mask=None, causal=False):
    """Concat(head_1, …, head_h) W_o, head_i = Attention(q W_q[i], k W_k[i], v W_v[i]): → [B,M,F].

    q [B,M,F], k [B,S,F], v [B,S,F], W_q W_k [h,F,d_k], W_v [h,F,d_v], W_o [h·d_v,F]; mask and causal as in attention.
    """
    h = len(W_q)
    Q, K, V = (_heads(linear(_rows(x), _beside(W)), len(x), h) for x, W in ((q, W_q), (k, W_k), (v, W_v)))
    A = _like_heads(Q, V)
    attend(Q, K, V, mask, causal, y=A)
    return linear(_concat(A), W_o).view(q.shape)


def multihead_attention_vjp(q, k, v, W_q, W_k, W_v, W_o, dy, *, mask=None, causal=False):
    """The chain rule through Concat, Attention and the projections, which are computed again."""
    h, weights = len(W_q), [_beside(W) for W in (W_q, W_k, W_v)]
    Q, K, V = (_heads(linear(_rows(x), W), len(x), h) for x, W in zip((q, k, v), weights, strict=True))
    A = _like_heads(Q, V)
    dA = _heads(linear(_rows(dy), W_o.mT), len(q), h)
    L, delta = attend(Q, K, V, mask, causal, y=A, dy=dA)
    gradients = _like_heads(Q, Q), _like_heads(K, K), _like_heads(V, V)
    differentiate(Q, K, V, dA, mask, causal, L, delta, *gradients)
    dQ, dK, dV = map(_concat, gradients)
    inputs = [linear(d, W.mT).view(x.shape) for d, W, x in zip((dQ, dK, dV), weights, (q, k, v), strict=True)]
    projections = [
        linear(_rows(x).mT, d).unflatten(1, (h, -1)).transpose(0, 1)
        for x, d in ((q, dQ), (k, dK), (v, dV))
    ]  # fmt: skip
    return *inputs, *projections, linear(_concat(A).mT, _rows(dy))


def _rows(x):
    """[B,L,F] → [B·L,F]"""
    return x.flatten(0, 1)


def _beside(W):
    """[h,F,d] → [F,h·d], a copy."""
    return W.transpose(0, 1).flatten(1)


def _heads(x, B, h):
    """[B·L,h·d] → [B,h,L,d], a view."""
    return x.unflatten(0, (B, -1)).unflatten(2, (h, -1)).transpose(1, 2)


def _concat(heads):
    """The inverse of _heads, a view."""
    return heads.transpose(1, 2).flatten(2).flatten(0, 1)


def _like_heads(rows, columns):
    """Memory for heads [B,h,L,d], L being that of `rows` and d that of `columns`, that lie concatenated."""
    (B, h, L, _), d = rows.shape, columns.shape[3]
    return _heads(empty((B * L, h * d), rows.dtype, rows.device), B, h)
