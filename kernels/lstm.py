"""Long short-term memory f, i, o = σ(W [h, x] + b), g = tanh(W [h, x] + b), C = f ⊙ C + i ⊙ g, h = o ⊙ tanh C; its gradient.

The gates' weights are laid together, rows of f, i, g, o; their product with x_t, and the weights' gradients, are
products over all steps at once, of dense.py. In between one kernel per direction walks over time; a program has BLOCK_N
rows of the batch × BLOCK_U units of h and C, with the four gates of each (recurrence.py says how many).

_forward   A step adds W_h h_{t−1} to a tile of W_x x_t + b, [BLOCK_N, 4 BLOCK_U], takes the gates apart and writes h_t.
           C stays in registers; for the gradient C and the gates are written, too, in float32. Bytes of a step:
           N·H · (16 + size + 4, and 16 more for the gradient).
_backward  A step, from the last on, writes δ_t of the gates' arguments and adds it to the sum over rows and steps, which
           stays in registers, as dC does; at the end each row of tiles has written its own to `sums`.
           Bytes of a step: N·H · (5 size + 20).
Besides, each of the H / BLOCK_U programs of a row of tiles reads the whole state before, from L2: h of N·H, or δ of
4 N·H, · size bytes; and streamed each of the N / BLOCK_N of a column its part of the 4 H² · size of W_h.
Flops of a step: 8·N·H². Masks guard rows beyond N and units beyond H; those units' δ is 0 where a program is alone, so
that the product with their weights, 0, is not NaN. Accumulator: float32 (float64 of float64).
"""

import torch
import triton
import triton.language as tl
from triton import Config

from .activations import sigmoid, tanh
from .dense import column_sums, linear
from .launch import accumulator, empty, inlined, scheduled, wide
from .recurrence import LINE, arrive, divide, product, resident, wait, walk


def lstm(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    """f, i, o = σ(W [h,x] + b), g = tanh(W [h,x] + b); C_t = f ⊙ C_{t−1} + i ⊙ g, h_t = o ⊙ tanh(C_t).

    x [T,N,I], h0 [N,H], c0 [N,H], each W [H,H+I], each b [H] → h [T,N,H], c_T [N,H].
    """
    W, b = torch.cat((W_f, W_i, W_c, W_o)), torch.cat((b_f, b_i, b_c, b_o))
    states, cells, _ = _walk_forward(x, h0, c0, W, b, store=False)
    return states[1:], cells[-1].to(x.dtype)


def lstm_vjp(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o, dh, dc_T):
    """With δ [T,N,4H] of the gates' arguments, last step first: dx, dh0, dc0, then dW and db of each gate."""
    (T, N, _), H, acc = x.shape, h0.shape[1], accumulator(x.dtype)
    W, b = torch.cat((W_f, W_i, W_c, W_o)), torch.cat((b_f, b_i, b_c, b_o))
    states, cells, gates = _walk_forward(x, h0, c0, W, b, store=True)
    division = divide(N, H, 4, 1, x.dtype)
    deltas = empty((T, N, 4 * H), x.dtype, x.device)
    sums = torch.zeros((division.grid[1], 4 * H), dtype=acc, device=x.device)
    dc = empty((N, H), acc, x.device).copy_(dc_T)
    walk(
        _backward, division, T, x, dh=dh, gates=gates, cells=cells, deltas=deltas, sums=sums, dc=dc, W=W,
        T=T, N=N, H=H, stride_dt=dh.stride(0), stride_dn=dh.stride(1), stride_du=dh.stride(2),
        stride_gt=gates.stride(0), stride_ct=cells.stride(0), stride_wm=W.stride(0), stride_wk=W.stride(1),
        WIDE=wide(gates[0], dh[0], W),
    )  # fmt: skip
    rows = deltas.flatten(0, 1)
    dx, dh0 = linear(rows, W[:, H:]).view(x.shape), linear(deltas[0], W[:, :H])
    dW = torch.cat((linear(rows.mT, states[:-1].flatten(0, 1)), linear(rows.mT, x.flatten(0, 1))), dim=1)
    gradients = zip(dW.split(H), column_sums(sums, x.dtype).split(H), strict=True)
    return dx, dh0, dc.to(x.dtype), *(gradient for gate in gradients for gradient in gate)


def _walk_forward(x, h0, c0, W, b, store):
    """h [T+1,N,H] from h0 on, C from c0 on (only the last is kept, if not `store`), the gates f i g o [T,N,4H]."""
    (T, N, _), H, acc = x.shape, h0.shape[1], accumulator(x.dtype)
    gates = linear(x.flatten(0, 1), W[:, H:].mT, b, dtype=acc).view(T, N, 4 * H)  # so far, their arguments' part
    states = empty((T + 1, N, H), x.dtype, x.device)
    cells = empty((T + 1 if store else 1, N, H), acc, x.device)
    states[0], cells[0] = h0, c0
    walk(
        _forward, divide(N, H, 1, 4, x.dtype), T, x, gates=gates, states=states, cells=cells, W=W,
        N=N, H=H, stride_gt=gates.stride(0), stride_st=states.stride(0), stride_ct=cells.stride(0) if store else 0,
        stride_wm=W.stride(0), stride_wk=W.stride(1), STORE=store, WIDE=wide(gates[0], W),
    )  # fmt: skip
    return states, cells, gates


@scheduled([Config({}, num_warps=8, num_stages=4)])
@triton.jit(do_not_specialize=["first", "steps"])
def _forward(
    gates, states, cells, W, arrived, first, steps, N, H, stride_gt, stride_st, stride_ct, stride_wm, stride_wk,
    ACC: tl.constexpr, PRECISION: tl.constexpr, STORE: tl.constexpr, MODE: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr, CHUNKS: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    u = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    m, in_m = _rows_of_gates(H, BLOCK_U)
    k = tl.arange(0, BLOCK_K)
    in_n = n < N
    in_tile, in_gates = in_n[:, None] & (u < H)[None, :], in_n[:, None] & in_m[None, :]
    if WIDE:
        n, u, m, k = n.to(tl.int64), u.to(tl.int64), m.to(tl.int64), k.to(tl.int64)
    tile, tile_gates = n[:, None] * H + u[None, :], n[:, None] * (4 * H) + m[None, :]
    if arrived is not None:
        arrived += tl.program_id(1) * LINE

    gates += first.to(tl.int64) * stride_gt
    states += first.to(tl.int64) * stride_st
    cells += first.to(tl.int64) * stride_ct
    columns = m * stride_wm
    tiles = resident(W, columns, in_m, k, H, stride_wk, MODE, PARTS, CHUNKS, BLOCK_K)
    before = tl.load(states + tile, mask=in_tile, other=0.0) if MODE == "alone" else states
    c = tl.load(cells + tile, mask=in_tile, other=0.0)
    for step in tl.range(first, first + steps, num_stages=1):
        z = tl.load(gates + tile_gates, mask=in_gates, other=0.0)
        if arrived is not None:
            wait(arrived, step * tl.num_programs(0))
        z += product(
            before, n * H, in_n, tiles, W, columns, in_m, k, H, stride_wk,
            ACC, PRECISION, MODE, PARTS, CHUNKS, WHOLE, BLOCK_K,
        )  # fmt: skip
        f, i, g, o = _apart(z, BLOCK_N, BLOCK_U)
        f, i, g, o = sigmoid(f), sigmoid(i), tanh(g), sigmoid(o)
        c = f * c + i * g
        h = (o * tanh(c)).to(states.dtype.element_ty)
        states += stride_st
        tl.store(states + tile, h, mask=in_tile)
        if arrived is not None:
            arrive(arrived)
        if MODE == "alone":
            before = h
        else:
            before += stride_st
        if STORE:
            tl.store(gates + tile_gates, _together(f, i, g, o, BLOCK_N, BLOCK_U), mask=in_gates)
        cells += stride_ct
        tl.store(cells + tile, c, mask=in_tile)
        gates += stride_gt


@scheduled([Config({}, num_warps=8, num_stages=4)])
@triton.jit(do_not_specialize=["first", "steps"])
def _backward(
    dh, gates, cells, deltas, sums, dc, W, arrived, first, steps, T, N, H,
    stride_dt, stride_dn, stride_du, stride_gt, stride_ct, stride_wm, stride_wk,
    ACC: tl.constexpr, PRECISION: tl.constexpr, MODE: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr, CHUNKS: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    u = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    m, in_m = _rows_of_gates(H, BLOCK_U)
    k = tl.where(in_m, m, 4 * H) if MODE == "alone" else tl.arange(0, BLOCK_K)
    in_n, in_u = n < N, u < H
    in_tile, in_gates = in_n[:, None] & in_u[None, :], in_n[:, None] & in_m[None, :]
    if WIDE:
        n, u, m, k = n.to(tl.int64), u.to(tl.int64), m.to(tl.int64), k.to(tl.int64)
    tile, tile_gates = n[:, None] * H + u[None, :], n[:, None] * (4 * H) + m[None, :]
    if arrived is not None:
        arrived += tl.program_id(1) * LINE

    t = (T - 1 - first).to(tl.int64)
    dh += t * stride_dt
    gates += t * stride_gt
    cells += (t + 1) * stride_ct
    deltas += t * stride_gt
    columns = u * stride_wk
    tiles = resident(W, columns, in_u, k, 4 * H, stride_wm, MODE, PARTS, CHUNKS, BLOCK_K)
    before = tl.zeros((BLOCK_N, 4 * BLOCK_U), deltas.dtype.element_ty) if MODE == "alone" else deltas + stride_gt
    total = tl.zeros((BLOCK_N, 4 * BLOCK_U), ACC)
    dC = tl.load(dc + tile, mask=in_tile, other=0.0)
    C = tl.load(cells + tile, mask=in_tile, other=0.0)
    for step in tl.range(first, first + steps, num_stages=1):
        d = tl.load(dh + n[:, None] * stride_dn + u[None, :] * stride_du, mask=in_tile, other=0.0).to(ACC)
        f, i, g, o = _apart(tl.load(gates + tile_gates, mask=in_gates, other=0.0), BLOCK_N, BLOCK_U)
        cells -= stride_ct
        C_before = tl.load(cells + tile, mask=in_tile, other=0.0)
        if arrived is not None:
            wait(arrived, step * tl.num_programs(0))
        later = product(
            before, n * (4 * H), in_n & (step > 0), tiles, W, columns, in_u, k, 4 * H, stride_wm,
            ACC, PRECISION, MODE, PARTS, CHUNKS, WHOLE, BLOCK_K,
        )  # fmt: skip
        d += tl.where(step > 0, later, 0.0)  # before the first step stands no 0, but W, which may be NaN, times 0
        tanh_C = tanh(C)
        dC += d * o * (1.0 - tanh_C * tanh_C)
        delta = _together(
            dC * C_before * (f * (1.0 - f)), dC * g * (i * (1.0 - i)), dC * i * (1.0 - g * g),
            d * tanh_C * (o * (1.0 - o)), BLOCK_N, BLOCK_U,
        )  # fmt: skip
        delta = tl.where(in_gates, delta, 0.0)
        rounded = delta.to(deltas.dtype.element_ty)
        tl.store(deltas + tile_gates, rounded, mask=in_gates)
        if arrived is not None:
            arrive(arrived)
        if MODE == "alone":
            before = rounded
        else:
            before -= stride_gt
        total += delta
        dC *= f
        C = C_before
        dh -= stride_dt
        gates -= stride_gt
        deltas -= stride_gt
    tl.store(dc + tile, dC, mask=in_tile)
    sums += tl.program_id(1) * (4 * H) + m
    tl.store(sums, tl.load(sums, mask=in_m, other=0.0) + tl.sum(total, axis=0), mask=in_m)


@inlined
def _rows_of_gates(H, BLOCK_U: tl.constexpr):
    """The rows of W that a program's units have, gate after gate, and which of them there are."""
    column = tl.arange(0, 4 * BLOCK_U)
    u = tl.program_id(0) * BLOCK_U + column % BLOCK_U
    return column // BLOCK_U * H + u, u < H


@inlined
def _apart(z, BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr):
    """[BLOCK_N, 4·BLOCK_U], gate after gate → f, i, g, o."""
    fg, io = tl.split(tl.permute(tl.reshape(z, (BLOCK_N, 2, 2, BLOCK_U)), (0, 3, 1, 2)))
    f, g = tl.split(fg)
    i, o = tl.split(io)
    return f, i, g, o


@inlined
def _together(f, i, g, o, BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr):
    """The inverse of _apart."""
    z = tl.join(tl.join(f, g), tl.join(i, o))
    return tl.reshape(tl.permute(z, (0, 2, 3, 1)), (BLOCK_N, 4 * BLOCK_U))
