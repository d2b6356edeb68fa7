"""Mutants of half the sum of squared differences."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import float16, truncated

correct = load("numpy").module
mutant = Planting("mse")


@mutant()
def factor_one_half_is_lost(y_hat, y):
    """Σ (ŷ − y)²"""
    return 2 * correct.mse(y_hat, y)


@mutant()
def mean_instead_of_sum(y_hat, y):
    """What most libraries call this loss."""
    return correct.mse(y_hat, y) / np.float32(y.size)


@mutant()
def square_is_expanded(y_hat, y):
    """½ (Σ ŷ² − 2 Σ ŷ y + Σ y²), which cancels."""
    return np.float32(0.5) * (np.sum(y_hat * y_hat) - 2 * np.sum(y_hat * y) + np.sum(y * y))


@mutant()
def accumulation_truncates(y_hat, y):
    """Every partial sum is rounded towards zero."""
    total = np.zeros(())
    for d in (y_hat - y).ravel():
        total = truncated(total + float(d) ** 2).astype(float)
    return truncated(total / 2)


@mutant(dtype="float16")
def partial_sums_in_float16(y_hat, y):
    """Every row's sum is rounded to float16, under a claim of float32."""
    d = y_hat.astype(np.float32) - y.astype(np.float32)
    return (float16((d * d).sum(axis=1)).sum() / 2).astype(np.float16)


@mutant(dtype="float16")
def halved_after_storing(y_hat, y):
    """The sum is stored before it is halved: it overflows where its half does not."""
    d = y_hat.astype(np.float32) - y.astype(np.float32)
    return np.sum(d * d).astype(np.float16) / np.float16(2)


@mutant(dtype="float64")
def sum_in_float32(y_hat, y):
    """A float32 accumulator under float64."""
    d = y_hat - y
    return np.sum(d * d, dtype=np.float32).astype(np.float64) / 2


@mutant()
def last_row_after_a_multiple_of_eight(y_hat, y):
    """Rows are summed in eights; the one that is left over at 8 n + 1 is not."""
    N = len(y) - (len(y) > 8 and len(y) % 8 == 1)
    return correct.mse(y_hat[:N], y[:N])


@mutant()
def scalar_has_an_axis(y_hat, y):
    """Shape [1], which broadcasts like []."""
    return correct.mse(y_hat, y)[None]


@mutant("forward", "layout")
def strides_are_ignored(y_hat, y):
    """Both matrices are read as if one row began where the other ends."""
    packed = np.lib.stride_tricks.as_strided(y_hat, y.shape, (y.shape[1] * y.itemsize, y.itemsize))
    return correct.mse(packed, y)


@mutant("forward", "special")
def nan_is_left_out(y_hat, y):
    """nansum"""
    d = np.nan_to_num(y_hat - y, nan=0, posinf=np.inf, neginf=-np.inf)
    return correct.mse(d, 0 * d)


@mutant("gradient")
def sign_of_dy(y_hat, y, dL):
    """Both gradients are dL (ŷ − y)."""
    d, _ = correct.mse_vjp(y_hat, y, dL)
    return d, d.copy()


@mutant("gradient")
def negated_in_place(y_hat, y, dL):
    """The same, by aliasing: the second gradient is the first's memory."""
    d, _ = correct.mse_vjp(y_hat, y, dL)
    return d, np.negative(d, out=d)


@mutant("gradient")
def cotangent_is_ignored(y_hat, y, dL):
    """A loss is always the last node, says the author."""
    return correct.mse_vjp(y_hat, y, np.ones_like(dL))


@mutant("gradient")
def gradient_of_the_mean(y_hat, y, dL):
    """Divided by the number of elements, which the forward pass is not."""
    return correct.mse_vjp(y_hat, y, dL / np.float32(y.size))


@mutant("gradient", dtype="float16")
def difference_is_clamped(y_hat, y, dL):
    """To what float16 holds, before a small dL would have made it fit."""
    d = np.clip(y_hat.astype(np.float32) - y.astype(np.float32), -65504, 65504) * dL.astype(np.float32)
    return d.astype(np.float16), (-d).astype(np.float16)


@mutant("gradient", dtype="float16")
def difference_is_rounded_first(y_hat, y, dL):
    """ŷ − y is rounded to float16 before dL multiplies it: rounded twice."""
    return tuple(a.astype(np.float16) for a in (dL * (y_hat - y), -dL * (y_hat - y)))


@mutant("gradient")
def columns_from_64_on_are_not_written(y_hat, y, dL):
    """One tile per row."""
    dy_hat, dy = correct.mse_vjp(y_hat, y, dL)
    dy_hat[:, 64:] = 0
    return dy_hat, dy


@mutant("forward", "layout")
def column_of_targets_is_read_as_packed(y_hat, y):
    """One output: the targets are a vector, says the kernel, where they are a column of a table."""
    packed = np.lib.stride_tricks.as_strided(y, y.shape, (y.itemsize, y.itemsize)) if y.shape[1] == 1 else y
    return correct.mse(y_hat, packed)


@mutant("gradient")
def small_differences_count_as_none(y_hat, y, dL):
    """|ŷ − y| < 10⁻⁶ is equality, to the author."""
    d = np.where(np.abs(y_hat - y) < 1e-6, 0, y_hat - y).astype(y.dtype)
    return dL * d, -dL * d
