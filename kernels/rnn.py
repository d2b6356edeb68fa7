"""Recurrent network h_t = φ(W_hh h_{t−1} + W_xh x_t + b_h), y_t = φ(W_yh h_t + b_y), and its gradient.

W_xh x_t + b_h, y and the weights' gradients are products over all steps at once, of dense.py. In between one kernel per
direction walks over time; a program has BLOCK_N rows of the batch × BLOCK_U units (recurrence.py says how many).

_forward   A step adds W_hh h_{t−1} to a tile of W_xh x_t + b_h, applies φ and writes h_t; for the gradient it leaves h_t
           there as well, before it is rounded. Bytes of a step: N·H · (size + 4, and 4 more where h_t is left).
_backward  A step, from the last on, writes δ_t = (dh_t + W_yhᵀ δʸ_t + W_hhᵀ δ_{t+1}) ⊙ φ′ and adds it to the sum over
           rows and steps, which stays in registers; at the end each row of tiles has written its own to `sums`.
           Bytes of a step: N·H · (2 size + 8).
Besides, each of the H / BLOCK_U programs of a row of tiles reads the N·H · size bytes of the state before, from L2, and
streamed each of the N / BLOCK_N of a column its part of the H² · size of W_hh. Flops of a step: 2·N·H².
Masks guard rows beyond N and units beyond H; those units are 0 where a program is alone, so that the product with their
weights, 0, is not NaN. Accumulator: float32 (float64 of float64).
"""

import torch
import triton
import triton.language as tl
from triton import Config

from .activations import activate, derivative
from .dense import column_sums, linear, through_activation
from .launch import accumulator, empty, scheduled, wide
from .recurrence import LINE, arrive, divide, product, resident, wait, walk


def rnn(x, h0, W_hh, W_xh, b_h, W_yh, b_y, *, activation="tanh"):
    """h_t = φ(W_hh h_{t−1} + W_xh x_t + b_h), y_t = φ(W_yh h_t + b_y).

    x [T,N,I], h0 [N,H], W_hh [H,H], W_xh [H,I], b_h [H], W_yh [O,H], b_y [O] → y [T,N,O], h [T,N,H].
    """
    states, _ = _walk_forward(x, h0, W_hh, W_xh, b_h, activation, store=False)
    h = states[1:]
    y = linear(h.flatten(0, 1), W_yh.mT, b_y, activation=activation)
    return y.view(*h.shape[:2], -1), h


def rnn_vjp(x, h0, W_hh, W_xh, b_h, W_yh, b_y, dy, dh, *, activation="tanh"):
    """With δ^y and δ^h, of φ's arguments, the latter from the last step on: dx, dh0, dW_hh, dW_xh, db_h, dW_yh, db_y."""
    (T, N, _), H, acc = x.shape, h0.shape[1], accumulator(x.dtype)
    states, hidden = _walk_forward(x, h0, W_hh, W_xh, b_h, activation, store=True)
    before, h = states[:-1].flatten(0, 1), states[1:].flatten(0, 1)
    delta_y, db_y = through_activation(h, W_yh.mT, b_y, dy.flatten(0, 1), activation)
    through_y = linear(delta_y, W_yh, dtype=acc).view(T, N, H)
    division = divide(N, H, 1, 1, x.dtype)
    deltas = empty((T, N, H), x.dtype, x.device)
    sums = torch.zeros((division.grid[1], H), dtype=acc, device=x.device)
    walk(
        _backward, division, T, x, dh=dh, through_y=through_y, hidden=hidden, deltas=deltas, sums=sums, W=W_hh,
        T=T, N=N, H=H, stride_dt=dh.stride(0), stride_dn=dh.stride(1), stride_du=dh.stride(2),
        stride_t=deltas.stride(0), stride_wm=W_hh.stride(0), stride_wk=W_hh.stride(1),
        ACTIVATION=activation, WIDE=wide(deltas[0], dh[0], W_hh),
    )  # fmt: skip
    rows = deltas.flatten(0, 1)
    return (
        linear(rows, W_xh).view(x.shape),
        linear(deltas[0], W_hh),
        linear(rows.mT, before),
        linear(rows.mT, x.flatten(0, 1)),
        column_sums(sums, x.dtype),
        linear(delta_y.mT, h),
        db_y,
    )


def _walk_forward(x, h0, W_hh, W_xh, b_h, activation, store):
    """h [T+1,N,H] from h0 on, and if they are to be stored, from step 1 on, h before it is rounded."""
    (T, N, _), H = x.shape, h0.shape[1]
    hidden = linear(x.flatten(0, 1), W_xh.mT, b_h, dtype=accumulator(x.dtype)).view(T, N, H)  # W_xh x + b_h, so far
    states = empty((T + 1, N, H), x.dtype, x.device)
    states[0] = h0
    walk(
        _forward, divide(N, H, 1, 1, x.dtype), T, x, hidden=hidden, states=states, W=W_hh,
        N=N, H=H, stride_t=states.stride(0), stride_wm=W_hh.stride(0), stride_wk=W_hh.stride(1),
        ACTIVATION=activation, STORE=store, WIDE=wide(states[0], W_hh),
    )  # fmt: skip
    return states, hidden


@scheduled([Config({}, num_warps=8, num_stages=3)])
@triton.jit(do_not_specialize=["first", "steps"])
def _forward(
    hidden, states, W, arrived, first, steps, N, H, stride_t, stride_wm, stride_wk,
    ACC: tl.constexpr, PRECISION: tl.constexpr, ACTIVATION: tl.constexpr, STORE: tl.constexpr, WIDE: tl.constexpr,
    MODE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr, CHUNKS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    u = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    k = tl.arange(0, BLOCK_K)
    in_n, in_u = n < N, u < H
    inside = in_n[:, None] & in_u[None, :]
    if WIDE:
        n, u, k = n.to(tl.int64), u.to(tl.int64), k.to(tl.int64)
    tile = n[:, None] * H + u[None, :]
    columns = u * stride_wm
    weights = resident(W, columns, in_u, k, H, stride_wk, MODE, PARTS, CHUNKS, BLOCK_K)

    hidden += first.to(tl.int64) * stride_t
    states += first.to(tl.int64) * stride_t
    before = states
    if MODE == "alone":
        before = tl.load(states + tile, mask=inside, other=0.0)
    if arrived is not None:
        arrived += tl.program_id(1) * LINE
    for step in tl.range(first, first + steps, num_stages=1):
        a = tl.load(hidden + tile, mask=inside, other=0.0)
        if arrived is not None:
            wait(arrived, step * tl.num_programs(0))
        a += product(
            before, n * H, in_n, weights, W, columns, in_u, k, H, stride_wk,
            ACC, PRECISION, MODE, PARTS, CHUNKS, WHOLE, BLOCK_K,
        )  # fmt: skip
        h = tl.where(in_u[None, :], activate(a, ACTIVATION), 0.0)
        rounded = h.to(states.dtype.element_ty)
        states += stride_t
        tl.store(states + tile, rounded, mask=inside)
        if arrived is not None:
            arrive(arrived)
        before = rounded if MODE == "alone" else states
        if STORE:
            tl.store(hidden + tile, h, mask=inside)
        hidden += stride_t


@scheduled([Config({}, num_warps=8, num_stages=3)])
@triton.jit(do_not_specialize=["first", "steps"])
def _backward(
    dh, through_y, hidden, deltas, sums, W, arrived, first, steps, T, N, H,
    stride_dt, stride_dn, stride_du, stride_t, stride_wm, stride_wk,
    ACC: tl.constexpr, PRECISION: tl.constexpr, ACTIVATION: tl.constexpr, WIDE: tl.constexpr,
    MODE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr, CHUNKS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    u = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    k = tl.arange(0, BLOCK_K)
    in_n, in_u = n < N, u < H
    inside = in_n[:, None] & in_u[None, :]
    if WIDE:
        n, u, k = n.to(tl.int64), u.to(tl.int64), k.to(tl.int64)
    tile, tile_dh = n[:, None] * H + u[None, :], n[:, None] * stride_dn + u[None, :] * stride_du
    columns = u * stride_wk
    weights = resident(W, columns, in_u, k, H, stride_wm, MODE, PARTS, CHUNKS, BLOCK_K)

    t = (T - 1 - first).to(tl.int64)
    dh += t * stride_dt
    through_y += t * stride_t
    hidden += t * stride_t
    deltas += t * stride_t
    before = deltas + stride_t
    if MODE == "alone":
        before = tl.zeros((BLOCK_N, BLOCK_U), deltas.dtype.element_ty)
    if arrived is not None:
        arrived += tl.program_id(1) * LINE
    total = tl.zeros((BLOCK_N, BLOCK_U), ACC)
    for step in tl.range(first, first + steps, num_stages=1):
        d = tl.load(dh + tile_dh, mask=inside, other=0.0).to(ACC) + tl.load(through_y + tile, mask=inside, other=0.0)
        h = tl.load(hidden + tile, mask=inside, other=0.0)
        if arrived is not None:
            wait(arrived, step * tl.num_programs(0))
        later = product(
            before, n * H, in_n & (step > 0), weights, W, columns, in_u, k, H, stride_wm,
            ACC, PRECISION, MODE, PARTS, CHUNKS, WHOLE, BLOCK_K,
        )  # fmt: skip
        d += tl.where(step > 0, later, 0.0)  # before the first step stands no 0, but W_hh, which may be NaN, times 0
        delta = tl.where(inside, d * derivative(h, ACTIVATION), 0.0)
        rounded = delta.to(deltas.dtype.element_ty)
        tl.store(deltas + tile, rounded, mask=inside)
        if arrived is not None:
            arrive(arrived)
        before = rounded if MODE == "alone" else deltas
        total += delta
        dh -= stride_dt
        through_y -= stride_t
        hidden -= stride_t
        deltas -= stride_t
    sums += tl.program_id(1) * H + u
    tl.store(sums, tl.load(sums, mask=in_u, other=0.0) + tl.sum(total, axis=0), mask=in_u)
