"""scaled_dot_product_attention by its kernel EFFICIENT_ATTENTION."""

from torch.nn.attention import SDPBackend

from ...impls.torch import arithmetic, dtypes, from_numpy, to_numpy, vjp
from . import attention_by

__all__ = ["arithmetic", "attention", "dtypes", "from_numpy", "to_numpy", "vjp"]
NAME = "sdpa efficient"
attention = attention_by(SDPBackend.EFFICIENT_ATTENTION)
