"""Speed, where `--benchmark-only` asks for it: of the implementations, and of the verifier itself."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from statistics import median
from typing import Any

import pytest
import torch

from ..impls import load
from ..spec import OPERATIONS
from .benchmark import WARM, Device, Speeds, call
from .cases import Case, Drawn
from .conformance import BrokenBackend, Cell, Result, Runner
from .peers import PEERS
from .plugin import SUITE, Suite
from .properties import gradient
from .threads import machine_threads
from .workloads import ON_A_GPU, WORKLOADS, Workload

EXAMPLES = 30  # judged before a cell is timed: as many as the profile "quick" has
SECONDS = 0.5  # of rounds per benchmark, within these limits
LEAST_ROUNDS, MOST_ROUNDS = 3, 200


@dataclass(frozen=True, eq=False)
class Task:
    """One backend's function or gradient, at one size."""

    workload: Workload
    cell: Cell | BrokenBackend

    def __str__(self) -> str:
        if isinstance(self.cell, BrokenBackend):
            return str(self.cell)
        return f"{self.workload.name}-{self.cell.property}-{self.cell.backend.name}-{self.cell.dtype}"


@dataclass(frozen=True)
class Job:
    """A task that may be timed: what to call, on which inputs."""

    call: Callable[..., Any]
    inputs: list[tuple[Any, ...]]
    device: Device
    row: dict[str, Any]  # what is known of it before


def test_speed(job, benchmark, speeds):
    inputs, device = cycle(job.inputs), job.device

    def fresh():
        device.flush()
        return next(inputs), {}

    warming = []  # on the first call things are compiled and tuned
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of which a compiler may warn
        while len(warming) < 2 or (len(warming) < WARM and sum(warming[1:]) < SECONDS / 2):
            warming += device.seconds(lambda: job.call(*next(inputs)), 1)
    roofline = speeds.roofline(device, job.row["dtype"])
    roofline.measure()
    rounds = min(MOST_ROUNDS, max(LEAST_ROUNDS, round(SECONDS / median(warming))))
    benchmark.group = " ".join(job.row[key] for key in ("workload", "property", "dtype"))
    benchmark.params = None  # objects; the test's name says it in words
    benchmark.pedantic(job.call, setup=fresh, rounds=rounds)
    stats, flops = benchmark.stats.stats, job.row["flops"]
    rate = {"rate": (flops or job.row["bytes"]) / stats.median, "unit": "GFLOP/s" if flops else "GB/s"}
    benchmark.extra_info |= job.row | {"median": stats.median, "iqr": stats.iqr, "best": stats.min} | rate
    speeds.add(benchmark.extra_info)


def test_one_gradient_is_judged_while_gradcheck_has_barely_begun(benchmark, speeds, suite):
    """Every element of dq, dk and dv of one attention, by the property and by torch.autograd.gradcheck in slow mode.

    Both on one thread, with which gradcheck is the faster: its products are tiny.
    """
    if suite.chosen:
        pytest.skip("the verifier itself is timed where no --impl is chosen")
    backend, operation = load("torch"), OPERATIONS["attention"]
    case = Case(operation, {"B": 1, "H": 2, "M": 64, "S": 64, "D": 32, "E": 32})
    assert gradient(backend, "float64", case).verdict == "pass"
    leaves = [backend.from_numpy(a).requires_grad_() for a in case.draw("float64").arrays]
    start = time.perf_counter()
    assert torch.autograd.gradcheck(backend.function("attention"), leaves, fast_mode=False)
    gradcheck = time.perf_counter() - start
    benchmark.pedantic(gradient, args=(backend, "float64", case), rounds=20, warmup_rounds=2)
    ours = benchmark.stats.stats.median
    benchmark.extra_info |= {"gradcheck": gradcheck, "ratio": gradcheck / ours}
    speeds.notes.append(
        f"verifier: every element of the gradient of attention [1,2,64,32], float64, is judged in {ours * 1e3:.0f} ms; "
        f"gradcheck (slow mode) takes {gradcheck:.1f} s, {gradcheck / ours:.0f} times as long"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "task" in metafunc.fixturenames:
        config = metafunc.config
        found = _tasks(
            config.stash[SUITE], config.getoption("op"), config.getoption("dtype"), torch.cuda.is_available()
        )
        metafunc.parametrize("task", found, ids=str)


def _tasks(suite: Suite, operations: list[str], dtypes: list[str], gpu: bool) -> list[Task]:
    """Peers follow one another: they share their inputs, and the machine's mood. On a GPU there are more of them, and
    NumPy, which has none, is left to the CPU's sizes."""
    found = [Task(WORKLOADS[0], backend) for backend in suite.backends if isinstance(backend, BrokenBackend)]
    backends = [backend for backend in suite.backends if not isinstance(backend, BrokenBackend)]
    if gpu:
        backends = [backend for backend in backends if backend.given != "numpy"]
        backends += [load(peer) for peer in PEERS] if any(b.given == "torch" for b in backends) else []
    for workload in ON_A_GPU if gpu else WORKLOADS:
        if workload.op in (operations or OPERATIONS):
            for dtype in dtypes or ["bfloat16" if gpu else "float32"]:
                for property_ in ("forward", "gradient"):
                    cells = [Cell(b, OPERATIONS[workload.op], dtype, property_) for b in backends]
                    found += [Task(workload, c) for c in cells if c.backend.given not in PEERS or _has(c)]
    return found


def _has(cell: Cell) -> bool:
    return cell.backend.function(cell.operation.name) is not None


@pytest.fixture(scope="session")
def speeds(suite, pytestconfig):
    speeds = Speeds(suite.report.environment)
    pytestconfig.pluginmanager.register(speeds)
    return speeds


@pytest.fixture(scope="session")
def verdicts() -> dict[str, Result]:
    """By cell: several workloads may share one."""
    return {}


@pytest.fixture
def job(task, suite, verdicts, speeds, request):
    """Never time what is not right: first the cell is judged on a few examples, on one thread as always. They are small
    ones: what goes wrong only at the size that is timed is not seen here. Then inputs, clock and threads are set up."""
    workload, cell = task.workload, task.cell
    if isinstance(cell, BrokenBackend):
        pytest.fail(f"{cell.name} cannot be imported: {cell.reason}", pytrace=False)
    if reason := _unsupported(workload, cell):
        speeds.skip(task, f"unsupported: {reason}")
    verdict = verdicts.get(str(cell))
    for attempt in range(3):  # few examples are inconclusive by chance, now and then; a failure is final
        if not verdict or verdict.verdict == "inconclusive":
            examples = getattr(cell.backend.module, "EXAMPLES", EXAMPLES)
            verdict = Runner(suite.seed + attempt, examples=examples).run(cell)
    verdicts[str(cell)] = verdict
    if verdict.verdict != "pass":
        word = "" if verdict.verdict == "unsupported" else "red: "
        speeds.skip(task, f"{word}{verdict.verdict}: {verdict.reason}", verdict.reproduce)

    backend, drawn = cell.backend, _draw(workload, cell.dtype)
    inputs = [
        (
            tuple(map(backend.from_numpy, d.arrays)),
            tuple(map(backend.from_numpy, d.cotangents)),
            backend.convert(d.parameters),
        )
        for d in drawn
    ]
    device = Device.of(inputs[0][0][0])
    request.node.add_marker(pytest.mark.benchmark(timer=device.timer, disable_gc=True))
    row = {
        "workload": f"{workload.op} {workload}",
        "op": workload.op,
        "sizes": str(workload),
        "property": cell.property,
        "impl": backend.name,
        "dtype": cell.dtype,
        "device": device.kind,
        "flops": workload.flops(cell.property, drawn[0]),
        "bytes": workload.bytes(cell.property, drawn[0]),
        "examples": verdict.examples,
        "worst": float(verdict.worst),
    }
    with machine_threads():
        yield Job(call(backend, workload.op, cell.property), inputs, device, row)


def _unsupported(workload: Workload, cell: Cell) -> str:
    """Why the backend cannot be timed at this, or nothing. What it lacks altogether its verdict says."""
    backend = cell.backend
    if backend.function(workload.op) is None:
        return ""
    if cell.dtype not in backend.dtypes(workload.op):
        return f"{backend.name} does not claim {workload.op} in {cell.dtype}"
    missing = [p for p in workload.parameters if p not in backend.parameters(cell.operation)]
    return f"{backend.name}'s {workload.op} does not take {', '.join(missing)}" if missing else ""


@lru_cache(maxsize=1)
def _draw(workload: Workload, dtype: str) -> list[Drawn]:
    return workload.draw(dtype)
