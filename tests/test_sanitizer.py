"""The kernels' compiled IR, executed on the CPU: stops at accesses out of bounds and at races between programs."""

import importlib.util
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path

import pytest

from opspec.kernels import LANE
from opspec.tests.kernels import every_kernel

HERE = Path(__file__).parent
INSTALL = "pip install --no-deps --ignore-requires-python ttsem==0.1.0"


@pytest.mark.skipif(LANE == "sanitizer", reason="this process runs under the sanitizer already")
@pytest.mark.skipif(importlib.util.find_spec("ttsem") is None, reason=f"ttsem is not installed: {INSTALL}")
@pytest.mark.beside(
    *("-m", "ttsem.sanitize", "pytest", str(HERE / "test_kernels.py"), str(HERE / "test_planted_kernels.py"), "-q"),
    *("-o", "junit_family=xunit1", "--junitxml={folder}/report.xml"),
)
def test_every_kernel_under_the_sanitizer(beside):
    """Every kernel and schedule in bfloat16, at ragged sizes; then the planted bugs that only this lane can see."""
    done = beside()
    assert done.code == 0
    judged = _judged(done.folder / "report.xml")
    print(*(f"{kernel}: {count} launches with schedules judged" for kernel, count in judged.items()), sep="\n")
    assert set(judged) == set(every_kernel())


def _judged(report: Path) -> Counter[str]:
    """How often each kernel was judged, and passed."""
    judged: Counter[str] = Counter()
    for test in xml.parse(report).iter("testcase"):
        if not any(test.findall(what) for what in ("failure", "error", "skipped")):
            judged.update(p.attrib["value"] for p in test.iter("property") if p.get("name") == "kernel")
    return judged
