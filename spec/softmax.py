"""softmax(x)ᵢ = e^xᵢ / Σⱼ e^xⱼ.    (document §3.4.1)"""

import numpy as np

from .signature import Operation


def softmax(x, where=True):
    """e^(xᵢ − m) / Σⱼ e^(xⱼ − m) with m = maxⱼ xⱼ, over the last axis; m cancels, and keeps eˣ finite.

    x [N,M] (any leading axes) → the same shape. `where` [broadcastable to x] limits i and j to the true entries;
    elsewhere, and in a row without a true entry, the result is 0. Source: document §3.4.1.
    Laws: softmax.rows_sum_to_one       Σⱼ softmax(x)ⱼ = 1
          softmax.ignores_shifts        softmax(x + c) = softmax(x), one c per row
          softmax.batch_is_independent  softmax(x)ₙ = softmax(xₙ)
    """
    e, _ = shifted(x, where)
    return e / np.where(np.any(where, axis=-1, keepdims=True), np.sum(e, axis=-1, keepdims=True), 1)


def log_sum_exp(x, where=True):
    """log Σⱼ e^xⱼ = m + log Σⱼ e^(xⱼ − m), so that softmax(x)ᵢ = e^(xᵢ − log Σⱼ e^xⱼ); 0 in a row without a true entry."""
    e, m = shifted(x, where)
    return m + np.log(np.where(np.any(where, axis=-1, keepdims=True), np.sum(e, axis=-1, keepdims=True), 1))


def shifted(x, where):
    """e^(x − m), 0 where `where` is false, and m, the largest of the true entries."""
    m = np.max(np.where(where, x, -np.inf), axis=-1, keepdims=True)
    m = np.where(np.any(where, axis=-1, keepdims=True), m, 0)
    return np.where(where, np.exp(np.where(where, x - m, 0)), 0), m


def softmax_vjp(x, dp, where=True):
    """∂L/∂x = p ⊙ (dp − Σⱼ pⱼ dpⱼ), with p = softmax(x).

    Laws: softmax.vjp_is_linear  vjp(dp + dq) = vjp(dp) + vjp(dq), for a given x
    """
    p = softmax(x, where)
    return (p * (dp - np.sum(p * dp, axis=-1, keepdims=True)),)


OPERATION = Operation(
    name="softmax",
    function=softmax,
    vjp=softmax_vjp,
    section="3.4.1",
    equation="softmax(x)ᵢ = eˣⁱ / Σⱼ eˣʲ",
    arrays={"x": "N M"},
    outputs={"p": "N M"},
)
