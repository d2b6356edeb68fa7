"""Mutants of multi-head attention."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import bfloat16, float16

correct = load("numpy").module
mutant = Planting("multihead_attention")


@mutant()
def scale_by_the_values_width(q, k, v, W_q, W_k, W_v, W_o, **parameters):
    """√d_v for √d_k: right where they agree."""
    ratio = np.float32(np.sqrt(W_q.shape[2] / W_v.shape[2]))
    return correct.multihead_attention(q, k, v, W_q * ratio, W_k, W_v, W_o, **parameters)


@mutant()
def scale_by_the_models_width(q, k, v, W_q, *rest, **parameters):
    """√F for √d_k."""
    ratio = np.float32(np.sqrt(W_q.shape[2] / W_q.shape[1]))
    return correct.multihead_attention(q, k, v, W_q * ratio, *rest, **parameters)


@mutant()
def rows_of_W_o_are_permuted(q, k, v, W_q, W_k, W_v, W_o, **parameters):
    """[h·d_v] is read as [d_v·h]."""
    h, _, d_v = W_v.shape
    W_o = W_o.reshape(d_v, h, -1).swapaxes(0, 1).reshape(W_o.shape)
    return correct.multihead_attention(q, k, v, W_q, W_k, W_v, W_o, **parameters)


@mutant()
def heads_are_concatenated_backwards(q, k, v, W_q, W_k, W_v, W_o, **parameters):
    """The last head first."""
    h, _, d_v = W_v.shape
    W_o = W_o.reshape(h, d_v, -1)[::-1].reshape(W_o.shape)
    return correct.multihead_attention(q, k, v, W_q, W_k, W_v, W_o, **parameters)


@mutant()
def values_with_the_keys_projection(q, k, v, W_q, W_k, W_v, W_o, **parameters):
    """Where d_k = d_v no shape tells."""
    same = W_k.shape == W_v.shape
    return correct.multihead_attention(q, k, v, W_q, W_k, W_k if same else W_v, W_o, **parameters)


@mutant()
def first_heads_mask_for_all(*arrays, mask=None, causal=False):
    """The head's stride of a mask is taken for 0."""
    return correct.multihead_attention(*arrays, mask=None if mask is None else mask[:, :1], causal=causal)


@mutant()
def second_batch_element_uses_the_first_mask(*arrays, mask=None, causal=False):
    """The batch's stride of a mask is taken for 0."""
    return correct.multihead_attention(*arrays, mask=None if mask is None else mask[:1], causal=causal)


@mutant()
def fully_masked_head_is_nan(q, k, v, W_q, W_k, W_v, W_o, mask=None, causal=False):
    """PyTorch 2.5–2.13 with need_weights=True: 0/0 in one head makes the whole row NaN."""
    y = correct.multihead_attention(q, k, v, W_q, W_k, W_v, W_o, mask=mask, causal=causal)
    if mask is None:
        return y
    allowed = mask & np.tri(*mask.shape[2:], dtype=bool) if causal else mask
    return np.where((~allowed.any(-1)).any(1)[..., None], np.float32(np.nan), y)


mutant.line(
    "heads_are_not_transposed",
    "[B,L,h,d] is read as [B,h,L,d].",
    ("return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)",
     "return x.reshape(x.shape[0], x.shape[2], -1)"),
)  # fmt: skip
mutant.line(
    "scaled_twice",
    "In the projection, and in the kernel.",
    ("return _scale(Q), K, V", "return _scale(_scale(Q)), K, V"),
)
mutant.line(
    "projections_in_bfloat16",
    "Q, K and V are stored rounded, under a claim of float32.",
    ("Q, K, V = (_split(", "Q, K, V = (bfloat16(_split("),
    ("len(W)) for x, W in ((q, W_q)", "len(W))) for x, W in ((q, W_q)"),
    bfloat16=bfloat16,
)
mutant.line(
    "heads_are_stored_in_float16",
    "What the heads give is rounded before W_o, under a claim of float32 intermediates.",
    ("return _project(_concat(_product(_attend(Q, K, allowed), V, allowed)), W_o)",
     "return _project(float16(_concat(_product(_attend(Q, K, allowed), V, allowed))), W_o)"),
    dtype="float16",
    float16=float16,
)  # fmt: skip


@mutant("gradient")
def dW_o_without_the_second_batch_element(q, k, v, W_q, W_k, W_v, W_o, dy, **parameters):
    """fla#955: the weight's gradient sees the first batch element alone."""
    gradients = correct.multihead_attention_vjp(q, k, v, W_q, W_k, W_v, W_o, dy, **parameters)
    first = dy.copy()
    first[1:] = 0
    partial = correct.multihead_attention_vjp(q, k, v, W_q, W_k, W_v, W_o, first, **parameters)
    return (*gradients[:6], partial[6])


@mutant("gradient")
def keys_and_values_gradients_are_exchanged(*arrays, **parameters):
    """dk for dv: one shape."""
    dq, dk, dv, *weights = correct.multihead_attention_vjp(*arrays, **parameters)
    return dq, dv, dk, *weights


@mutant("gradient")
def dW_o_transposed_where_square(*arrays, **parameters):
    """Gradient in the transposed weight: h·d_v = F hides it from every comparison of shapes."""
    *gradients, dW_o = correct.multihead_attention_vjp(*arrays, **parameters)
    return (*gradients, dW_o.T.copy() if dW_o.shape[0] == dW_o.shape[1] else dW_o)


mutant.line(
    "dW_q_lacks_the_scale",
    "The projection's gradient is taken of the scaled query.",
    ("    return _scale(_product(dS, k, allowed)), _product(dS.mT",
     "    return _product(dS, k, allowed), _product(dS.mT"),
    direction="gradient",
)  # fmt: skip
mutant.line(
    "inputs_get_the_first_heads_gradient",
    "dq, dk and dv are overwritten, not added up, over the heads.",
    ("inputs.append(_project(d, _side_by_side(W).T))",
     "inputs.append(_project(d[..., : W.shape[2]], W[0].T))"),
    direction="gradient",
)  # fmt: skip
mutant.line(
    "weights_gradient_has_its_heads_exchanged",
    "The gradient of [h,F,d] is written in the order of the concatenation read backwards.",
    (".reshape(W.shape[1], len(W), -1).swapaxes(0, 1))", ".reshape(W.shape[1], len(W), -1).swapaxes(0, 1)[::-1])"),
    direction="gradient",
)


@mutant("gradient")
def dv_of_causal_without_the_mask(*arrays, mask=None, causal=False):
    """The mask takes causality's place in one of the three."""
    gradients = list(correct.multihead_attention_vjp(*arrays, mask=mask, causal=causal))
    if causal and mask is not None:
        gradients[2] = correct.multihead_attention_vjp(*arrays, mask=mask)[2]
    return tuple(gradients)


@mutant("forward", "layout")
def memory_is_projected_once(q, k, v, W_q, W_k, W_v, W_o, **parameters):
    """One memory for keys and values is projected by one matrix, where the widths allow it."""
    once = k is v and W_k.shape == W_v.shape
    return correct.multihead_attention(q, k, v, W_q, W_k, W_k if once else W_v, W_o, **parameters)


@mutant("gradient", "layout")
def self_attention_adds_its_gradients_up(q, k, v, *rest, **parameters):
    """Where query, key and value are one array its whole gradient is returned, three times."""
    dq, dk, dv, *others = correct.multihead_attention_vjp(q, k, v, *rest, **parameters)
    if q is k is v:
        dq = dk = dv = dq + dk + dv
    return (dq, dk, dv, *others)


@mutant("gradient", "layout")
def expanded_cotangent_is_of_the_first_token(q, k, v, W_q, W_k, W_v, W_o, dy, **parameters):
    """A stride of 0, as the mean over all tokens leaves it, is read as one token."""
    if dy.strides[1] == 0 and dy.shape[1] > 1:
        dy = np.concatenate([dy[:, :1], 0 * dy[:, 1:]], axis=1)
    return correct.multihead_attention_vjp(q, k, v, W_q, W_k, W_v, W_o, dy, **parameters)
