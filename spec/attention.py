"""Attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V.    (document §3.4.1)"""

import numpy as np

from .signature import Operation
from .softmax import log_sum_exp, softmax


def attention(q, k, v, mask=None, causal=False):
    """softmax(q kᵀ / √d_k) v, d_k being the width of the keys.

    q [B,H,M,D], k [B,H,S,D], v [B,H,S,E] → [B,H,M,E]. mask: bool [B or 1,H or 1,M,S], true where the query may
    attend; causal (M = S only): query m may attend to keys 0 … m. A query that may attend to no key gives 0.
    Source: document §3.4.1.
    Laws: attention.permutes_with_queries      y(πq, k, v) = π y(q, k, v), with the mask's rows
          attention.ignores_the_order_of_keys  y(q, πk, πv) = y(q, k, v), with the mask's columns
          attention.one_key_returns_its_value  y = v_s where s is the only key, or the only one that the mask leaves
          attention.causal_is_a_mask           causal=True is mask[m, s] = s ≤ m
          attention.batch_is_independent       y(q, k, v)_b = y(q_b, k_b, v_b)
    """
    return softmax(scores(q, k), where=may_attend(q, k, mask, causal)) @ v


def attention_vjp(q, k, v, dy, mask=None, causal=False):
    """dP = dy vᵀ, dS = P ⊙ (dP − Σₑ dyₑ yₑ), ∂L/∂q = dS k / √d_k, ∂L/∂k = dSᵀ q / √d_k, ∂L/∂v = Pᵀ dy.

    Only y and L = log Σ e^S are kept of the forward: the weights are recomputed as P = e^(S − L), and softmax's Σⱼ Pⱼ dPⱼ
    is written Σₑ dyₑ yₑ. These forms need no row of P at once (Dao 2023, FlashAttention-2, §3.1), and are the least
    favourable for rounding: where S was computed for L, for y and for P, its errors do not cancel.
    Laws: attention.vjp_is_linear  vjp(dy + dz) = vjp(dy) + vjp(dz), for given arrays
    """
    where = may_attend(q, k, mask, causal)
    L = log_sum_exp(scores(q, k), where)
    y, P = weights(q, k, L, where) @ v, weights(q, k, L, where)
    dy_y = (dy[..., None, :] @ y[..., None])[..., 0]
    dS = P * (dy @ v.mT - dy_y) / np.sqrt(k.shape[-1])
    return dS @ k, dS.mT @ q, P.mT @ dy


def scores(q, k):
    return q @ k.mT / np.sqrt(k.shape[-1])


def weights(q, k, L, where):
    """softmax(S) as e^(S − L); 0 where the query may not attend."""
    return np.where(where, np.exp(np.where(where, scores(q, k) - L, 0)), 0)


def may_attend(q, k, mask, causal):
    M, S = q.shape[-2], k.shape[-2]
    where = np.ones((1, 1, M, S), dtype=bool) if mask is None else mask
    return np.logical_and(where, np.tri(M, S, dtype=bool)) if causal else where


def derive_mask(operation, sizes, mask, causal, heads):
    """Raises ValueError where the mask's shape or `causal` does not fit; `heads` is the letter of the heads' size."""
    M, S = sizes["M"], sizes["S"]
    if not isinstance(causal, bool):
        raise ValueError(f"{operation}: causal must be True or False, got {causal!r}")
    if causal and M != S:
        raise ValueError(f"{operation}: causal needs as many queries as keys, got M = {M}, S = {S}")
    if mask is None:
        return {}
    if "bool" not in str(getattr(mask, "dtype", type(mask))):
        raise ValueError(f"{operation}: mask must be a bool array, got {getattr(mask, 'dtype', type(mask).__name__)}")
    shape = tuple(int(n) for n in mask.shape)
    allowed = ((1, sizes["B"]), (1, sizes[heads]), (M,), (S,))
    if len(shape) != 4 or any(n not in sizes_ for n, sizes_ in zip(shape, allowed, strict=True)):
        expected = f"[{sizes['B']} or 1, {sizes[heads]} or 1, {M}, {S}]"
        raise ValueError(f"{operation}: mask must have shape {expected}, got {shape}")
    return {}


def _derive(sizes, *, mask, causal):
    return derive_mask("attention", sizes, mask, causal, heads="H")


OPERATION = Operation(
    name="attention",
    function=attention,
    vjp=attention_vjp,
    section="3.4.1",
    equation="Attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V",
    arrays={"q": "B H M D", "k": "B H S D", "v": "B H S E"},
    outputs={"y": "B H M E"},
    defaults={"mask": None, "causal": False},
    derive=_derive,
)
