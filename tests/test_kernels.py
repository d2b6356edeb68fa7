"""Every kernel with every schedule, at ragged sizes, in the lane that this process is in (see kernels.LANE).

Without a GPU that is Triton's interpreter; `python -m ttsem.sanitize pytest …/test_kernels.py` executes the compiled IR
instead, and stops at accesses out of bounds and at races; on a GPU the compiled kernels run.
"""

import itertools
import sys

import ml_dtypes
import numpy as np
import pytest

from opspec import kernels
from opspec.impls import load
from opspec.kernels import LANE
from opspec.tests.kernels import RAGGED, Launch, config_of, every_kernel, judge, judge_call, launches, recorded

pytestmark = pytest.mark.skipif(LANE == "codegen", reason="TRITON_INTERPRET=0 without a GPU: nothing runs")
DTYPES = {"sanitizer": ["bfloat16"], "gpu": ["bfloat16", "float16", "float32"]}.get(LANE, ["float32"])
ALL = [pytest.param(launch, dtype, id=f"{launch}-{dtype}") for dtype in DTYPES for launch in launches(dtype)]


@pytest.mark.parametrize(("launch", "dtype"), ALL)
def test_schedule(launch: Launch, dtype: str, record_property):
    record_property("kernel", launch.kernel)
    judgement = judge(launch, dtype)
    assert judgement.verdict == "pass", f"{launch.kernel} with {config_of(launch)} at {launch.case}: {judgement}"


def test_every_kernel_is_launched():
    assert {launch.values[0].kernel for launch in ALL} == set(every_kernel())


@pytest.mark.skipif(LANE == "gpu", reason="its limits are higher: what its modes need is not ragged, but large")
@pytest.mark.parametrize("op", ["rnn", "lstm"])
def test_every_mode_of_a_walk_is_launched(op):
    for property_, walks in (("forward", [f"{op}._forward"]), ("gradient", [f"{op}._forward", f"{op}._backward"])):
        seen = {
            (kernel, given["MODE"])
            for case in RAGGED[op]
            for kernel, given in recorded(op, property_, case, DTYPES[0])
            if kernel in walks
        }
        assert seen == set(itertools.product(walks, ["alone", "resident", "streamed"]))


def test_infinite_states_do_not_meet_padding():
    """H = 3: the weights of the units that fill up a tile are 0, and ∞ · 0 would spread NaN from there."""
    dtype = ml_dtypes.bfloat16 if LANE == "sanitizer" else np.float32
    shapes = ((3, 2, 2), (2, 3), (3, 3), (3, 2), (3,), (2, 3), (2,))
    x, *weights = (np.ones(shape, dtype) for shape in shapes)
    x[0, 0] = np.inf
    y, h = load("triton").forward("rnn", (x, *weights), {"activation": "relu"})
    for states in (y, h):
        assert np.all(np.isinf(states[:, 0])) and np.all(np.isfinite(states[:, 1]))


@pytest.mark.parametrize("op", ["rnn", "lstm"])
def test_infinite_cotangents_do_not_meet_padding(op):
    dtype = ml_dtypes.bfloat16 if LANE == "sanitizer" else np.float32
    states = [(2, 3)] if op == "rnn" else [(2, 3), (2, 3)]
    weights = [(3, 3), (3, 2), (3,), (2, 3), (2,)] if op == "rnn" else [(3, 5), (3,)] * 4
    arrays = tuple(np.ones(shape, dtype) for shape in ((3, 2, 2), *states, *weights))
    dh, other = np.ones((3, 2, 3), dtype), np.zeros((3, 2, 2) if op == "rnn" else (2, 3), dtype)
    dh[:, 0] = np.inf
    parameters = {"activation": "relu"} if op == "rnn" else {}
    dx, dh0, *_ = load("triton").backward(op, arrays, (other, dh) if op == "rnn" else (dh, other), parameters)
    assert np.all(np.isinf(dx[:, 0])) and np.all(np.isfinite(dx[:, 1]))
    assert np.all(np.isinf(dh0[0])) and np.all(np.isfinite(dh0[1]))


@pytest.mark.parametrize("property_", ["forward", "gradient"])
@pytest.mark.parametrize("op", load("triton").operations)
def test_offsets_of_64_bits(op, property_, monkeypatch):
    """No array here passes 2³¹ elements: the kernels are told that one does."""
    for name, module in list(sys.modules.items()):
        if name.startswith(kernels.__name__ + ".") and hasattr(module, "wide"):
            monkeypatch.setattr(module, "wide", lambda *tensors: True)
    judgement = judge_call(op, property_, RAGGED[op][0], DTYPES[0])
    assert judgement.verdict == "pass", judgement
