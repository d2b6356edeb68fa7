"""Max pool, channels last, and its gradient.

_pool    One program computes BLOCK_M output pixels × BLOCK_C channels, walking over the window's taps; what it keeps of
         a window for the gradient is the number of the first maximum's tap, −1 where a NaN is in it, in one byte.
         Bytes: (N·H·W + N·oH·oW) · C · size, and N·oH·oW·C of taps; flops: N·oH·oW·C·kH·kW comparisons.
_unpool  One program computes BLOCK_M input pixels × BLOCK_C channels of the gradient: a pixel gathers from the windows
         that contain it, ⌈kH/stride⌉·⌈kW/stride⌉ at most, where the tap that was kept is the pixel. No atomics, the order
         is fixed. Bytes: (N·H·W + N·oH·oW) · C · size + N·oH·oW·C.
Masks guard the ragged edges of pixels and channels and, in _unpool, windows that do not exist. Accumulator: float32
(float64 of float64). tl.max would drop NaN in the interpreter: maxima are found by comparing.
"""

import torch
import triton
import triton.language as tl
from triton import Config

from .launch import accumulator, as_triton, empty, scheduled, wide

MOST_CHANNELS = 64  # of a program
SCHEDULES = [Config({"TILE": tile}, num_warps=warps) for tile, warps in ((512, 1), (1024, 2), (2048, 4))]


def maxpool2d(x, *, window, stride=(1, 1)):
    """max over the window of x(n_H·stride + k_H, n_W·stride + k_W, n_C): x [N,H,W,C] → [N,oH,oW,C]."""
    y = empty(_output(x, window, stride), x.dtype, x.device)
    _pool_into(x, y, None, window, stride)
    return y


def maxpool2d_vjp(x, dy, *, window, stride=(1, 1)):
    """dy goes to the first maximum of its window; a NaN in the window takes it. A pixel sums what it receives."""
    bits = next(bits for bits in (8, 16, 32) if window[0] * window[1] < 2 ** (bits - 1))
    taps = empty(dy.shape, getattr(torch, f"int{bits}"), x.device)
    _pool_into(x, None, taps, window, stride)
    dx, (N, H, W, C) = empty(x.shape, x.dtype, x.device), x.shape
    _unpool[_grid(N * H * W, C)](
        dy, taps, dx, N * H * W, H, W, C, dy.shape[1], dy.shape[2], *dy.stride(), *window, *stride,
        ACC=as_triton(accumulator(x.dtype)), INDEX=_index(dy, dx), BLOCK_C=_block_c(C),
    )  # fmt: skip
    return (dx,)


def _pool_into(x, y, taps, window, stride):
    N, oH, oW, C = _output(x, window, stride)
    _pool[_grid(N * oH * oW, C)](
        x, y, taps, N * oH * oW, C, oH, oW, *x.stride(), *window, *stride,
        ACC=as_triton(accumulator(x.dtype)), INDEX=_index(x, y), BLOCK_C=_block_c(C),
    )  # fmt: skip


def _output(x, window, stride):
    N, H, W, C = x.shape
    return N, (H - window[0]) // stride[0] + 1, (W - window[1]) // stride[1] + 1, C


def _grid(pixels, C):
    block_c = _block_c(C)
    return lambda meta: (triton.cdiv(pixels, meta["TILE"] // block_c), triton.cdiv(C, block_c))


def _block_c(C):
    return min(MOST_CHANNELS, triton.next_power_of_2(C))


def _index(*tensors):
    return tl.int64 if wide(*tensors) else tl.int32


_SIZES = ["P", "H", "W", "oH", "oW", "kH", "kW"]  # of which no address's alignment follows


@scheduled(SCHEDULES, key=("P", "C", "kH", "kW"))
@triton.jit(do_not_specialize=_SIZES)
def _pool(
    x, y, taps, P, C, oH, oW, stride_xn, stride_xh, stride_xw, stride_xc, kH, kW, stride_h, stride_w,
    ACC: tl.constexpr, INDEX: tl.constexpr, BLOCK_C: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    BLOCK_M: tl.constexpr = TILE // BLOCK_C
    image, i, j, pixels, c, inside = _tile(P, C, oH, oW, BLOCK_M, BLOCK_C, INDEX)
    rows = image * stride_xn + i * stride_h * stride_xh + j * stride_w * stride_xw
    tile = x + (rows[:, None] + (c * stride_xc)[None, :])
    best = tl.load(tile, mask=inside, other=0.0)
    chosen = tl.where(best == best, 0, -1)
    for tap in tl.range(1, kH * kW, loop_unroll_factor=2):
        offset = tl.full((), 0, INDEX) + tap
        value = tl.load(tile + (offset // kW * stride_xh + offset % kW * stride_xw), mask=inside, other=0.0)
        is_nan = value != value
        better = (value.to(ACC) > best.to(ACC)) | is_nan
        chosen = tl.where(better & (chosen >= 0), tl.where(is_nan, -1, tap), chosen)
        best = tl.where(better & (best == best), value, best)
    out = pixels[:, None] * C + c[None, :]
    if y is not None:
        tl.store(y + out, best, mask=inside)
    if taps is not None:
        tl.store(taps + out, chosen.to(taps.dtype.element_ty), mask=inside)


@scheduled(SCHEDULES, key=("P", "C", "kH", "kW"))
@triton.jit(do_not_specialize=_SIZES)
def _unpool(
    dy, taps, dx, P, H, W, C, oH, oW, stride_dn, stride_dh, stride_dw, stride_dc, kH, kW, stride_h, stride_w,
    ACC: tl.constexpr, INDEX: tl.constexpr, BLOCK_C: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    BLOCK_M: tl.constexpr = TILE // BLOCK_C
    image, h, v, pixels, c, inside = _tile(P, C, H, W, BLOCK_M, BLOCK_C, INDEX)
    total = tl.full((BLOCK_M, BLOCK_C), 0.0, ACC)
    across = tl.cdiv(kW, stride_w)
    for number in tl.range(0, tl.cdiv(kH, stride_h) * across, loop_unroll_factor=2):
        i, j = h // stride_h - number // across, v // stride_w - number % across  # the window, the last one first
        r, s = h - i * stride_h, v - j * stride_w  # the tap that the pixel is in it
        window = (i >= 0) & (i < oH) & (r < kH) & (j >= 0) & (j < oW) & (s < kW)
        contains = window[:, None] & inside
        kept = tl.load(taps + ((((image * oH + i) * oW + j) * C)[:, None] + c[None, :]), mask=contains, other=-1)
        rows = image * stride_dn + i * stride_dh + j * stride_dw
        d = tl.load(dy + (rows[:, None] + (c * stride_dc)[None, :]), mask=contains, other=0.0)
        total += tl.where(kept == (r * kW + s)[:, None], d.to(ACC), 0.0)
    tl.store(dx + (pixels[:, None] * C + c[None, :]), total.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def _tile(P, C, height, width, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, INDEX: tl.constexpr):
    """This program's pixels, as image, row and column and numbered through, its channels, and which there are."""
    m = tl.program_id(0).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)).to(INDEX)
    row = m // width
    return row // height, row % height, m % width, m, c, (m < P)[:, None] & (c < C)[None, :]
