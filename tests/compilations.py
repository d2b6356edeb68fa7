"""Compilations without a GPU: what there is to compile, for which chips, and the contracts that machine code must keep.

Launches are recorded at the sizes that are timed on a GPU, of tensors that have shapes and no memory; Triton's own
launcher then specialises and compiles for a chip that is not there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from ..impls import load
from ..kernels import launch
from ..kernels.launch import Chip, Scheduled
from ..spec import OPERATIONS
from .kernels import every_kernel
from .machine_code import MachineCode, read
from .workloads import ON_A_GPU, Workload

DTYPES = ("bfloat16", "float16", "float32")
PROPERTIES = ("forward", "gradient")
WIDEST = 16  # bytes that one load brings to a thread
TENSOR_MEMORY = 512  # columns


@dataclass(frozen=True)
class Target:
    """A chip to compile for. As a driver for Triton, it says what it is and runs nothing."""

    name: str
    gpu: GPUTarget
    chip: Chip

    def get_current_target(self) -> GPUTarget:
        return self.gpu

    def get_current_device(self) -> str:
        return self.name

    def get_current_stream(self, device: str) -> int:
        return 0


TARGETS = {
    target.name: target
    for target in (
        Target("sm_80", GPUTarget("cuda", 80, 32), Chip(108, 163 * 1024)),  # A100
        Target("sm_90", GPUTarget("cuda", 90, 32), Chip(132, 227 * 1024)),  # H100
        Target("sm_100", GPUTarget("cuda", 100, 32), Chip(148, 227 * 1024)),  # B200
        Target("gfx942", GPUTarget("hip", "gfx942", 64), Chip(304, 64 * 1024, cooperates=False, lanes=64)),  # MI300X
    )
}


def _few_steps(workload: Workload) -> Workload:
    """Where a step is a launch, one is as another."""
    return replace(workload, sizes={**workload.sizes, "T": 16}) if "T" in workload.sizes else workload


WORKLOADS = {
    f"{workload.op} {workload}": workload
    for workload in (
        *map(_few_steps, ON_A_GPU),
        Workload("rnn", {"T": 16, "N": 64, "I": 128, "H": 128, "O": 128}),
        Workload("rnn", {"T": 16, "N": 256, "I": 4096, "H": 4096, "O": 4096}),
        Workload("lstm", {"T": 16, "N": 64, "I": 64, "H": 64}),
        Workload("lstm", {"T": 16, "N": 256, "I": 4096, "H": 4096}),
        Workload("attention", {"B": 4, "H": 32, "M": 1024, "S": 1024, "D": 256, "E": 256}),
    )
}


@dataclass(frozen=True)
class Job:
    """A compilation: the so-manieth launch of a workload, with one of its kernel's schedules, for a target."""

    workload: str
    property: str
    dtype: str
    target: str
    launch: int
    kernel: str
    schedule: int

    def __str__(self) -> str:
        where = f"{self.workload} {self.property} {self.dtype}, launch {self.launch}"
        return f"{self.kernel} [{schedule_of(self)}] for {self.target}: {where}"


@dataclass(frozen=True)
class Row:
    """A compilation and what came of it: machine code, or an error."""

    job: Job
    code: MachineCode | None
    error: str = ""

    @property
    def broken(self) -> list[str]:
        """The contracts that do not hold."""
        if self.code is None:
            return [f"does not compile: {self.error}"]
        return [text for contract in CONTRACTS if (text := contract(self.job, self.code))]


def spills(job: Job, code: MachineCode) -> str:
    """Nothing that belongs in registers lies in memory."""
    return f"spills {code.spilled} bytes" if code.spilled else ""


def memory(job: Job, code: MachineCode) -> str:
    """Shared memory, and Blackwell's tensor memory, is within the chip's limit."""
    limit = TARGETS[job.target].chip.shared_memory
    if code.tensor_memory > TENSOR_MEMORY:
        return f"needs {code.tensor_memory} columns of tensor memory, of {TENSOR_MEMORY}"
    return f"needs {code.shared} bytes of shared memory, of {limit}" if code.shared > limit else ""


def matrix(job: Job, code: MachineCode) -> str:
    """Products in float16 and bfloat16 are those of the matrix units."""
    product = code.product and job.dtype != "float32"
    return "has products and no matrix instructions" if product and not code.matrix else ""


def loads(job: Job, code: MachineCode) -> str:
    """Where every row of every array begins at a multiple of 16 bytes, the widest load is of 16 bytes."""
    arrays, cotangents, _ = WORKLOADS[job.workload].shapes(getattr(torch, job.dtype))
    aligned = all(a.shape[-1] * a.itemsize % WIDEST == 0 for a in arrays + cotangents if a.ndim)
    return f"loads {code.load} bytes at most" if aligned and 0 < code.load < WIDEST else ""


CONTRACTS: tuple[Callable[[Job, MachineCode], str], ...] = (spills, memory, matrix, loads)
"""Each says what is wrong, or nothing."""


def jobs(ops: Sequence[str], dtypes: Iterable[str], targets: Iterable[str]) -> Iterator[Job]:
    """What there is to compile: kernels where their own operation launches them, each specialisation once."""
    names = {id(kernel): name for name, kernel in every_kernel().items()}
    seen = set()
    for target in targets:
        for workload, what in WORKLOADS.items():
            for property_ in PROPERTIES if what.op in ops else ():
                for dtype in dtypes:
                    for n, (kernel, given) in enumerate(launches(workload, property_, dtype, target)):
                        name = names[id(kernel)]
                        for schedule in _schedules(kernel, given, target) if _home(name, what.op) else ():
                            key = _specialise(kernel, given, schedule, TARGETS[target])
                            if key not in seen:
                                seen.add(key)
                                yield Job(workload, property_, dtype, target, n, name, schedule)


def _home(kernel: str, op: str) -> bool:
    """Whether the operation's own files have the kernel: a product that a network launches is compiled as dense's."""
    module = kernel.partition(".")[0]
    return f"{module}_".startswith(f"{op}_") or not any(f"{module}_".startswith(f"{other}_") for other in OPERATIONS)


def _schedules(kernel: Scheduled, given: dict[str, Any], target: str) -> list[int]:
    with dividing_for(TARGETS[target].chip):
        return [kernel.configs.index(config) for config in kernel.suited(given)]


@contextmanager
def dividing_for(chip: Chip) -> Iterator[None]:
    """Within, launchers divide work for this chip."""
    launch.compiled_for = chip
    try:
        yield
    finally:
        launch.compiled_for = launch.H100


@lru_cache(maxsize=64)
def launches(workload: str, property_: str, dtype: str, target: str) -> list[tuple[Scheduled, dict[str, Any]]]:
    """The kernels that a workload launches on a chip, and their arguments."""
    backend, what = load("triton"), WORKLOADS[workload]
    arrays, cotangents, parameters = what.shapes(getattr(torch, dtype))
    recorded: list[tuple[Scheduled, dict[str, Any]]] = []
    Scheduled.recorder = lambda kernel, given, grid: recorded.append((kernel, given))
    try:
        with dividing_for(TARGETS[target].chip):
            call: Any = backend.function(what.op) if property_ == "forward" else backend.gradient(what.op)
            if property_ == "forward":
                call(*arrays, **parameters)
            else:
                call(arrays, cotangents, parameters)
    finally:
        Scheduled.recorder = None
    return recorded


def build(job: Job) -> Row:
    """Compiles; never raises for what a compiler does not take."""
    kernel, given = launches(job.workload, job.property, job.dtype, job.target)[job.launch]
    try:
        return Row(job, read(compiled(kernel, given, job.schedule, TARGETS[job.target])))
    except Exception as error:  # of whatever kind: Triton's, LLVM's or ptxas's
        return Row(job, None, f"{type(error).__name__}: {error}")


def compiled(kernel: Scheduled, given: dict[str, Any], schedule: int, target: Target) -> Any:
    """A triton.compiler.CompiledKernel, specialised for arguments that have shapes and no memory."""
    driver.set_active(target)
    return kernel.fn.warmup(grid=(1,), **given, **kernel.configs[schedule].all_kwargs())


def _specialise(kernel: Scheduled, given: dict[str, Any], schedule: int, target: Target) -> str:
    """What Triton distinguishes this compilation by."""
    found: list[str] = []

    def take(*, key: Any, **_: Any) -> bool:
        found.append(f"{target.name} {id(kernel)} {key}")
        return True  # and do not compile

    kernel.fn.device_caches.clear()  # what this process has compiled already is not announced
    before, knobs.runtime.jit_cache_hook = knobs.runtime.jit_cache_hook, take
    try:
        compiled(kernel, given, schedule, target)
    finally:
        knobs.runtime.jit_cache_hook = before
    (key,) = found
    return key


def schedule_of(job: Job) -> str:
    config = every_kernel()[job.kernel].configs[job.schedule]
    words = [f"{key.removeprefix('BLOCK_')} {value}" for key, value in config.kwargs.items()]
    return ", ".join([*words, f"{config.num_warps} warps, {config.num_stages} stages"])
