"""The Triton kernels of ../kernels, on a GPU, in Triton's interpreter or under the sanitizer (see kernels.LANE)."""

from functools import wraps

import torch

from ..kernels import LANE, launch
from ..kernels import attention as _attention
from ..kernels import conv2d as _conv2d
from ..kernels import dense as _dense
from ..kernels import lstm as _lstm
from ..kernels import maxpool2d as _maxpool2d
from ..kernels import mse as _mse
from ..kernels import multihead_attention as _multihead_attention
from ..kernels import rnn as _rnn
from ..kernels import softmax as _softmax
from ..spec import Arithmetic
from . import tensors
from .validation import checked

NAME = "triton"
DEVICE = torch.device("cpu" if LANE in ("interpreter", "codegen") else "cuda")
dtypes = (*(("float64",) if LANE == "interpreter" else ()), "float32", "float16", "bfloat16")
judging = launch.guarded
SHARE = 1.0 if LANE == "gpu" else 0.2  # elsewhere a call takes a hundred times as long
NOTE = {
    "gpu": "compiled, on the GPU",
    "interpreter": f"in Triton's interpreter, on {SHARE:.0%} of the examples: no GPU was found",
    "sanitizer": f"compiled IR, executed on the CPU under ttsem, on {SHARE:.0%} of the examples",
    "codegen": "compiled only",
}[LANE]
_BFLOAT16 = "triton#11584: products and sums in bfloat16 are silently wrong in Triton's interpreter"


def kernel(function):
    """Validation around a launcher, and refusal of what the interpreter gets wrong."""

    @wraps(function)
    def call(*arrays, **parameters):
        if LANE == "interpreter" and arrays[0].dtype == torch.bfloat16:
            raise NotImplementedError(_BFLOAT16)
        return function(*arrays, **parameters)

    return checked(call)


dense = kernel(_dense.dense)
dense_vjp = kernel(_dense.dense_vjp)
mse = kernel(_mse.mse)
mse_vjp = kernel(_mse.mse_vjp)
softmax = kernel(_softmax.softmax)
softmax_vjp = kernel(_softmax.softmax_vjp)
conv2d = kernel(_conv2d.conv2d)
conv2d_vjp = kernel(_conv2d.conv2d_vjp)
maxpool2d = kernel(_maxpool2d.maxpool2d)
maxpool2d_vjp = kernel(_maxpool2d.maxpool2d_vjp)
rnn = kernel(_rnn.rnn)
rnn_vjp = kernel(_rnn.rnn_vjp)
lstm = kernel(_lstm.lstm)
lstm_vjp = kernel(_lstm.lstm_vjp)
attention = kernel(_attention.attention)
attention_vjp = kernel(_attention.attention_vjp)
multihead_attention = kernel(_multihead_attention.multihead_attention)
multihead_attention_vjp = kernel(_multihead_attention.multihead_attention_vjp)


def arithmetic(operation, dtype):
    """float32 inside (float64 of float64), operands of products in storage format; tensor cores truncate when they add.

    ex2.approx and the divisions after it cost 2 ulp each on the hardware; 4 covers tanh, too.
    """
    rounding = "truncate" if LANE == "gpu" else "nearest"
    tf32 = dtype == "float32" and launch.dot_precision() == "tf32"
    return Arithmetic(dtype, operands="tf32" if tf32 else dtype, function_ulps=4.0, rounding=rounding)


def from_numpy(array):
    """The same numbers, strides and alignment on the device, between bands of NaN."""
    tensor = tensors.from_numpy(array)
    return tensor if LANE == "interpreter" else launch.copied(tensor, DEVICE)


to_numpy = tensors.to_numpy
