"""Dense layer y = φ(x W + b) and its gradient; `linear` is the matrix product that the other operations use, too.

_matmul   One program computes a BLOCK_M × BLOCK_N tile of y, walking over K; programs are numbered in groups of GROUP_M
          rows of tiles, so that those that run together share their operands in L2. With SPLIT > 1, where the tiles
          would leave most of a chip idle, each of SPLIT programs walks over a part of K and writes its sums to a
          workspace, which _reduce adds in a fixed order. Masks guard the ragged edges of M, N and K. Accumulator:
          float32 (float64 of float64). Bytes: (M·K + K·N + M·N) · size if every operand is read once; flops: 2·M·N·K.
          The epilogue adds b and applies φ, or, for the gradient, turns z into δ = dy ⊙ φ′(z) and writes the columns'
          sums of its tile, from float32.
_column_sums   One program sums a strip of rows for BLOCK_N columns; strips are summed by a second launch.
"""

import torch
import triton
import triton.language as tl
from triton import Config

from .activations import activate, derivative
from .launch import (
    AT_ONCE,
    accumulator,
    as_triton,
    chip,
    dot_precision,
    empty,
    matrix_units,
    processors,
    scheduled,
    threads,
    wide,
)

LEAST_K = 512 if AT_ONCE else 48  # of a part of K, where K is split
LEAST_ROWS = 256 if AT_ONCE else 64  # of a strip
LEAST_BLOCK_M = 16  # of all schedules: how finely columns' sums may come


SCHEDULES = [
    Config({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP_M": 8}, num_warps=warps, num_stages=stages)
    for m, n, k, warps, stages in (
        (16, 32, 32, 2, 2), (32, 16, 64, 2, 3),  # for inputs of few rows or columns
        (64, 64, 64, 4, 3), (128, 64, 64, 4, 4), (64, 128, 64, 4, 4), (128, 128, 64, 8, 3), (128, 256, 64, 8, 3),
        (32, 32, 16, 2, 4), (64, 64, 16, 4, 4), (64, 64, 16, 8, 4), (128, 128, 16, 8, 4),  # for products without them
    )
]  # fmt: skip


def _suits(config, given):
    """Without matrix units operands pass through registers, which hold 16 of K, and those of 256 threads a tile of 64 × 64;
    with them, tiles must fit in memory."""
    if not AT_ONCE:
        return True
    tile, size = config.kwargs, given["OPERAND"].primitive_bitwidth // 8
    if not matrix_units(size):
        return tile["BLOCK_K"] == 16 and (tile["BLOCK_M"] != 64 or threads(config) == 256)
    buffers = (config.num_stages - 1) * (tile["BLOCK_M"] + tile["BLOCK_N"]) * tile["BLOCK_K"] * size
    return tile["BLOCK_K"] > 16 and buffers <= chip().shared_memory and (size < 4 or tile["BLOCK_N"] < 256)


def dense(x, W, b, *, activation="identity"):
    """y = φ(x W + b): x [N,I], W [I,O], b [O] → [N,O]."""
    return linear(x, W, b, activation=activation)


def dense_vjp(x, W, b, dy, *, activation="identity"):
    """With δ = dy ⊙ φ′(z), which one product recomputes: δ Wᵀ, xᵀ δ, Σₙ δ."""
    delta, db = through_activation(x, W, b, dy, activation)
    return linear(delta, W.mT), linear(x.mT, delta), db


def linear(x, W, b=None, *, activation="identity", dtype=None):
    """φ(x W + b): x [M,K], W [K,N], b [N] or None, of any strides → [M,N] of `dtype` (default: x's).

    Operands are rounded to W's dtype, so x may be wider.
    """
    M, N = x.shape[0], W.shape[1]
    y = empty((M, N), dtype or x.dtype, x.device)
    _launch(x, W, b, y, None, None, activation)
    return y


def column_sums(a, dtype=None):
    """Σₘ a[m]: [M,N] of any strides → [N] of `dtype` (default: a's); sums in a fixed order, in float32 at least."""
    M, N = a.shape
    strips = max(1, min(4 * processors() // triton.cdiv(N, 64), M // LEAST_ROWS))
    out = empty((strips, N), accumulator(a.dtype) if strips > 1 else (dtype or a.dtype), a.device)
    rows = triton.cdiv(M, strips)
    _column_sums[lambda meta: (triton.cdiv(N, meta["BLOCK_N"]), strips)](
        a, out, M, N, rows, *a.stride(), ACC=as_triton(accumulator(a.dtype)), WIDE=wide(a)
    )
    return column_sums(out, dtype or a.dtype) if strips > 1 else out[0]


def through_activation(x, W, b, dy, activation):
    """δ = dy ⊙ φ′(x W + b), and Σₙ δ from before δ is rounded."""
    if activation == "identity":
        return dy, column_sums(dy)
    (M, N), acc = dy.shape, accumulator(x.dtype)
    delta = empty((M, N), x.dtype, x.device)
    sums = torch.zeros(
        (triton.cdiv(M, LEAST_BLOCK_M), N), dtype=acc, device=x.device
    )  # fewer rows, if tiles are higher
    _launch(x, W, b, delta, dy, sums, activation)
    return delta, column_sums(sums, x.dtype)


def _launch(x, W, b, y, dy, sums, activation):
    (M, K), N, acc = x.shape, W.shape[1], accumulator(x.dtype)
    tiles = triton.cdiv(M, 128) * triton.cdiv(N, 128)
    split = max(1, min(processors() // tiles, K // LEAST_K))
    epilogue = dict(
        bias=b, dy=dy, sums=sums, stride_bias=b.stride(0) if b is not None else 0,
        stride_dm=dy.stride(0) if dy is not None else 0, stride_dn=dy.stride(1) if dy is not None else 0,
        ACC=as_triton(acc), ACTIVATION=activation,
    )  # fmt: skip
    workspace = empty((split, M, N), acc, x.device) if split > 1 else y
    _matmul[lambda meta: (triton.cdiv(M, meta["BLOCK_M"]) * triton.cdiv(N, meta["BLOCK_N"]), split)](
        x, W, workspace, M, N, K, *x.stride(), *W.stride(), **epilogue,
        stride_part=M * N, OPERAND=as_triton(W.dtype), PRECISION=dot_precision(), SPLIT=split,
        WIDE=wide(x, W, workspace, dy),
    )  # fmt: skip
    if split > 1:
        _reduce[lambda meta: (triton.cdiv(M, meta["BLOCK_M"]), triton.cdiv(N, meta["BLOCK_N"]))](
            workspace, y, M, N, **epilogue, stride_part=M * N, SPLIT=split, WIDE=wide(workspace, dy)
        )


@scheduled(SCHEDULES, key=("M", "N", "K", "SPLIT"), suits=_suits)
@triton.jit
def _matmul(
    A, B, C, M, N, K, stride_am, stride_ak, stride_bk, stride_bn,
    bias, dy, sums, stride_bias, stride_dm, stride_dn, stride_part,
    ACC: tl.constexpr, ACTIVATION: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    SPLIT: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    part = tl.program_id(1)
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    group = tile // (GROUP_M * tiles_n)
    height = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    tile_m = group * GROUP_M + (tile % (GROUP_M * tiles_n)) % height
    tile_n = (tile % (GROUP_M * tiles_n)) // height

    m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    steps = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLIT)
    first = part * steps * BLOCK_K
    in_m, in_n = m < M, n < N
    if WIDE:
        m, n, k = m.to(tl.int64), n.to(tl.int64), k.to(tl.int64)
    a_tile = A + m[:, None] * stride_am + (first + k)[None, :] * stride_ak
    b_tile = B + (first + k)[:, None] * stride_bk + n[None, :] * stride_bn
    z = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for step in range(steps):
        in_k = first + step * BLOCK_K + k < K
        a = tl.load(a_tile, mask=in_m[:, None] & in_k[None, :], other=0.0).to(OPERAND)
        b = tl.load(b_tile, mask=in_k[:, None] & in_n[None, :], other=0.0).to(OPERAND)
        z = tl.dot(a, b, z, input_precision=PRECISION, out_dtype=ACC)
        a_tile += BLOCK_K * stride_ak
        b_tile += BLOCK_K * stride_bk
    inside = in_m[:, None] & in_n[None, :]
    if SPLIT > 1:
        C += part.to(tl.int64) * stride_part
    else:
        z = _epilogue(z, m, n, tile_m, N, inside, bias, dy, sums, stride_bias, stride_dm, stride_dn, ACC, ACTIVATION)
    tl.store(C + m[:, None] * N + n[None, :], z.to(C.dtype.element_ty), mask=inside)


@scheduled([Config({"BLOCK_M": 16, "BLOCK_N": 128}, num_warps=4)])
@triton.jit
def _reduce(
    workspace, C, M, N, bias, dy, sums, stride_bias, stride_dm, stride_dn, stride_part,
    ACC: tl.constexpr, ACTIVATION: tl.constexpr, SPLIT: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    tile_m = tl.program_id(0)
    m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m < M)[:, None] & (n < N)[None, :]
    if WIDE:
        m, n = m.to(tl.int64), n.to(tl.int64)
    offsets = m[:, None] * N + n[None, :]
    partial = workspace + offsets
    z = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for _ in range(SPLIT):
        z += tl.load(partial, mask=inside, other=0.0)
        partial += stride_part
    z = _epilogue(z, m, n, tile_m, N, inside, bias, dy, sums, stride_bias, stride_dm, stride_dn, ACC, ACTIVATION)
    tl.store(C + offsets, z.to(C.dtype.element_ty), mask=inside)


@triton.jit
def _epilogue(
    z, m, n, tile_m, N, inside, bias, dy, sums, stride_bias, stride_dm, stride_dn,
    ACC: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    if bias is not None:
        z += tl.load(bias + n * stride_bias, mask=n < N, other=0.0).to(ACC)[None, :]
    y = activate(z, ACTIVATION)
    if dy is not None:
        d = tl.load(dy + m[:, None] * stride_dm + n[None, :] * stride_dn, mask=inside, other=0.0).to(ACC)
        y = tl.where(inside, d * derivative(y, ACTIVATION), 0.0)
        tl.store(sums + tile_m.to(tl.int64) * N + n, tl.sum(y, axis=0), mask=n < N)
    return y


@scheduled([Config({"BLOCK_M": m, "BLOCK_N": n}, num_warps=4) for m, n in ((64, 64), (8, 1024))], key=("M", "N"))
@triton.jit
def _column_sums(
    A, out, M, N, rows, stride_m, stride_n,
    ACC: tl.constexpr, WIDE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    strip = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_n = n < N
    if WIDE:
        n = n.to(tl.int64)
    end = tl.minimum(M, (strip + 1) * rows)
    total = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for start in range(strip * rows, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        inside = (m < end)[:, None] & in_n[None, :]
        if WIDE:
            m = m.to(tl.int64)
        total += tl.load(A + m[:, None] * stride_m + n[None, :] * stride_n, mask=inside, other=0.0).to(ACC)
    tl.store(out + strip * N + n, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=in_n)
