"""NumPy; a dense layer that fills its rows from the last one, through views of negative stride."""

import numpy as np

NAME = f"numpy {np.__version__}"
dtypes = ("float32", "float64")


def dense(x, W, b):
    y = np.empty((x.shape[0], W.shape[1]), x.dtype)
    np.matmul(x[::-1], W, out=y[::-1])
    y += b
    return y
