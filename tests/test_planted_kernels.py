"""Kernel bugs, each one change to a correct kernel, and the lane that must catch it.

In the interpreter programs run one after another and stray loads pass silently: races and accesses out of bounds are
for the sanitizer, and are shown to pass unnoticed here. What needs products in bfloat16 is the sanitizer's, too.
"""

from dataclasses import dataclass

import pytest

from opspec import OPERATIONS
from opspec.kernels import LANE
from opspec.tests.conformance import Cell, Runner
from opspec.tests.planted_kernels import planted_kernel

pytestmark = pytest.mark.skipif(LANE not in ("interpreter", "sanitizer"), reason="for the lanes that need no GPU")
RAGGED = {"dense": "N=33 I=33 O=70"}  # what the sanitizer is given: each new shape would cost it a compilation


@dataclass(frozen=True)
class Bug:
    name: str
    operation: str
    property: str
    changes: tuple[tuple[str, str], ...]
    reason: str = ""  # what the verdict says
    lane: str = "interpreter"  # the first that sees it
    dtype: str = "float32"

    def __str__(self) -> str:
        return self.name


BUGS = [
    Bug("tail_of_k_unmasked", "dense", "forward", (("+ k < K", "+ k < K + BLOCK_K"),)),
    Bug("stride_ignored", "dense", "layout", (("+ n[None, :] * stride_bn", "+ n[None, :]"),)),
    Bug("output_row_unwritten", "dense", "forward", (("in_m, in_n = m < M, n < N", "in_m, in_n = m < M - 1, n < N"),)),
    Bug(
        "accumulator_in_bfloat16",
        "dense",
        "forward",
        (("PRECISION, out_dtype=ACC)", "PRECISION, out_dtype=ACC).to(tl.bfloat16).to(ACC)"),),
        lane="sanitizer",
        dtype="bfloat16",
    ),
    Bug(
        "out_of_bounds_load",
        "dense",
        "forward",
        (("tl.load(bias + n * stride_bias, mask=n < N, other=0.0)", "tl.load(bias + n * stride_bias)"),),
        reason="past the end of the tensor passed as `bias`",
        lane="sanitizer",
    ),
    Bug(
        "race_on_a_gradient",
        "dense",
        "gradient",
        (
            (
                "out = empty((strips, N), accumulator(a.dtype) if strips > 1 else (dtype or a.dtype), a.device)",
                "out = torch.zeros((1, N), dtype=accumulator(a.dtype) if strips > 1 else (dtype or a.dtype), device=a.device)",
            ),
            ("tl.store(out + strip * N + n, tl.sum(", "tl.store(out + n, tl.load(out + n, mask=in_n) + tl.sum("),
        ),
        reason="program instances",
        lane="sanitizer",
    ),
]  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_bug(bug: Bug, suite):
    if LANE == "interpreter" and bug.dtype == "bfloat16":
        pytest.skip("products in bfloat16 need the sanitizer: triton#11584")
    backend = planted_kernel(bug.operation, *bug.changes, dtypes=(bug.dtype,))
    alone = RAGGED[bug.operation] if LANE == "sanitizer" or bug.lane == "sanitizer" else None
    result = Runner(suite.seed, alone).run(Cell(backend, OPERATIONS[bug.operation], bug.dtype, bug.property))
    if LANE == "interpreter" and bug.lane == "sanitizer":
        assert result.verdict == "pass", f"the interpreter sees it, too: {result.reason}"
    else:
        assert result.verdict in ("fail", "error") and bug.reason in result.reason
