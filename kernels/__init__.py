"""Triton kernels, one file per operation, and how they are launched. This package knows torch and Triton only.

LANE says what executes them, decided once, when the package is imported:

    gpu          a GPU was found: kernels are compiled and run on it
    sanitizer    the process runs under `python -m ttsem.sanitize`: the compiled IR is executed on the CPU
    interpreter  no GPU: Triton's interpreter, turned on here (TRITON_INTERPRET=1 asks for it where a GPU is, too)
    codegen      TRITON_INTERPRET=0 without a GPU: kernels can be compiled, but not run
"""

import os
import sys

import torch


def _lane() -> str:
    wish = os.environ.get("TRITON_INTERPRET")
    if "ttsem" in sys.modules:  # it answers for a GPU that is not there
        return "sanitizer"
    if wish == "1":
        return "interpreter"
    if torch.cuda.is_available():
        return "gpu"
    return "codegen" if wish == "0" else "interpreter"


LANE = _lane()
if LANE == "interpreter":
    # Triton reads the variable when its own functions are decorated, that is while it is imported.
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise ImportError("no GPU was found, and triton was imported before its interpreter: set TRITON_INTERPRET=1")
    os.environ["TRITON_INTERPRET"] = "1"
