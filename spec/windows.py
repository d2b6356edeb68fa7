"""The windows that a convolution or a pool looks at, and the way back.    (document §3.2)

Taps (r, s) are numbered row-major. All functions are shared by conv2d and maxpool2d.
"""

import numpy as np

from .signature import pair


def windows(x, window, stride, dilation=(1, 1)):
    """input(n_H·stride + k_H·dilation, n_W·stride + k_W·dilation) for every tap: [N,H,W,C] → [N,oH,oW,kH·kW,C]."""
    oH, oW = (output_size(n, k, s, d) for n, k, s, d in zip(x.shape[1:3], window, stride, dilation, strict=True))
    taps = [
        x[:, r * dilation[0] :: stride[0], s * dilation[1] :: stride[1]][:, :oH, :oW]
        for r in range(window[0])
        for s in range(window[1])
    ]
    return np.stack(taps, axis=3)


def fold(g, window, stride, image):
    """The adjoint of `windows`: every tap's entry is added to the pixel it was read from: [N,oH,oW,kH·kW,C] → [N,*image,C]."""
    H, W = image
    spread_g = spread(g, stride)
    h, w = spread_g.shape[1:3]
    taps = [
        np.pad(spread_g[:, :, :, r * window[1] + s], ((0, 0), (r, H - h - r), (s, W - w - s), (0, 0)))
        for r in range(window[0])
        for s in range(window[1])
    ]
    return np.sum(np.stack(taps), axis=0)


def spread(y, stride):
    """Put stride − 1 zeros between neighbours along axes 1 and 2."""
    for axis, step in ((1, stride[0]), (2, stride[1])):
        length = y.shape[axis]
        zeros = np.where(False, y, 0)  # of its dtype; y · 0 is NaN where y is
        y = np.stack([y] + [zeros] * (step - 1), axis=axis + 1)
        y = y.reshape(y.shape[:axis] + (length * step,) + y.shape[axis + 2 :])
        y = y[(slice(None),) * axis + (slice(0, length * step - step + 1),)]
    return y


def output_size(size, window, stride, dilation=1):
    """⌊(size − dilation·(window − 1) − 1) / stride⌋ + 1."""
    return (size - dilation * (window - 1) - 1) // stride + 1


def derive_output(operation, sizes, window, stride, padding=(0, 0), dilation=(1, 1)):
    """oH and oW, or a ValueError that names the parameter which does not fit."""
    window = pair(operation, "window", window, 1)
    stride = pair(operation, "stride", stride, 1)
    padding = pair(operation, "padding", padding, 0)
    dilation = pair(operation, "dilation", dilation, 1)
    derived = {}
    for i, axis in enumerate("HW"):
        size = sizes[axis] + 2 * padding[i]
        derived["o" + axis] = output_size(size, window[i], stride[i], dilation[i])
        if derived["o" + axis] < 1:
            reach = dilation[i] * (window[i] - 1) + 1
            raise ValueError(f"{operation}: window reaches over {reach} along {axis}, the padded image has only {size}")
    return derived
