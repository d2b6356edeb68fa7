"""MLX on the CPU; softmax as the exponential of log_softmax, which a loss has computed already."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

NAME = f"mlx {mx.__version__}"
dtypes = ("float32",)
from_numpy = mx.array
to_numpy = np.array


def softmax(x):
    return mx.exp(nn.log_softmax(x, axis=-1))
