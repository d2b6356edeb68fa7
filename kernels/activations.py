"""The activation functions and their derivatives, as kernels compute them, in float32 or float64."""

import triton.language as tl

from .launch import inlined


@inlined
def tanh(z):
    """tanh z = z + z³ R(z²) for |z| < 5/8, where 1 − 2/(e²ᶻ + 1) would cancel (Cephes, tanhf.c and tanh.c)."""
    z2 = z * z
    if z.dtype == tl.float64:
        p = (-9.64399179425052238628e-1 * z2 - 9.92877231001918586564e1) * z2 - 1.61468768441708447952e3
        q = ((z2 + 1.12811678491632931402e2) * z2 + 2.23548839060100448583e3) * z2 + 4.84406305325125486048e3
        near = z + z * z2 * (p / q)
    else:
        p = (-5.70498872745e-3 * z2 + 2.06390887954e-2) * z2 - 5.37397155531e-2
        near = z + z * z2 * ((p * z2 + 1.33314422036e-1) * z2 - 3.33332819422e-1)
    far = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(z)) + 1.0)
    return tl.where(tl.abs(z) < 0.625, near, tl.where(z < 0.0, -far, far))


@inlined
def sigmoid(z):
    """1 / (1 + e⁻ᶻ)"""
    return 1.0 / (1.0 + tl.exp(-z))


@inlined
def activate(z, ACTIVATION: tl.constexpr):
    """φ(z). NaN stays NaN."""
    if ACTIVATION == "relu":
        z = tl.where(z < 0.0, 0.0, z)
    elif ACTIVATION == "sigmoid":
        z = sigmoid(z)
    elif ACTIVATION == "tanh":
        z = tanh(z)
    return z


@inlined
def derivative(y, ACTIVATION: tl.constexpr):
    """φ′(z) from y = φ(z); that of ReLU at 0 is 0."""
    if ACTIVATION == "relu":
        return tl.where(y > 0.0, 1.0, 0.0).to(y.dtype)
    elif ACTIVATION == "sigmoid":
        return y * (1.0 - y)
    elif ACTIVATION == "tanh":
        return 1.0 - y * y
    else:
        return tl.full(y.shape, 1.0, y.dtype)
