"""Variants of conv2d and maxpool2d: tap by tap, window by window, gathered or scattered."""

import numpy as np

from ..planted import Planting
from .widened import widened

conv_variant, pool_variant = Planting("conv2d"), Planting("maxpool2d")


def sizes_out(image, window, stride, dilation=(1, 1)):
    return [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(image, window, stride, dilation, strict=True)]


def pad(x, padding):
    return np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))


def tap_of(x, r, s, size, stride, dilation=(1, 1)):
    """The pixels that tap (r, s) reads: a view [N,oH,oW,C]."""
    top, left = r * dilation[0], s * dilation[1]
    return x[:, top :: stride[0], left :: stride[1]][:, : size[0], : size[1]]


@conv_variant(dtype="float64")
@conv_variant()
def shifted_sums(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """Σ over taps of a shifted image times the tap's weights, the last row of taps first."""
    x = pad(x, padding)
    size = sizes_out(x.shape[1:3], w.shape[:2], stride, dilation)
    y = 0
    for r in reversed(range(w.shape[0])):
        for s in range(w.shape[1]):
            y = y + tap_of(x, r, s, size, stride, dilation) @ w[r, s]
    return y


@conv_variant()
def im2col_channels_first(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """Columns in the order C, kH, kW, one image at a time."""
    x = pad(x, padding)
    size = sizes_out(x.shape[1:3], w.shape[:2], stride, dilation)
    taps = [tap_of(x, r, s, size, stride, dilation) for r in range(w.shape[0]) for s in range(w.shape[1])]
    columns = np.stack(taps, axis=-1).reshape(len(x), size[0] * size[1], -1)
    rows = np.ascontiguousarray(w.transpose(2, 0, 1, 3)).reshape(-1, w.shape[3])
    return np.stack([c @ rows for c in columns]).reshape(len(x), *size, -1)


@conv_variant()
def conv_in_float64(x, w, **parameters):
    """float64 inside, rounded once."""
    return widened(shifted_sums, np.float64, x, w, **parameters)


@conv_variant(dtype="bfloat16")
@conv_variant(dtype="float16")
def conv_in_float32(x, w, **parameters):
    """float32 inside, rounded once."""
    return widened(shifted_sums, np.float32, x, w, **parameters)


@conv_variant("gradient", dtype="float64")
@conv_variant("gradient")
def dw_by_taps_and_dx_by_gathering(x, w, dy, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """dW one tap at a time; dX per padded pixel, from every output that read it, by the weights turned by 180°."""
    padded, (oH, oW) = pad(x, padding), dy.shape[1:3]
    dw = np.zeros_like(w)
    for r, s in np.ndindex(w.shape[:2]):
        tap = tap_of(padded, r, s, (oH, oW), stride, dilation).reshape(-1, x.shape[3])
        dw[r, s] = tap.T @ dy.reshape(-1, dy.shape[3])
    reach = [d * (k - 1) for k, d in zip(w.shape[:2], dilation, strict=True)]
    spread = np.zeros((len(x), *(n + m for n, m in zip(padded.shape[1:3], reach, strict=True)), w.shape[3]), x.dtype)
    spread[:, reach[0] :: stride[0], reach[1] :: stride[1]][:, :oH, :oW] = dy
    dx = shifted_sums(spread, w[::-1, ::-1].swapaxes(2, 3), dilation=dilation)
    return dx[:, padding[0] :][:, : x.shape[1], padding[1] :][:, :, : x.shape[2]], dw


@pool_variant(dtype="bfloat16")
@pool_variant(dtype="float64")
@pool_variant()
def tap_by_tap(x, window, stride=(1, 1)):
    """The last tap first."""
    size = sizes_out(x.shape[1:3], window, stride)
    taps = [tap_of(x, r, s, size, stride) for r in range(window[0]) for s in range(window[1])]
    y = taps[-1]
    for tap in taps[-2::-1]:
        y = np.maximum(y, tap)
    return np.array(y)


@pool_variant("gradient", dtype="float16")
@pool_variant("gradient")
def scattered_to_the_argmax(x, dy, window, stride=(1, 1)):
    """Every output adds to its first maximum, the last output first; 16 bits are added up in float32."""
    dx = np.zeros(x.shape, np.promote_types(x.dtype, np.float32))
    for n, i, j, c in reversed(list(np.ndindex(*dy.shape))):
        top, left = i * stride[0], j * stride[1]
        view = x[n, top : top + window[0], left : left + window[1], c]
        r, s = np.unravel_index(np.argmax(view), view.shape)
        dx[n, top + r, left + s, c] += dy[n, i, j, c]
    return (dx.astype(x.dtype),)


@pool_variant("gradient")
def gathered_by_stored_offsets(x, dy, window, stride=(1, 1)):
    """The forward pass keeps the tap that won; the gradient visits the taps that may have read a pixel, in turn."""
    size = sizes_out(x.shape[1:3], window, stride)
    taps = [(r, s) for r in range(window[0]) for s in range(window[1])]
    won = np.argmax(np.stack([tap_of(x, r, s, size, stride) for r, s in taps]), axis=0)
    dx = np.zeros_like(x)
    for n, (r, s) in reversed(list(enumerate(taps))):
        tap_of(dx, r, s, size, stride)[...] += np.where(won == n, dy, dy.dtype.type(0))
    return (dx,)
