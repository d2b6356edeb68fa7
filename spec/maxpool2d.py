"""Max pool: out(n_H,n_W,n_C) = max over k_H, k_W of input(n_H+k_H, n_W+k_W, n_C).    (document §3.2.2)"""

import numpy as np

from .signature import Operation
from .windows import derive_output, fold, windows


def maxpool2d(x, window, stride=(1, 1)):
    """max over k_H < window[0], k_W < window[1] of x(n_H·stride + k_H, n_W·stride + k_W, n_C).

    x [N,H,W,C] → [N,oH,oW,C]. NaN in a window gives NaN. Source: document §3.2.2, whose window moves by one.
    Laws: maxpool2d.commutes_with_monotone_maps  y(φ(x)) = φ(y(x)) for every φ that does not decrease
          maxpool2d.commutes_with_nan            NaN just where a window holds one, y(x) elsewhere
          maxpool2d.batch_is_independent         y(x)ₙ = y(xₙ)
    """
    return np.max(windows(x, window, stride), axis=3)


def maxpool2d_vjp(x, dy, window, stride=(1, 1)):
    """dy goes to the first maximum of its window, row-major; pixels that several windows chose receive the sum.

    Laws: maxpool2d.vjp_is_linear  vjp(dy + dz) = vjp(dy) + vjp(dz), for given arrays
    """
    view = windows(x, window, stride)
    y = np.max(view, axis=3)
    chosen, taken = [], False
    for tap in range(window[0] * window[1]):
        hit = np.logical_and(view[:, :, :, tap] == y, np.logical_not(taken))
        taken = np.logical_or(taken, hit)
        chosen.append(np.where(hit, dy, 0))
    return (fold(np.stack(chosen, axis=3), window, stride, x.shape[1:3]),)


def _derive(sizes, *, window, stride):
    return derive_output("maxpool2d", sizes, window, stride)


OPERATION = Operation(
    name="maxpool2d",
    function=maxpool2d,
    vjp=maxpool2d_vjp,
    section="3.2.2",
    equation="out(n_H,n_W,n_C) = max input(n_H+k_H, n_W+k_W, n_C)",
    arrays={"x": "N H W C"},
    outputs={"y": "N oH oW C"},
    defaults={"stride": (1, 1)},
    required=("window",),
    derive=_derive,
    polynomial=lambda **parameters: True,
)
