"""Every kernel with every schedule, at ragged sizes, in the lane that this process is in (see kernels.LANE).

Without a GPU that is Triton's interpreter; `python -m ttsem.sanitize pytest …/test_kernels.py` executes the compiled IR
instead, and stops at accesses out of bounds and at races; on a GPU the compiled kernels run.
"""

import pytest

from opspec.kernels import LANE
from opspec.tests.kernels import Launch, config_of, every_kernel, judge, launches

DTYPES = {
    "interpreter": ["float32"],
    "sanitizer": ["bfloat16"],
    "gpu": ["bfloat16", "float16", "float32"],
    "codegen": [],
}
ALL = [pytest.param(launch, dtype, id=f"{launch}-{dtype}") for dtype in DTYPES[LANE] for launch in launches(dtype)]


@pytest.mark.parametrize(("launch", "dtype"), ALL)
def test_schedule(launch: Launch, dtype: str, record_property):
    record_property("kernel", launch.kernel)
    judgement = judge(launch, dtype)
    assert judgement.verdict == "pass", f"{launch.kernel} with {config_of(launch)} at {launch.case}: {judgement}"


def test_every_kernel_is_launched():
    assert {launch.values[0].kernel for launch in ALL} == set(every_kernel())
