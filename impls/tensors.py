"""NumPy arrays as PyTorch's tensors, and back: for every backend of tensors."""

import warnings

import ml_dtypes
import numpy as np
import torch


def from_numpy(array):
    """The array's own memory as a tensor; only negative strides, which PyTorch lacks, are copied."""
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    narrow = array.dtype == ml_dtypes.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an array is read-only: nothing here writes
        tensor = torch.from_numpy(array.view(np.int16) if narrow else array)
    return tensor.view(torch.bfloat16) if narrow else tensor


def to_numpy(tensor):
    """The inverse, from any device; a gradient's history is dropped."""
    tensor = tensor.detach().cpu()
    narrow = tensor.dtype == torch.bfloat16
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if narrow else tensor.numpy()
