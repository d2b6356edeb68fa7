"""Our Triton kernels in bfloat16 in Triton's interpreter, which our own backend refuses."""

from opspec.impls import triton as shipped  # first: it turns the interpreter on
from opspec.kernels.dense import dense
from opspec.kernels.softmax import softmax

import triton  # isort: skip

__all__ = ["dense", "softmax"]
NAME = f"triton {triton.__version__}, interpreter"
dtypes = ("bfloat16",)
from_numpy, to_numpy, judging, arithmetic = shipped.from_numpy, shipped.to_numpy, shipped.judging, shipped.arithmetic
