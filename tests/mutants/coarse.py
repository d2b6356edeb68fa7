"""Arithmetic that is coarser than what is declared, for mutants to compute in."""

import ml_dtypes
import numpy as np


def bfloat16(a):
    """Rounded to bfloat16, in the format that it came in."""
    return np.asarray(a).astype(ml_dtypes.bfloat16).astype(a.dtype)


def float16(a):
    """Rounded to float16, in the format that it came in."""
    return np.asarray(a).astype(np.float16).astype(a.dtype)


def tf32(a):
    """A float32 operand as a tensor core reads it: 11 significant bits, the rest cut off."""
    return (np.ascontiguousarray(a).view(np.int32) & ~np.int32(0x1FFF)).view(np.float32)


def exp20(z):
    """eᶻ in float32 to 20 bits, as a table with a short polynomial gives it."""
    return (np.exp(z).view(np.int32) & ~np.int32(0xF)).view(np.float32)


def truncated(exact):
    """A float64 cut off to float32, towards zero."""
    nearest = exact.astype(np.float32)
    return np.where(np.abs(nearest) > np.abs(exact), np.nextafter(nearest, np.float32(0)), nearest)


def product(x, w, keep=truncated):
    """x w, one term after another, every partial sum kept as `keep` rounds a float64."""
    total = np.zeros((*x.shape[:-1], w.shape[-1]))
    for k in range(x.shape[-1]):
        total = keep(total + x[..., k, None].astype(float) * w[..., k, :][..., None, :].astype(float)).astype(float)
    return total.astype(x.dtype)
