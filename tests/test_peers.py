"""The peers of a GPU's benchmarks, as far as a CPU has them: right, refused where they must be, and found by name."""

import shutil

import pytest
import torch

from opspec.impls import load
from opspec.kernels import LANE
from opspec.spec import OPERATIONS
from opspec.tests.conformance import Cell, Runner
from opspec.tests.peers import PEERS
from opspec.tests.test_benchmark import _tasks
from opspec.tests.workloads import ON_A_GPU, WORKLOADS

ON_THE_CPU = ("flash", "math")  # of the kernels of attention
CAUSAL = "B=2 H=2 M=9 S=9 D=8 E=8 causal=True values=normal layout=plain seed=0"
pytestmark = pytest.mark.skipif(LANE == "sanitizer", reason="nothing here is a kernel of ours")


def _peer(name):
    return load(next(peer for peer in PEERS if peer.endswith("." + name)))


@pytest.mark.parametrize("property_", ["forward", "gradient"])
@pytest.mark.parametrize("name", ["flash", "efficient", "cudnn", "math"])
def test_attention_by_one_kernel(name, property_, suite):
    result = Runner(suite.seed, CAUSAL).run(Cell(_peer(name), OPERATIONS["attention"], "float32", property_))
    expected = "pass" if torch.cuda.is_available() or name in ON_THE_CPU else "unsupported"
    assert result.verdict == expected, result


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a compiler on the CPU")
def test_compiled(suite):
    case = "N=5 M=17 values=normal layout=plain seed=0"
    result = Runner(suite.seed, case).run(Cell(_peer("compiled"), OPERATIONS["softmax"], "float32", "gradient"))
    assert result.verdict == "pass", result


def test_a_gpu_is_timed_at_its_own_sizes_and_beside_its_own_peers(suite):
    on_a_gpu, on_a_cpu = (_tasks(suite, ["attention"], [], gpu) for gpu in (True, False))
    assert {task.workload for task in on_a_gpu} == {w for w in ON_A_GPU if w.op == "attention"}
    assert {task.workload for task in on_a_cpu} == {w for w in WORKLOADS if w.op == "attention"}
    assert {task.cell.dtype for task in on_a_gpu} == {"bfloat16"} and {task.cell.dtype for task in on_a_cpu} == {
        "float32"
    }
    named = {"sdpa flash", "sdpa efficient", "sdpa cudnn", "sdpa math", "torch.compile"}
    assert {task.cell.backend.name for task in on_a_gpu} >= named | {"torch", "triton"}
    assert not {task.cell.backend.name for task in on_a_cpu} & named
