"""Convolution, channels last, and its gradient: matrix products whose left operand is gathered from the image.

What they sum over, or the rows of ∂L/∂w, are taps of the window × channels: a block of channels of one tap after the
other or, where channels are few, both numbered through (FLAT), so that blocks are full all the same.

_convolve  One program computes BLOCK_M pixels × BLOCK_N channels of y, walking over taps and channels; programs that run
           together share their pixels in L2. With SPLIT > 1, where tiles would leave most of a chip idle, each walks
           over a part and writes its sums to a workspace, which column_sums adds in a fixed order.
           It computes ∂L/∂x, too, gathering dy through w: at stride 1 that is a convolution of dy whose padding and
           dilation are negative. At other strides, pixels that lie `stride` apart (a phase; an axis of the grid) are
           read by the same taps, which lie equally far apart, so that the same holds for each phase and its taps alone:
           no zeros are multiplied. A phase without taps is written, as zeros.
_weights   One program computes BLOCK_K rows × BLOCK_N channels of ∂L/∂w, walking over a part of y's pixels in steps of
           BLOCK_P; column_sums adds the parts.
Masks guard the image's edges (padding is what lies beyond them: it is never read) and the ragged edges of pixels, taps
and channels. Accumulator: float32 (float64 of float64). Bytes: (N·H·W·C + kH·kW·C·O + N·oH·oW·O) · size, if L2 keeps
what windows share; flops: 2·N·oH·oW·kH·kW·C·O. Both hold for each of the three products.
"""

from math import gcd

import triton
import triton.language as tl
from triton import Config

from .dense import column_sums
from .launch import (
    AT_ONCE,
    accumulator,
    as_triton,
    dot_precision,
    empty,
    matrix_units,
    processors,
    scheduled,
    threads,
    wide,
)

LEAST_K = 512 if AT_ONCE else 48  # taps times channels of a part
LEAST_PIXELS = 1024 if AT_ONCE else 48  # of a part, for ∂L/∂w
WAVES = 4 if AT_ONCE else 1  # of programs, that pixels are divided for
FEW_CHANNELS = 16  # below, they are numbered through with the taps


def _schedules(rows):
    tiles = [(128, 16, 4, 3), (64, 32, 4, 3), (64, 64, 4, 3), (64, 64, 8, 3), (128, 64, 4, 3), (128, 128, 8, 3)]
    return [Config({rows: m, "BLOCK_N": n}, num_warps=warps, num_stages=stages) for m, n, warps, stages in tiles]


def _suits(config, given):
    """Tiles that channels fill more than half, or the narrowest: others are slow and spill. One by one, all may run."""
    (rows, width), O = config.kwargs.values(), given["O"]
    if not AT_ONCE:
        return True
    if width == 64 and not matrix_units(given["x"].itemsize):
        return O > 32 and rows == 64 and threads(config) == 256
    return (width == 16 if O <= 16 else 16 < width < 2 * O) and (width != 64 or config.num_warps == 4)


def conv2d(x, w, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """Σ w(k_H,k_W,k_C,o) · x(n_H·stride + k_H·dilation − padding, …, k_C): x [N,H,W,C], w [kH,kW,C,O] → [N,oH,oW,O]."""
    oH, oW = ((x.shape[1 + i] + 2 * padding[i] - dilation[i] * (w.shape[i] - 1) - 1) // stride[i] + 1 for i in range(2))
    return _launch(x, w, (x.shape[0], oH, oW, w.shape[3]), stride, padding, dilation)


def conv2d_vjp(x, w, dy, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """∂L/∂x gathers dy through w; ∂L/∂w sums the windows times dy."""
    dx = _launch(dy, w.transpose(2, 3), x.shape, stride, padding, dilation, transposed=True)
    (_, H, W, C), (kH, kW, _, O), (N, oH, oW, _) = x.shape, w.shape, dy.shape
    K, P, acc = kH * kW * C, N * oH * oW, accumulator(x.dtype)
    parts = max(1, min(WAVES * processors() // (triton.cdiv(K, 128) * triton.cdiv(O, 128)), P // LEAST_PIXELS))
    dw = empty((parts, K, O), acc if parts > 1 else x.dtype, x.device)

    def grid(meta):
        blocks = triton.cdiv(K, meta["BLOCK_K"]) if C < FEW_CHANNELS else kH * kW * triton.cdiv(C, meta["BLOCK_K"])
        return blocks * triton.cdiv(O, meta["BLOCK_N"]), parts

    _weights[grid](
        x, dy, dw, P, H, W, C, kH, kW, O, oH, oW, triton.cdiv(P, parts), *x.stride(), *dy.stride(),
        *stride, *padding, *dilation, ACC=as_triton(acc), PRECISION=dot_precision(), INDEX=_index(x, dy, dw),
        FLAT=C < FEW_CHANNELS, BLOCK_P=_depth(x, C),
    )  # fmt: skip
    return dx, (column_sums(dw.flatten(1), x.dtype) if parts > 1 else dw).view(w.shape)


def _launch(x, w, shape, stride, padding, dilation, transposed=False):
    """The convolution y, of this shape, of x; transposed, the gradient y, of this shape, whose convolution's x is."""
    (N, oH, oW, O), (_, H, W, C), (kH, kW) = shape, x.shape, w.shape[:2]
    common = [gcd(s, d) for s, d in zip(stride, dilation, strict=True)]
    apart = [s // g for s, g in zip(stride, common, strict=True)]  # are taps that read the same phase
    inverse = [pow(d // g, -1, a) for d, g, a in zip(dilation, common, apart, strict=True)]
    phases = stride[0] * stride[1] if transposed else 1
    if transposed and phases == 1:
        padding, dilation = [-p for p in padding], [-d for d in dilation]
    pixels = N * oH * oW if phases == 1 else N * triton.cdiv(oH, stride[0]) * triton.cdiv(oW, stride[1])
    tiles = triton.cdiv(pixels, 128) * triton.cdiv(O, 128) * phases
    split = max(1, min(processors() // tiles, kH * kW * C // LEAST_K))
    y = empty((split, N, oH, oW, O), accumulator(x.dtype) if split > 1 else x.dtype, x.device)
    _convolve[lambda meta: (triton.cdiv(pixels, meta["BLOCK_M"]) * triton.cdiv(O, meta["BLOCK_N"]), phases, split)](
        x, w, y, N, H, W, C, kH, kW, O, oH, oW, *x.stride(), *w.stride(), y.stride(0),
        *stride, *padding, *dilation, *apart, *inverse,
        ACC=as_triton(accumulator(x.dtype)), PRECISION=dot_precision(), INDEX=_index(x, w, y[0]),
        FLAT=C < FEW_CHANNELS, PHASES=phases > 1, SPLIT=split, BLOCK_K=_depth(x, C),
    )  # fmt: skip
    return column_sums(y.flatten(1), x.dtype).view(shape) if split > 1 else y[0]


def _depth(x, C):
    """How much of the sum one step multiplies: half of a line of 128 bytes where lanes load element by element, or where
    operands pass through registers; as much as there is where each step costs milliseconds."""
    if not AT_ONCE:
        return 64
    scattered = C < FEW_CHANNELS or not matrix_units(x.itemsize)
    return max(16, (64 if scattered else 128) // x.itemsize)  # 16 is the least that a product sums over


def _index(*tensors):
    return tl.int64 if wide(*tensors) else tl.int32


_SIZES = ["N", "P", "H", "W", "kH", "kW", "oH", "oW", "rows", "padding_h", "padding_w", "dilation_h", "dilation_w"]
_SIZES += ["apart_h", "apart_w", "inverse_h", "inverse_w"]  # of which no address's alignment follows


@scheduled(_schedules("BLOCK_M"), key=("N", "oH", "oW", "C", "kH", "kW", "O", "PHASES", "SPLIT"), suits=_suits)
@triton.jit(do_not_specialize=_SIZES)
def _convolve(
    x, w, y, N, H, W, C, kH, kW, O, oH, oW, stride_xn, stride_xh, stride_xw, stride_xc,
    stride_wh, stride_ww, stride_wc, stride_wo, stride_part, stride_h, stride_w, padding_h, padding_w,
    dilation_h, dilation_w, apart_h, apart_w, inverse_h, inverse_w,
    ACC: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr, FLAT: tl.constexpr, PHASES: tl.constexpr,
    SPLIT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_n = (O + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0)
    m = (tile // tiles_n).to(INDEX) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (tile % tiles_n).to(INDEX) * BLOCK_N + tl.arange(0, BLOCK_N)
    if PHASES:
        height, width = (oH + stride_h - 1) // stride_h, (oW + stride_w - 1) // stride_w
    else:
        height, width = oH, oW
    row = m // width
    image, i, j = row // height, row % height, m % width
    in_m, in_n = image < N, n < O
    y_rows = m * O
    if PHASES:
        a, b = tl.program_id(1) // stride_w, tl.program_id(1) % stride_w
        first_h, kH, h = _phase(a, kH, stride_h, padding_h, dilation_h, apart_h, inverse_h)
        first_w, kW, v = _phase(b, kW, stride_w, padding_w, dilation_w, apart_w, inverse_w)
        h, v = h + i, v + j
        i, j = i * stride_h + a, j * stride_w + b
        in_m = in_m & (i < oH) & (j < oW)
        y_rows = ((image * oH + i) * oW + j) * O
        w += first_h * stride_wh + first_w * stride_ww
        stride_wh, stride_ww = stride_wh * apart_h, stride_ww * apart_w
        dilation_h, dilation_w = -(dilation_h * apart_h // stride_h), -(dilation_w * apart_w // stride_w)
    else:
        h, v = i * stride_h - padding_h, j * stride_w - padding_w
    x_rows = image * stride_xn + h * stride_xh + v * stride_xw

    blocks = (kH * kW * C + BLOCK_K - 1) // BLOCK_K if FLAT else kH * kW * ((C + BLOCK_K - 1) // BLOCK_K)
    start, end = 0, blocks
    if SPLIT > 1:
        each = (blocks + SPLIT - 1) // SPLIT
        start = tl.program_id(2) * each
        end = tl.minimum(blocks, start + each)
        y += tl.program_id(2).to(tl.int64) * stride_part
    z = tl.full((BLOCK_M, BLOCK_N), 0.0, ACC)
    for number in range(start, end):
        r, s, c, in_k = _block(number, kH * kW, kW, C, BLOCK_K, FLAT, INDEX)
        down, right = r * dilation_h, s * dilation_w
        inside = _in_image(h, v, down, right, H, W, FLAT) & in_m[:, None] & in_k[None, :]
        x_columns = down * stride_xh + right * stride_xw + c * stride_xc
        w_rows = r * stride_wh + s * stride_ww + c * stride_wc
        x_tile = tl.load(x + (x_rows[:, None] + x_columns[None, :]), mask=inside, other=0.0)
        inside = in_k[:, None] & in_n[None, :]
        w_tile = tl.load(w + (w_rows[:, None] + (n * stride_wo)[None, :]), mask=inside, other=0.0)
        z = tl.dot(x_tile, w_tile, z, input_precision=PRECISION, out_dtype=ACC)
    inside = in_m[:, None] & in_n[None, :]
    tl.store(y + (y_rows[:, None] + n[None, :]), z.to(y.dtype.element_ty), mask=inside)


@scheduled(_schedules("BLOCK_K"), key=("P", "C", "kH", "kW", "O"), suits=_suits)
@triton.jit(do_not_specialize=_SIZES)
def _weights(
    x, dy, dw, P, H, W, C, kH, kW, O, oH, oW, rows, stride_xn, stride_xh, stride_xw, stride_xc,
    stride_dn, stride_dh, stride_dw, stride_do, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w,
    ACC: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    tiles_n = (O + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0)
    r, s, c, in_k = _block(tile // tiles_n, kH * kW, kW, C, BLOCK_K, FLAT, INDEX)
    n = (tile % tiles_n).to(INDEX) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_n = n < O
    down, right = r * dilation_h, s * dilation_w
    x_columns = down * stride_xh + right * stride_xw + c * stride_xc
    part = tl.program_id(1)
    z = tl.full((BLOCK_K, BLOCK_N), 0.0, ACC)
    end = tl.minimum(P, (part + 1) * rows)
    for first in range(part * rows, end, BLOCK_P):
        p = (first + tl.arange(0, BLOCK_P)).to(INDEX)
        in_p = p < end
        row = p // oW
        image, i, j = row // oH, row % oH, p % oW
        h, v = i * stride_h - padding_h, j * stride_w - padding_w
        inside = _in_image(h, v, down, right, H, W, FLAT) & in_p[:, None] & in_k[None, :]
        x_rows = image * stride_xn + h * stride_xh + v * stride_xw
        x_tile = tl.load(x + (x_rows[:, None] + x_columns[None, :]), mask=inside, other=0.0)
        inside = in_p[:, None] & in_n[None, :]
        d_rows = image * stride_dn + i * stride_dh + j * stride_dw
        d_tile = tl.load(dy + (d_rows[:, None] + (n * stride_do)[None, :]), mask=inside, other=0.0)
        z = tl.dot(tl.trans(x_tile), d_tile, z, input_precision=PRECISION, out_dtype=ACC)
    dw += part.to(tl.int64) * (kH * kW * C * O)
    w_rows = ((r * kW + s) * C + c) * O
    tl.store(dw + (w_rows[:, None] + n[None, :]), z.to(dw.dtype.element_ty), mask=in_k[:, None] & in_n[None, :])


@triton.jit
def _block(number, taps, width, C, BLOCK_K: tl.constexpr, FLAT: tl.constexpr, INDEX: tl.constexpr):
    """A block of taps × channels: the tap (r, s), one per channel if FLAT, else of all; the channels; which there are."""
    k = tl.arange(0, BLOCK_K).to(INDEX)
    if FLAT:
        k += number * BLOCK_K
        tap, c, inside = k // C, k % C, k < taps * C
    else:
        blocks = (C + BLOCK_K - 1) // BLOCK_K
        tap = tl.full((), 0, INDEX) + number // blocks
        c = number % blocks * BLOCK_K + k
        inside = c < C
    return tap // width, tap % width, c, inside


@triton.jit
def _in_image(h, v, down, right, H, W, FLAT: tl.constexpr):
    """Which of the pixels (h, v), moved down and right, lie in the image: [pixels, 1], if FLAT [pixels, taps]."""
    if FLAT:
        down, right = down[None, :], right[None, :]
    h, v = h[:, None] + down, v[:, None] + right
    return (h >= 0) & (h < H) & (v >= 0) & (v < W)


@triton.jit
def _phase(a, taps, stride, padding, dilation, apart, inverse):
    """Of pixels a, a + stride, …: the first of the taps that read them, their number, and the row of y for which at a.

    With g = stride / apart: r · dilation ≡ a + padding (mod stride) has solutions r `apart` apart where g divides the
    right side, and then the first is (a + padding)/g · inverse mod apart.
    """
    g = stride // apart
    residue = (a + padding) % stride
    first = residue // g * inverse % apart
    count = tl.where(residue % g == 0, (taps - first + apart - 1) // apart, 0)
    return first, count, (a + padding - first * dilation) // stride
