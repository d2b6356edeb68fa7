"""PyTorch's operations through torch.compile, for each shape anew. Its recurrent networks are cuDNN's either way."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from ...impls import torch as eager
from ...impls.torch import arithmetic, dtypes, from_numpy, to_numpy, vjp
from ...impls.validation import checked

__all__ = ["arithmetic", "dtypes", "from_numpy", "to_numpy", "vjp"]
NAME = "torch.compile"
EXAMPLES = 6  # judged before it is timed: each is compiled for


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `checked` wraps, compiled; beyond so many shapes PyTorch would silently stop to compile: forget them first."""
    original = function.__wrapped__  # type: ignore[attr-defined]
    by_shape: dict[Any, Callable[..., Any]] = {}

    @checked
    @wraps(original)
    def call(*arrays: torch.Tensor, **parameters: Any) -> Any:
        words = sorted((k, v.shape if isinstance(v, torch.Tensor) else v) for k, v in parameters.items())
        key = str(([(a.shape, a.stride(), a.dtype, a.requires_grad) for a in arrays], words))
        if key not in by_shape:
            torch.compiler.reset()
            by_shape.clear()
            by_shape[key] = torch.compile(original, dynamic=False)
        return by_shape[key](*arrays, **parameters)

    return call


dense = compiled(eager.dense)
mse = compiled(eager.mse)
softmax = compiled(eager.softmax)
conv2d = compiled(eager.conv2d)
maxpool2d = compiled(eager.maxpool2d)
attention = compiled(eager.attention)
multihead_attention = compiled(eager.multihead_attention)
