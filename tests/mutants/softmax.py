"""Mutants of softmax."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import bfloat16, exp20, float16

correct = load("numpy").module
mutant = Planting("softmax")


@mutant()
def sum_is_lost_at_1e7(x):
    """pytorch#11752: m + log Σ is m again."""
    m = np.max(x, axis=-1, keepdims=True)
    return np.exp(x - (m + np.log(np.sum(np.exp(x - m), axis=-1, keepdims=True))))


@mutant()
def no_maximum_is_subtracted(x):
    """pytorch#62897"""
    e = np.exp(x)
    return e / np.sum(e, axis=-1, keepdims=True)


@mutant()
def maximum_skips_the_first_element(x):
    """pytorch#3244"""
    e = np.exp(x - np.max(x[:, 1:] if x.shape[1] > 1 else x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


@mutant()
def maximum_of_the_whole_matrix(x):
    """Right while no row lies far below another."""
    e = np.exp(x - np.max(x))
    return e / np.sum(e, axis=-1, keepdims=True)


@mutant()
def padding_counts_in_the_sum(x):
    """Rows are padded to a power of two with 0 instead of −∞."""
    width = 1 << (x.shape[1] - 1).bit_length()
    return correct.softmax(np.pad(x, ((0, 0), (0, width - x.shape[1]))))[:, : x.shape[1]]


@mutant()
def rescaling_is_dropped_in_the_last_block(x):
    """Online, in blocks of 32: what was summed before is not rescaled where the last block has the maximum."""
    last = (x.shape[1] - 1) // 32 * 32
    if last == 0:
        return correct.softmax(x)
    before, m = x[:, :last].max(-1, keepdims=True), x.max(-1, keepdims=True)
    total = np.exp(x[:, :last] - before).sum(-1, keepdims=True) + np.exp(x[:, last:] - m).sum(-1, keepdims=True)
    return np.exp(x - m) / total


@mutant()
def column_128_is_left_out(x):
    """Only at block size + 1: the sum ends with the block."""
    if x.shape[1] != 129:
        return correct.softmax(x)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e[:, :128].sum(-1, keepdims=True)


mutant.line(
    "row_sum_in_bfloat16",
    "The sum is rounded to bfloat16, under a claim of float32.",
    ("total += empty", "total[...] = bfloat16(total)"),
    bfloat16=bfloat16,
)
mutant.line(
    "exp_with_20_bits",
    "A fast exp.",
    ("np.exp(p, out=p)", "p[...] = exp20(p)"),
    exp20=exp20,
)
mutant.line(
    "log2_of_e_has_five_digits",
    "exp through exp2, with 1.4427 for log₂ e.",
    ("np.exp(p, out=p)", "np.exp2(p * p.dtype.type(1.4427), out=p)"),
)
mutant.line(
    "reciprocal_of_12_bits",
    "rcp.approx without its Newton step.",
    ("    p /= total", "    p *= (1 / total).astype(np.float16)"),
)
mutant.line(
    "exponentials_are_stored_in_float16",
    "Rounded between the two passes, under a claim of float32 intermediates.",
    ("total = p.sum", "p[...] = float16(p)\n    total = p.sum"),
    dtype="float16",
    float16=float16,
)
mutant.line(
    "shifted_in_place",
    "The maximum is subtracted from the caller's array.",
    ("return _softmax(x)\n", "return _softmax(x, out=x).copy()\n"),
)
mutant.line(
    "logits_are_clamped",
    "To ± 10⁴, for safety: beyond it all are equal.",
    ("return _softmax(x)\n", "return _softmax(np.clip(x, np.float32(-1e4), np.float32(1e4)))\n"),
)


@mutant("forward", "special")
def nan_is_read_as_minus_infinity(x):
    """The mask's fill value, in the place of NaN."""
    return correct.softmax(np.where(np.isnan(x), -np.inf, x).astype(x.dtype))


@mutant("forward", "special")
def first_block_of_minus_infinity_is_nan(x):
    """Online, in blocks of 32: −∞ − (−∞), where a row begins with a block of nothing else."""
    p = correct.softmax(x)
    p[np.isneginf(x[:, :32]).all(-1)] = np.nan
    return p


@mutant()
def buffer_of_the_call_before(x):
    """A missing synchronisation: an equal call finds its result not yet written, and zeros in its place."""
    fresh = _seen.get("x") is None or not np.array_equal(_seen["x"], x)
    _seen["x"] = x.copy()
    return correct.softmax(x) if fresh else np.zeros_like(x)


_seen: dict = {}


@mutant("gradient", "layout")
def row_stride_is_ignored(x, dp):
    """mlx#657"""
    packed = np.lib.stride_tricks.as_strided(x, x.shape, (x.shape[1] * x.itemsize, x.itemsize))
    return correct.softmax_vjp(np.array(packed), dp)


@mutant("gradient")
def only_the_diagonal_of_the_jacobian(x, dp):
    """p (1 − p) dp, as for a sigmoid."""
    p = correct.softmax(x)
    return (p * (1 - p) * dp,)


@mutant("gradient")
def inner_sum_ends_with_the_first_block(x, dp):
    """Σ p dp over the first 64 columns."""
    p = correct.softmax(x)
    return (p * (dp - (p * dp)[:, :64].sum(-1, keepdims=True)),)


@mutant("gradient")
def inner_sum_over_the_batch(x, dp):
    """The sum runs along the other axis where the matrix is square."""
    p = correct.softmax(x)
    return (p * (dp - (p * dp).sum(0 if len(x) == x.shape[1] else 1, keepdims=True).reshape(-1, 1)),)


@mutant("gradient")
def cotangents_of_the_last_row_are_the_first_rows(x, dp):
    """A row index that wraps around at N = 33."""
    if len(x) != 33:
        return correct.softmax_vjp(x, dp)
    return correct.softmax_vjp(x, np.concatenate([dp[:-1], dp[:1]]))


mutant.line(
    "inner_sum_in_bfloat16",
    "Σ p dp is rounded to bfloat16, under a claim of float32.",
    ("d -= np.vecdot(p, d)[..., None]", "d -= bfloat16(np.vecdot(p, d)[..., None])"),
    direction="gradient",
    bfloat16=bfloat16,
)


@mutant()
def maximum_starts_at_minus_10000(x):
    """A finite −∞ of the 16-bit days: rows that lie below it underflow, all of them."""
    e = np.exp(x - np.maximum(x.max(-1, keepdims=True), x.dtype.type(-1e4)))
    return e / np.sum(e, axis=-1, keepdims=True)


@mutant()
def maximum_of_the_first_512_columns(x):
    """What one block of threads holds; the sum is over all."""
    e = np.exp(x - np.max(x[:, :512], axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


@mutant("forward", "layout")
def one_row_is_taken_for_packed(x):
    """With a single row its stride is said to be none of the kernel's business, and so is that along the row."""
    if len(x) > 1:
        return correct.softmax(x)
    return correct.softmax(np.lib.stride_tricks.as_strided(x, x.shape, (x.size * x.itemsize, x.itemsize)))


@mutant("forward", "stateless")
def three_buffers_take_turns(x):
    """Results of one shape rotate over three buffers: the fourth call overwrites the first's."""
    _turn.append(x.shape)
    out = _rotating.setdefault((x.shape, len(_turn) % 3), np.empty(x.shape, x.dtype))
    out[...] = correct.softmax(x)
    return out


_turn: list = []
_rotating: dict = {}
