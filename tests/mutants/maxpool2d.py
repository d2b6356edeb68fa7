"""Mutants of max pooling."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import bfloat16

correct = load("numpy").module
mutant = Planting("maxpool2d")


def windows(x, window, stride=(1, 1)):
    """[N,oH,oW,kH·kW,C], a copy."""
    oH, oW = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], window, stride, strict=True))
    taps = [
        x[:, r : r + (oH - 1) * stride[0] + 1 : stride[0], s : s + (oW - 1) * stride[1] + 1 : stride[1]]
        for r, s in np.ndindex(*window)
    ]
    return np.stack(taps, axis=3)


def scatter(x, dy, shares, window, stride=(1, 1)):
    """dx from what each entry of each window gets of dy, [N,oH,oW,kH·kW,C]."""
    dx = np.zeros(x.shape, dy.dtype)
    for n, (r, s) in enumerate(np.ndindex(*window)):
        rows = slice(r, r + (dy.shape[1] - 1) * stride[0] + 1, stride[0])
        columns = slice(s, s + (dy.shape[2] - 1) * stride[1] + 1, stride[1])
        dx[:, rows, columns] += shares[:, :, :, n] * dy
    return dx


@mutant()
def maximum_starts_at_zero(x, window, **parameters):
    """pytorch#109586"""
    return np.maximum(correct.maxpool2d(x, window=window, **parameters), 0)


@mutant("forward", "special")
def maximum_starts_at_the_lowest_number(x, window, **parameters):
    """pytorch#39846: the accumulator is −FLT_MAX, and NaN compares greater than nothing."""
    lowest = np.finfo(x.dtype).min
    return correct.maxpool2d(np.where(x > lowest, x, lowest), window=window, **parameters)


@mutant("forward", "special")
def nan_is_left_out(x, window, **parameters):
    """fmax, the instruction of most GPUs, takes the operand that is a number."""
    return correct.maxpool2d(np.where(np.isnan(x), -np.inf, x).astype(x.dtype), window=window, **parameters)


@mutant()
def last_window_reaches_beyond_the_image(x, window, stride=(1, 1)):
    """onnxruntime#15446: a ragged last row of windows is computed as if it were whole."""
    ragged = (x.shape[1] - window[0]) % stride[0]
    framed = np.pad(x, ((0, 0), (0, stride[0] - ragged if ragged else 0), (0, 0), (0, 0)), constant_values=-np.inf)
    return correct.maxpool2d(framed, window=window, stride=stride)


@mutant()
def window_is_transposed(x, window, **parameters):
    """kW × kH where that fits; the result is cut or filled to the shape that was allocated."""
    y = correct.maxpool2d(x, window=window, **parameters)
    if window[0] > x.shape[2] or window[1] > x.shape[1]:
        return y
    other = correct.maxpool2d(x, window=window[::-1], **parameters)
    rows, columns = (np.minimum(np.arange(n), m - 1) for n, m in zip(y.shape[1:3], other.shape[1:3], strict=True))
    return other[:, rows][:, :, columns]


@mutant()
def two_by_two_at_most(x, window, **parameters):
    """The third row and column of a window are not looked at."""
    small = tuple(min(2, k) for k in window)
    y = correct.maxpool2d(x, window=window, **parameters)
    return correct.maxpool2d(x, window=small, **parameters)[:, : y.shape[1], : y.shape[2]].copy()


@mutant()
def compared_in_bfloat16(x, window, **parameters):
    """The value that is passed on is the rounded one."""
    return bfloat16(correct.maxpool2d(x, window=window, **parameters))


@mutant(dtype="float16")
def bits_are_compared_as_integers(x, window, **parameters):
    """Of two negative numbers the smaller has the larger bits."""
    best = windows(x, window, **parameters).view(np.int16).max(axis=3)
    return best.view(np.float16)


@mutant()
def ninth_channel_is_the_eighth(x, window, **parameters):
    """Only at block size + 1."""
    y = correct.maxpool2d(x, window=window, **parameters)
    if y.shape[3] == 9:
        y[..., 8] = y[..., 7]
    return y


@mutant("forward", "layout")
def reversed_rows_are_read_forwards(x, window, **parameters):
    """Only for negative strides: the image starts at its lowest address."""
    return correct.maxpool2d(x[:, ::-1] if x.strides[1] < 0 else x, window=window, **parameters)


@mutant("gradient")
def overlapping_windows_overwrite(x, dy, window, stride=(1, 1)):
    """ocannl#512, tangermeme#95: the last window that chose a pixel wins."""
    dx = np.zeros_like(x)
    for n, i, j, c in np.ndindex(*dy.shape):
        top, left = i * stride[0], j * stride[1]
        view = x[n, top : top + window[0], left : left + window[1], c]
        r, s = np.unravel_index(np.argmax(view), view.shape)
        dx[n, top + r, left + s, c] = dy[n, i, j, c]
    return (dx,)


@mutant("gradient")
def last_maximum_wins(x, dy, window, **parameters):
    """≥ instead of > while a window is searched."""
    taps = windows(x, window, **parameters)
    last = taps.shape[3] - 1 - np.argmax(taps[:, :, :, ::-1], axis=3)
    shares = np.arange(taps.shape[3])[:, None] == last[:, :, :, None]
    return (scatter(x, dy, shares, window, **parameters),)


@mutant("gradient")
def first_maximum_by_columns(x, dy, window, **parameters):
    """A window is searched column by column."""
    flipped = {k: v[::-1] for k, v in parameters.items()}
    dx = correct.maxpool2d_vjp(x.swapaxes(1, 2), dy.swapaxes(1, 2).copy(), window=window[::-1], **flipped)[0]
    return (dx.swapaxes(1, 2).copy(),)


@mutant("gradient")
def every_maximum_gets_it_all(x, dy, window, **parameters):
    """x == y, without asking who was first."""
    taps = windows(x, window, **parameters)
    return (scatter(x, dy, taps == taps.max(axis=3, keepdims=True), window, **parameters),)


@mutant("gradient")
def ties_share(x, dy, window, **parameters):
    """A subgradient, but not the one that is declared."""
    taps = windows(x, window, **parameters)
    ties = (taps == taps.max(axis=3, keepdims=True)).astype(x.dtype)
    return (scatter(x, dy, ties / ties.sum(axis=3, keepdims=True), window, **parameters),)


@mutant("gradient")
def gradient_is_not_cleared(x, dy, window, **parameters):
    """executorch#21686: what the call before has left is added to."""
    out = _left.setdefault(x.shape, np.zeros_like(x))
    out += correct.maxpool2d_vjp(x, dy, window=window, **parameters)[0]
    return (out.copy(),)


_left: dict = {}


@mutant("gradient")
def offset_has_three_bits(x, dy, window, **parameters):
    """The window offset is stored packed: that of the ninth entry is the first's."""
    taps = windows(x, window, **parameters)
    first = np.argmax(taps, axis=3) & 7
    shares = np.arange(taps.shape[3])[:, None] == first[:, :, :, None]
    return (scatter(x, dy, shares, window, **parameters),)


@mutant("gradient", dtype="float16")
def overlaps_are_added_in_float16(x, dy, window, **parameters):
    """A pixel that several windows chose is rounded after each, under a claim of float32."""
    taps = windows(x, window, **parameters)
    shares = np.arange(taps.shape[3])[:, None] == np.argmax(taps, axis=3)[:, :, :, None]
    return (scatter(x, dy, shares, window, **parameters),)


@mutant("gradient")
def gather_misses_the_last_window(x, dy, window, **parameters):
    """Off by one in the pool's gather: a pixel asks one row of windows too few, where windows overlap."""
    dy = dy.copy()
    if parameters.get("stride", (1, 1))[0] < window[0]:
        dy[:, -1:] = 0
    return correct.maxpool2d_vjp(x, dy, window=window, **parameters)


@mutant()
def two_by_two_reads_three_of_four(x, window, stride=(1, 1)):
    """The pool of most networks, 2 × 2 at stride 2, has a path of its own, and its last tap is not compared."""
    if window != (2, 2) or stride != (2, 2):
        return correct.maxpool2d(x, window=window, stride=stride)
    return np.max(windows(x, window, stride)[:, :, :, :3], axis=3)


@mutant("gradient")
def column_of_a_window_has_three_bits(x, dy, window, **parameters):
    """The place is stored as row · 8 + column."""
    first = np.argmax(windows(x, window, **parameters), axis=3)
    code = first // window[1] * 8 + first % window[1]
    place = code // 8 * window[1] + code % 8
    shares = np.arange(window[0] * window[1])[:, None] == place[:, :, :, None]
    return (scatter(x, dy, shares, window, **parameters),)


@mutant("gradient", "special")
def window_of_minus_infinity_gives_nothing(x, dy, window, **parameters):
    """The search begins at −∞ and asks for more: where all are −∞ nobody is the maximum."""
    taps = windows(x, window, **parameters)
    shares = np.arange(taps.shape[3])[:, None] == np.argmax(taps, axis=3)[:, :, :, None]
    return (scatter(x, dy, shares & (taps > -np.inf), window, **parameters),)
