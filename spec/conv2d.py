"""Convolution: out(n_H,n_W,n_C) = Σ weight(k_H,k_W,k_C,n_C) · input(n_H+k_H, n_W+k_W, k_C).    (document §3.2.1)"""

import numpy as np

from .signature import Operation
from .windows import derive_output, spread, windows


def conv2d(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """Σ over k_H, k_W, k_C of w(k_H,k_W,k_C,o) · x(n_H·stride + k_H·dilation − padding, …, k_C): cross-correlation.

    x [N,H,W,C], w [kH,kW,C,O] → [N,oH,oW,O]; x is 0 outside the image. Source: document §3.2.1, whose equation is
    the default: stride 1, no padding, no bias.
    Laws: conv2d.linear_in_x           y(x + z, w) = y(x, w) + y(z, w)
          conv2d.linear_in_w           y(x, w + z) = y(x, w) + y(x, z)
          conv2d.moves_with_x          x less its first `stride` pixels gives y less its first pixel, clear of the padding
          conv2d.batch_is_independent  y(x, w)ₙ = y(xₙ, w)
    """
    kH, kW, C, O = w.shape
    view = windows(_pad(x, padding), (kH, kW), stride, dilation)
    return view.reshape(view.shape[:3] + (kH * kW * C,)) @ w.reshape((kH * kW * C, O))


def conv2d_vjp(x, w, dy, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """∂L/∂w sums dy against the windows; ∂L/∂x correlates dy, spread by the stride, with w turned by 180°.

    Laws: conv2d.vjp_is_linear  vjp(dy + dz) = vjp(dy) + vjp(dz), for given arrays
    """
    kH, kW, C, O = w.shape
    padded = _pad(x, padding)
    view = windows(padded, (kH, kW), stride, dilation)
    dw = view.reshape((-1, kH * kW * C)).mT @ dy.reshape((-1, O))
    reach = (dilation[0] * (kH - 1), dilation[1] * (kW - 1))
    dx = conv2d(spread(dy, stride), w[::-1, ::-1].mT, padding=reach, dilation=dilation)
    unread = [(0, padded.shape[i] - dx.shape[i]) for i in (1, 2)]
    dx = np.pad(dx, ((0, 0), *unread, (0, 0)))
    H, W = x.shape[1:3]
    return dx[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W], dw.reshape(w.shape)


def _pad(x, padding):
    return np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))


def _derive(sizes, *, stride, padding, dilation):
    return derive_output("conv2d", sizes, (sizes["kH"], sizes["kW"]), stride, padding, dilation)


OPERATION = Operation(
    name="conv2d",
    function=conv2d,
    vjp=conv2d_vjp,
    section="3.2.1",
    equation="out(n_H,n_W,n_C) = Σ weight(k_H,k_W,k_C,n_C) · input(n_H+k_H, n_W+k_W, k_C)",
    arrays={"x": "N H W C", "w": "kH kW C O"},
    outputs={"y": "N oH oW O"},
    defaults={"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)},
    derive=_derive,
    polynomial=lambda **parameters: True,
)
