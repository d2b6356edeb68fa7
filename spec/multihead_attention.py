"""MultiHead(Q, K, V) = Concat(head_1, …, head_h) W^O.    (document §3.4.2)"""

from .attention import attention, attention_vjp, derive_mask
from .signature import Operation


def multihead_attention(q, k, v, W_q, W_k, W_v, W_o, mask=None, causal=False):
    """Concat(head_1, …, head_h) W^O with head_i = Attention(q W_i^Q, k W_i^K, v W_i^V).

    q [B,M,F], k [B,S,F], v [B,S,F], W_q W_k [h,F,d_k], W_v [h,F,d_v], W_o [h·d_v,F] → [B,M,F]; mask and causal as in
    attention, with h heads. Source: document §3.4.2.
    Laws: multihead_attention.one_head_is_attention  where h = 1 and the four W are identities
          multihead_attention.batch_is_independent   y(q, k, v)_b = y(q_b, k_b, v_b)
    """
    heads = attention(project(q, W_q), project(k, W_k), project(v, W_v), mask, causal)
    return concat(heads) @ W_o


def multihead_attention_vjp(q, k, v, W_q, W_k, W_v, W_o, dy, mask=None, causal=False):
    """The chain rule through Concat, Attention and the projections.

    Laws: multihead_attention.vjp_is_linear  vjp(dy + dz) = vjp(dy) + vjp(dz), for given arrays
    """
    Q, K, V = project(q, W_q), project(k, W_k), project(v, W_v)
    A = concat(attention(Q, K, V, mask, causal))
    dA = split(dy @ W_o.mT, W_v.shape[0])
    dQ, dK, dV = attention_vjp(Q, K, V, dA, mask, causal)
    inputs = [concat(d) @ stack_heads(W) for d, W in ((dQ, W_q), (dK, W_k), (dV, W_v))]
    weights = [rows(x).mT @ rows_per_head(d) for x, d in ((q, dQ), (k, dK), (v, dV))]
    return (*inputs, *weights, rows(A).mT @ rows(dy))


def project(x, W):
    """x W_i for every head i: [B,L,F], [h,F,d] → [B,h,L,d]."""
    return x[:, None] @ W


def concat(heads):
    """[B,h,L,d] → [B,L,h·d]."""
    B, h, L, d = heads.shape
    return heads.swapaxes(1, 2).reshape((B, L, h * d))


def split(x, h):
    """The inverse of concat: [B,L,h·d] → [B,h,L,d]."""
    B, L, hd = x.shape
    return x.reshape((B, L, h, hd // h)).swapaxes(1, 2)


def stack_heads(W):
    """[h,F,d] → [h·d,F], the matrix that takes a concatenation back to the features."""
    h, F, d = W.shape
    return W.mT.reshape((h * d, F))


def rows(x):
    """[B,L,F] → [B·L,F]."""
    B, L, F = x.shape
    return x.reshape((B * L, F))


def rows_per_head(d):
    """[B,h,L,d] → [h,B·L,d]."""
    B, h, L, width = d.shape
    return d.swapaxes(0, 1).reshape((h, B * L, width))


def _derive(sizes, *, mask, causal):
    return derive_mask("multihead_attention", sizes, mask, causal, heads="h")


OPERATION = Operation(
    name="multihead_attention",
    function=multihead_attention,
    vjp=multihead_attention_vjp,
    section="3.4.2",
    equation="MultiHead(Q, K, V) = Concat(head_1, …, head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)",
    arrays={
        "q": "B M F",
        "k": "B S F",
        "v": "B S F",
        "W_q": "h F d_k",
        "W_k": "h F d_k",
        "W_v": "h F d_v",
        "W_o": "h*d_v F",
    },
    outputs={"y": "B M F"},
    defaults={"mask": None, "causal": False},
    derive=_derive,
)
