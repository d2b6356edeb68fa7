"""PyTorch's attention on the CPU, without the defects that impls/torch.py declares."""

import torch
from torch.nn import functional as F

from opspec.impls import torch as shipped

NAME = f"torch {torch.__version__}"
dtypes = ("float32",)
from_numpy, to_numpy, vjp = shipped.from_numpy, shipped.to_numpy, shipped.vjp
attention = shipped.attention


def multihead_attention(q, k, v, W_q, W_k, W_v, W_o, *, mask=None, causal=False):
    """multi_head_attention_forward with need_weights=True, its default."""
    h, (B, M, features) = len(W_q), q.shape
    if h * W_q.shape[2] != features or W_v.shape[2] != W_q.shape[2]:
        raise NotImplementedError("torch.nn.MultiheadAttention has d_k = d_v = F / h")
    forbidden = None if mask is None else ~mask.expand(B, h, -1, -1).flatten(0, 1)
    if causal:
        later = torch.ones(M, M, dtype=torch.bool).triu(1)
        forbidden = later if forbidden is None else forbidden | later
    y, _ = F.multi_head_attention_forward(
        *(x.transpose(0, 1) for x in (q, k, v)),
        embed_dim_to_check=features,
        num_heads=h,
        in_proj_weight=None,
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=W_o.mT,
        out_proj_bias=None,
        need_weights=True,
        attn_mask=forbidden,
        use_separate_proj_weight=True,
        q_proj_weight=W_q.mT.flatten(0, 1),
        k_proj_weight=W_k.mT.flatten(0, 1),
        v_proj_weight=W_v.mT.flatten(0, 1),
    )
    return y.transpose(0, 1)
