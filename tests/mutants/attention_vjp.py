"""Mutants of attention's gradient."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .attention import may_attend
from .coarse import bfloat16

correct = load("numpy").module
mutant = Planting("attention")


@mutant("gradient")
def causal_from_the_other_corner(q, k, v, dy, mask=None, causal=False):
    """ffpa-attn#300: the backward's triangle is turned by 180°."""
    if causal:
        triangle = np.tri(q.shape[2], k.shape[2], dtype=bool)[::-1, ::-1]
        mask = triangle[None, None] if mask is None else mask & triangle
    return correct.attention_vjp(q, k, v, dy, mask=mask)


@mutant("gradient")
def causal_one_key_too_far(q, k, v, dy, mask=None, causal=False):
    """Off by one, in the backward only."""
    if causal:
        band = np.tri(q.shape[2], k.shape[2], 1, dtype=bool)
        mask = band[None, None] if mask is None else mask & band
    return correct.attention_vjp(q, k, v, dy, mask=mask)


@mutant("gradient")
def causal_is_always_on(q, k, v, dy, mask=None, causal=False):
    """triton#5660: the backward ignores causal=False, where M = S."""
    return correct.attention_vjp(q, k, v, dy, mask=mask, causal=q.shape[2] == k.shape[2])


@mutant("gradient")
def values_split_over_blocks_leave_partial_gradients(q, k, v, dy, **parameters):
    """FLA: where V is wider than a block, each block writes dQ and dK of its own part."""
    dq, dk, dv = correct.attention_vjp(q, k, v, dy, **parameters)
    if v.shape[3] > 16:
        dq, dk, _ = correct.attention_vjp(q, k, v[..., :16], dy[..., :16], **parameters)
    return dq, dk, dv


@mutant("gradient")
def nan_at_masked_rows(q, k, v, dy, **parameters):
    """FA#443: dQ of a query that may attend to no key is NaN."""
    dq, dk, dv = correct.attention_vjp(q, k, v, dy, **parameters)
    return np.where(may_attend(q, k, **parameters).any(-1, keepdims=True), dq, np.float32(np.nan)), dk, dv


@mutant("gradient")
def rows_from_64_on_are_left_at_zero(q, k, v, dy, **parameters):
    """FA#1778: one row more than a block of queries."""
    dq, dk, dv = correct.attention_vjp(q, k, v, dy, **parameters)
    dq[:, :, 64:] = 0
    return dq, dk, dv


@mutant("gradient")
def mask_is_forgotten_in_dv(q, k, v, dy, mask=None, causal=False):
    """dV with the weights of the unmasked scores."""
    dq, dk, _ = correct.attention_vjp(q, k, v, dy, mask=mask, causal=causal)
    return dq, dk, correct.attention_vjp(q, k, v, dy, causal=causal)[2]


@mutant("gradient")
def last_head_is_added_twice(q, k, v, dy, **parameters):
    """A race on dK that one program wins twice, where there is more than one head."""
    dq, dk, dv = correct.attention_vjp(q, k, v, dy, **parameters)
    dk[:, 1:] += dk[:, 1:] * (np.arange(dk.shape[1] - 1) == dk.shape[1] - 2)[:, None, None]
    return dq, dk, dv


@mutant("gradient")
def dk_and_dv_share_memory(q, k, v, dy, **parameters):
    """Two gradients of one shape are written to one buffer."""
    dq, dk, dv = correct.attention_vjp(q, k, v, dy, **parameters)
    return dq, dv if dk.shape == dv.shape else dk, dv


mutant.line(
    "dq_lacks_the_scale",
    "Folded into q for the forward, and forgotten on the way back.",
    ("return _scale(_product(dS, k, allowed))", "return (_product(dS, k, allowed))"),
    direction="gradient",
)
mutant.line(
    "softmax_without_its_inner_sum",
    "dS = P ⊙ dP.",
    ("    _through_softmax(dS, P)\n", "    dS *= P\n"),
    direction="gradient",
)
mutant.line(
    "ds_in_bfloat16",
    "dS is rounded before its products, under a claim of float32.",
    ("    _through_softmax(dS, P)\n", "    dS = bfloat16(_through_softmax(dS, P))\n"),
    direction="gradient",
    bfloat16=bfloat16,
)
mutant.line(
    "inner_sum_in_bfloat16",
    "Σ P dP is rounded to bfloat16, under a claim of float32.",
    ("d -= np.vecdot(p, d)[..., None]", "d -= bfloat16(np.vecdot(p, d)[..., None])"),
    direction="gradient",
    bfloat16=bfloat16,
)


@mutant("gradient")
def single_query_keeps_its_last_block(q, k, v, dy, **parameters):
    """Decoding: dQ of one query is stored once per block of 64 keys, not added."""
    dq, dk, dv = correct.attention_vjp(q, k, v, dy, **parameters)
    last = (k.shape[2] - 1) // 64 * 64
    if q.shape[2] == 1 and last and not parameters:
        p = correct.softmax((q @ k.mT / np.float32(np.sqrt(q.shape[3]))).reshape(-1, k.shape[2])).reshape(dv.shape[:3])
        dp = (dy @ v.mT)[:, :, 0]
        dS = p * (dp - (p * dp).sum(-1, keepdims=True)) / np.float32(np.sqrt(q.shape[3]))
        dq = dS[:, :, None, last:] @ k[:, :, last:]
    return dq, dk, dv
