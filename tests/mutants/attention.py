"""Mutants of attention."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import bfloat16, exp20, product, tf32
from .conv2d import contiguous

correct = load("numpy").module
mutant = Planting("attention")
f32 = np.float32


def may_attend(q, k, mask=None, causal=False):
    """bool [B or 1,H or 1,M,S]"""
    allowed = np.ones((1, 1, q.shape[2], k.shape[2]), bool) if mask is None else mask
    return allowed & np.tri(*allowed.shape[2:], dtype=bool) if causal else allowed


@mutant()
def scores_off_by_1e_5(q, k, v, **parameters):
    """The scale is too large by one part in 10⁵."""
    return correct.attention(q * f32(1 + 1e-5), k, v, **parameters)


@mutant("forward", "layout")
def parts_of_one_buffer_are_read_as_contiguous(q, k, v, **parameters):
    """Of a fused projection, beside which arrays of their own go another way."""
    packed = k.base is not None and q.base is k.base
    return correct.attention(q, contiguous(k) if packed else k, v, **parameters)


@mutant()
def scale_by_the_values_width(q, k, v, **parameters):
    """√d_v for √d_k: right where they agree."""
    return correct.attention(q * f32(np.sqrt(q.shape[3] / v.shape[3])), k, v, **parameters)


@mutant()
def fully_masked_row_gives_the_mean(q, k, v, **parameters):
    """onnxruntime#28904"""
    empty = ~may_attend(q, k, **parameters).any(-1, keepdims=True)
    return np.where(empty, np.mean(v, axis=2, keepdims=True), correct.attention(q, k, v, **parameters))


@mutant()
def fully_masked_first_block_is_nan(q, k, v, **parameters):
    """pytorch#127055: −∞ − (−∞) in the first of two blocks, in rows that may attend to keys of the second."""
    y, half = correct.attention(q, k, v, **parameters), (k.shape[2] + 1) // 2
    allowed = may_attend(q, k, **parameters)
    first, second = allowed[..., :half].any(-1), allowed[..., half:].any(-1)
    y[np.broadcast_to(~first & second, y.shape[:3])] = np.nan
    return y


@mutant()
def maximum_of_a_masked_block_sticks(q, k, v, **parameters):
    """FA#2082: a −∞ row maximum is replaced by 0, and scores below 0 are measured against that from then on."""
    allowed, half = may_attend(q, k, **parameters), (k.shape[2] + 1) // 2
    s = np.where(allowed, q @ k.mT * f32(1 / np.sqrt(q.shape[3])), f32(-np.inf))
    m = s.max(-1, keepdims=True)
    m = np.where(np.isfinite(s[..., :half].max(-1, keepdims=True)), m, np.maximum(m, 0))
    p = np.exp(s - m)
    total = p.sum(-1, keepdims=True)
    return p @ v / np.where(total > 0, total, f32(1))


@mutant()
def mask_is_a_finite_sentinel(q, k, v, mask=None, causal=False):
    """flashinfer#4267: −30 for −∞ leaves e⁻³⁰ of what may not be read, and all of it where nothing may."""
    s = q @ k.mT * f32(1 / np.sqrt(q.shape[3]))
    s = np.where(may_attend(q, k, mask, causal), s, f32(-30))
    return correct.softmax(s.reshape(-1, s.shape[-1])).reshape(s.shape) @ v


@mutant()
def mask_is_also_scaled(q, k, v, **parameters):
    """tt-metal#42891: −100 is added before the division by √d_k."""
    allowed = may_attend(q, k, **parameters)
    s = (q @ k.mT + np.where(allowed, f32(0), f32(-100))) * f32(1 / np.sqrt(q.shape[3]))
    p = correct.softmax(s.reshape(-1, s.shape[-1])).reshape(s.shape)
    return np.where(allowed.any(-1, keepdims=True), p @ v, f32(0))


@mutant()
def mask_is_added_as_numbers(q, k, v, mask=None, causal=False):
    """pytorch#107084, the other way: a mask of bool is added to the scores as 0 and 1."""
    if mask is None:
        return correct.attention(q, k, v, causal=causal)
    s = q @ k.mT * f32(1 / np.sqrt(q.shape[3])) + mask.astype(q.dtype)
    s = np.where(may_attend(q, k, None, causal), s, f32(-np.inf))
    return correct.softmax(s.reshape(-1, s.shape[-1])).reshape(s.shape) @ v


@mutant()
def broadcast_mask_is_read_once(q, k, v, mask=None, causal=False):
    """pytorch#128816: of a mask that is broadcast over the batch, the second element reads beyond."""
    if mask is None or mask.shape[0] == len(q):
        return correct.attention(q, k, v, mask=mask, causal=causal)
    whole = np.repeat(mask, len(q), axis=0)
    whole[1:] = True
    return correct.attention(q, k, v, mask=whole, causal=causal)


@mutant()
def first_heads_mask_for_all(q, k, v, mask=None, causal=False):
    """The head's stride of a mask is taken for 0."""
    return correct.attention(q, k, v, mask=None if mask is None else mask[:, :1], causal=causal)


@mutant()
def causal_excludes_the_diagonal(q, k, v, mask=None, causal=False):
    """Keys before the query, and not its own; the first query keeps it."""
    if not causal:
        return correct.attention(q, k, v, mask=mask)
    band = np.tri(q.shape[2], k=-1, dtype=bool)
    band[0, 0] = True
    return correct.attention(q, k, v, mask=band[None, None] if mask is None else mask & band)


@mutant()
def mask_switches_causal_off(q, k, v, mask=None, causal=False):
    """The explicit mask is used in its place, not beside it."""
    return correct.attention(q, k, v, mask=mask, causal=causal and mask is None)


@mutant()
def last_key_after_whole_blocks_is_left_out(q, k, v, **parameters):
    """Only at block size + 1: S = 17, 33, 65; a query that may attend to no other key keeps it."""
    if k.shape[2] == 1 or k.shape[2] % 16 != 1:
        return correct.attention(q, k, v, **parameters)
    allowed = np.repeat(may_attend(q, k, **parameters), 1, axis=0)
    allowed[..., -1] &= ~allowed[..., :-1].any(-1)
    return correct.attention(q, k, v, mask=allowed)


@mutant()
def padded_keys_count_in_the_row_sum(q, k, v, mask=None, causal=False):
    """S is padded to a multiple of 16 with keys of 0, which only a mask or causality keeps out."""
    missing = -k.shape[2] % 16
    if mask is not None or causal:
        return correct.attention(q, k, v, mask=mask, causal=causal)
    return correct.attention(q, *(np.pad(a, ((0, 0), (0, 0), (0, missing), (0, 0))) for a in (k, v)))


@mutant()
def second_batch_element_reads_the_first_values(q, k, v, **parameters):
    """Only for the second batch element: v's batch stride is 0."""
    return correct.attention(q, k, np.repeat(v[:1], len(v), axis=0), **parameters)


@mutant("forward", "layout")
def reversed_keys_are_read_forwards(q, k, v, **parameters):
    """Only for negative strides."""
    return correct.attention(q, k[:, :, ::-1] if k.strides[2] < 0 else k, v, **parameters)


mutant.line(
    "weights_in_bfloat16",
    "P is rounded before P·V, under a claim of float32.",
    ("    y = p @ v\n", "    y = bfloat16(p) @ v\n"),
    bfloat16=bfloat16,
)
mutant.line(
    "row_sum_in_bfloat16",
    "The sum is rounded to bfloat16, under a claim of float32.",
    ("total += empty", "total[...] = bfloat16(total) + empty"),
    bfloat16=bfloat16,
)
mutant.line(
    "scores_in_tf32",
    "Q·K under a claim of float32.",
    ("scores = q @ k.mT", "scores = tf32(q) @ tf32(k).mT"),
    tf32=tf32,
)
mutant.line(
    "accumulation_truncates",
    "P·V is summed as tensor cores add: every partial sum is rounded towards zero.",
    ("    y = p @ v\n", "    y = product(p, v)\n"),
    product=product,
)
mutant.line(
    "exp_with_20_bits",
    "A fast exp.",
    ("np.exp(p, out=p)", "p[...] = exp20(p)"),
    exp20=exp20,
)


@mutant("forward", "special")
def nan_query_gives_zero(q, k, v, **parameters):
    """pytorch#141128: a row whose maximum is not a number is taken for a masked one."""
    y = correct.attention(q, k, v, **parameters)
    return np.where(np.isnan(q).any(-1, keepdims=True), f32(0), y)


@mutant()
def mask_is_minus_10000(q, k, v, **parameters):
    """The mask of the 16-bit days: scores below it outrank what they may not."""
    allowed = may_attend(q, k, **parameters)
    s = np.where(allowed, q @ k.mT * f32(1 / np.sqrt(q.shape[3])), f32(-1e4))
    p = correct.softmax(s.reshape(-1, s.shape[-1])).reshape(s.shape)
    return np.where(allowed.any(-1, keepdims=True), p @ v, f32(0))


@mutant()
def decoding_merges_its_splits_unscaled(q, k, v, mask=None, causal=False):
    """A single query's keys go in chunks of 64, merged by their sums, which belong to different maxima."""
    if q.shape[2] > 1 or k.shape[2] <= 64 or mask is not None:
        return correct.attention(q, k, v, mask=mask, causal=causal)
    s = q @ k.mT * f32(1 / np.sqrt(q.shape[3]))
    e = [np.exp(part - part.max(-1, keepdims=True)) for part in np.split(s, range(64, k.shape[2], 64), axis=-1)]
    return np.concatenate(e, -1) @ v / sum(part.sum(-1, keepdims=True) for part in e)
