"""Softmax over the last axis, and its gradient.

_rows       A program holds max(1, TILE / BLOCK_M) whole rows, BLOCK_M being the power of two that a row fits into, and
            reads each once. Bytes: 2·N·M · size (gradient: 3·N·M · size, p being recomputed), which is what it costs.
_long_rows  A program walks along one row that is longer, twice: once for its maximum and, rescaled whenever that grows,
            its sum; once to write. The second walk mostly hits L2, or bytes are 3·N·M · size (gradient: 5·N·M · size).
Masks guard the rows' ends and, in _rows, the last rows. Accumulator: float32 (float64 of float64). Flops: ≈ 5·N·M.
The maximum may pass over a NaN: exp and the sum do not.
"""

import triton
import triton.language as tl
from triton import Config

from .launch import AT_ONCE, accumulator, as_triton, empty, scheduled, wide

LONGEST = 16384 if AT_ONCE else 64  # elements that a program holds of a row
BLOCKS = (*(() if AT_ONCE else ((16, 1),)), (2048, 4), (4096, 8), (8192, 16))  # of a longer row, and their warps


def softmax(x):
    """eˣ / Σ eˣ: x [N,M] → [N,M]. A row of nothing but −∞ is NaN."""
    return _launch(x, None)


def softmax_vjp(x, dp):
    """p ⊙ (dp − Σ p dp)."""
    return (_launch(x, dp),)


def _launch(x, dp):
    (N, M), out = x.shape, empty(x.shape, x.dtype, x.device)
    given = dict(
        x=x, dp=dp, out=out, N=N, M=M, stride_xn=x.stride(0), stride_xm=x.stride(1),
        stride_dn=0 if dp is None else dp.stride(0), stride_dm=0 if dp is None else dp.stride(1),
        ACC=as_triton(accumulator(x.dtype)), WIDE=wide(x, dp, out),
    )  # fmt: skip
    if M <= LONGEST:
        width = triton.next_power_of_2(M)
        _rows[lambda meta: (triton.cdiv(N, max(1, meta["TILE"] // width)),)](**given, BLOCK_M=width)
    else:
        _long_rows[(N,)](**given)
    return out


@scheduled(
    [Config({"TILE": tile}, num_warps=warps) for tile, warps in ((64, 1), (2048, 4), (4096, 8), (8192, 16))], key=("M",)
)
@triton.jit
def _rows(
    x, dp, out, N, M, stride_xn, stride_xm, stride_dn, stride_dm,
    ACC: tl.constexpr, WIDE: tl.constexpr, BLOCK_M: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    BLOCK_N: tl.constexpr = TILE // BLOCK_M if TILE > BLOCK_M else 1
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.arange(0, BLOCK_M)
    inside = (n < N)[:, None] & (m < M)[None, :]
    if WIDE:
        n, m = n.to(tl.int64), m.to(tl.int64)
    z = tl.load(x + n[:, None] * stride_xn + m[None, :] * stride_xm, mask=inside, other=-float("inf")).to(ACC)
    e = tl.where(inside, tl.exp(z - tl.max(z, axis=1)[:, None]), 0.0)
    p = e / tl.sum(e, axis=1)[:, None]
    if dp is not None:
        d = tl.load(dp + n[:, None] * stride_dn + m[None, :] * stride_dm, mask=inside, other=0.0).to(ACC)
        p = p * (d - tl.sum(p * d, axis=1)[:, None])
    tl.store(out + n[:, None] * M + m[None, :], p.to(out.dtype.element_ty), mask=inside)


@scheduled(
    [Config({"BLOCK_M": block}, num_warps=warps) for block, warps in BLOCKS],
    key=("M",),
)
@triton.jit
def _long_rows(
    x, dp, out, N, M, stride_xn, stride_xm, stride_dn, stride_dm,
    ACC: tl.constexpr, WIDE: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    m = tl.arange(0, BLOCK_M)
    if WIDE:
        m = m.to(tl.int64)
    x += n * stride_xn + m * stride_xm
    out += n * M + m
    if dp is not None:
        dp += n * stride_dn + m * stride_dm
    largest = tl.full((), -float("inf"), ACC)
    total = tl.zeros((), ACC)
    inner = tl.zeros((), ACC)
    z_tile, d_tile = x, dp
    for start in range(0, M, BLOCK_M):
        inside = start + m < M
        z = tl.load(z_tile, mask=inside, other=-float("inf")).to(ACC)
        before, largest = largest, tl.maximum(largest, tl.max(z, axis=0))
        top = tl.where(largest == -float("inf"), 0.0, largest)  # nothing but −∞ so far: −∞ − 0, not −∞ − (−∞)
        e = tl.exp(z - top)
        shrink = tl.exp(before - top)
        total = total * shrink + tl.sum(e, axis=0)
        z_tile += BLOCK_M * stride_xm
        if dp is not None:
            d = tl.load(d_tile, mask=inside, other=0.0).to(ACC)
            inner = inner * shrink + tl.sum(e * d, axis=0)
            d_tile += BLOCK_M * stride_dm
    for start in range(0, M, BLOCK_M):
        inside = start + m < M
        z = tl.load(x, mask=inside, other=-float("inf")).to(ACC)
        p = tl.exp(z - largest) / total
        x += BLOCK_M * stride_xm
        if dp is not None:
            d = tl.load(dp, mask=inside, other=0.0).to(ACC)
            p = p * (d - inner / total)
            dp += BLOCK_M * stride_dm
        tl.store(out, p.to(out.dtype.element_ty), mask=inside)
        out += BLOCK_M
