"""What a user might pick on a GPU instead of a kernel of ours, each as a backend, to be judged and timed beside it.

The backend `torch` is cuBLAS, cuDNN's convolution on channels-last views and cuDNN's LSTM; these are the rest:
torch.compile, and every kernel of scaled_dot_product_attention by name.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

from ...impls import torch as eager

PEERS = tuple(f"{__name__}.{name}" for name in ("compiled", "flash", "efficient", "cudnn", "math"))


def attention_by(kernel: SDPBackend) -> Callable[..., Any]:
    """PyTorch's attention by this kernel or not at all: NotImplementedError where it does not take the inputs.

    The gradient's kernel is that of the forward call.
    """

    @wraps(eager.attention)
    def attention(*arrays: Any, **parameters: Any) -> Any:
        try:
            with sdpa_kernel(kernel):
                return eager.attention(*arrays, **parameters)
        except RuntimeError as error:
            if "No available kernel" in str(error) or "No viable backend" in str(error):
                raise NotImplementedError(f"{kernel.name} does not take these inputs") from error
            raise

    return attention
