"""Code generation without a GPU: every kernel keeps the contracts, and each contract can be broken.

Compiling only needs a process of its own, in which this file runs itself: each kernel once in either direction. All that
there is to compile takes `python -m opspec.tests.codegen`, whose result docs/codegen.md is.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton import Config

from opspec.impls import load
from opspec.kernels import LANE
from opspec.kernels.launch import Chip, Scheduled, scheduled
from opspec.tests.codegen import COMMAND, page
from opspec.tests.compilations import DTYPES, TARGETS, Job, Row, build, compiled, jobs
from opspec.tests.kernels import every_kernel
from opspec.tests.machine_code import MachineCode, read

PAGE = Path(__file__).resolve().parents[1] / "docs" / "codegen.md"
compiling = pytest.mark.skipif(LANE != "codegen", reason="for the process that compiles only")
JOB = Job("softmax N8192 M1024", "forward", "bfloat16", "sm_90", 0, "softmax._rows", 1)
GOOD = MachineCode(registers=64, spilled=0, shared=1024, tensor_memory=0, matrix="", load=16, product=False)


COMPILE_ONLY = {"TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}


@pytest.mark.skipif(LANE == "codegen", reason="this process compiles only already")
@pytest.mark.beside("-m", "pytest", __file__, "-q", **COMPILE_ONLY)
def test_in_a_process_that_compiles_only(beside):
    assert beside().code == 0


def _once() -> list[Job]:
    """Each kernel once per direction, dtype and target."""
    chosen: dict[tuple[str, ...], Job] = {}
    for dtype, targets in (("bfloat16", ["sm_90", "gfx942"]), ("float32", ["sm_90"])) if LANE == "codegen" else ():
        for job in jobs(load("triton").operations, [dtype], targets):
            chosen.setdefault((job.kernel, job.property, job.dtype, job.target), job)
    return list(chosen.values())


ONCE = _once()


@compiling
@pytest.mark.parametrize("job", ONCE, ids=lambda job: f"{job.kernel}-{job.property}-{job.dtype}-{job.target}")
def test_contracts(job: Job):
    row = build(job)
    assert not row.broken, f"{job}: {row}"


@compiling
def test_every_kernel_is_compiled():
    assert {job.kernel for job in ONCE} == set(every_kernel())


@scheduled([Config({"BLOCK": 131072}, num_warps=16)])  # more than the 128 registers that each of so many threads has
@triton.jit
def _spills(X, Y, Z, BLOCK: tl.constexpr):
    n = tl.arange(0, BLOCK)
    e = tl.exp(tl.load(X + n).to(tl.float32))
    tl.store(Y + n, (e / tl.sum(e, axis=0)).to(Y.dtype.element_ty))


@scheduled([Config({"BLOCK": 1024})])
@triton.jit
def _narrow_loads(X, Y, Z, BLOCK: tl.constexpr):
    n = tl.arange(0, BLOCK)
    tl.store(Y + n, tl.load(X + 2 * n))


@scheduled([Config({"BLOCK": 32})])
@triton.jit
def _no_matrix_units(X, Y, Z, BLOCK: tl.constexpr):
    tile = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(X + tile).to(tl.float32)
    tl.store(Y + tile, tl.dot(x, x, input_precision="ieee").to(Y.dtype.element_ty))


@scheduled([Config({"BLOCK": 128}, num_warps=8, num_stages=6)])
@triton.jit
def _too_much_memory(X, Y, Z, BLOCK: tl.constexpr):
    tile = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    z = tl.zeros((BLOCK, BLOCK), tl.float32)
    for _ in range(64):
        z = tl.dot(tl.load(X + tile), tl.load(Y + tile), z)
        X += BLOCK * BLOCK
        Y += BLOCK * BLOCK
    tl.store(Z + tile, z.to(Z.dtype.element_ty))


@compiling
@pytest.mark.parametrize(
    ("kernel", "target", "reason"),
    [
        (_spills, "sm_90", "spills"),
        (_spills, "gfx942", "spills"),
        (_narrow_loads, "sm_80", "loads 2 bytes at most"),
        (_narrow_loads, "gfx942", "loads 2 bytes at most"),
        (_no_matrix_units, "sm_90", "no matrix instructions"),
        (_too_much_memory, "sm_80", "of shared memory"),
        (_too_much_memory, "sm_100", "of shared memory"),
        (_too_much_memory, "gfx942", "of shared memory"),
    ],
    ids=lambda value: value.name if isinstance(value, Scheduled) else None,
)
def test_planted_kernel(kernel: Scheduled, target: str, reason: str):
    given = dict.fromkeys("XYZ", torch.empty(2**20, dtype=torch.bfloat16, device="meta"))
    job = Job(JOB.workload, "forward", "bfloat16", target, 0, JOB.kernel, 0)
    (broken,) = Row(job, read(compiled(kernel, given, 0, TARGETS[target]))).broken
    assert reason in broken


@compiling
def test_what_does_not_compile_is_broken(monkeypatch):
    kernel = Scheduled(_narrow_loads.fn, [Config({"BLOCK": 1000})], ())  # no power of two
    given = dict.fromkeys("XYZ", torch.empty(2**20, dtype=torch.bfloat16, device="meta"))
    monkeypatch.setattr("opspec.tests.compilations.launches", lambda *_: [(kernel, given)])
    (broken,) = build(Job(JOB.workload, "forward", "bfloat16", "sm_90", 0, JOB.kernel, 0)).broken
    assert "does not compile" in broken and "power of 2" in broken


@compiling
def test_schedules_that_a_chip_cannot_hold_are_left_out(monkeypatch):
    def schedules(target):
        found = [job for job in jobs(["dense"], ["bfloat16"], [target]) if job.kernel == "dense._matmul"]
        return {job.schedule for job in found}

    assert schedules("gfx942") < schedules("sm_90")
    monkeypatch.setitem(TARGETS, "sm_90", replace(TARGETS["sm_90"], chip=Chip(132, 1024)))
    with pytest.raises(ValueError, match="_matmul: no schedule is for this launch on this chip"):
        schedules("sm_90")


@compiling
def test_the_command(tmp_path):
    """It begins again by itself where kernels would be executed."""
    environment = {k: v for k, v in os.environ.items() if k not in COMPILE_ONLY}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [*COMMAND.split(">")[0].split()[1:], "--op", "mse", "--dtype", "float16", "--target", "sm_90"]
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "They hold." in done.stdout and "| mse._partial | float16 |" in done.stdout


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"spilled": 8}, "spills 8 bytes"),
        ({"shared": 227 * 1024 + 1}, "of shared memory"),
        ({"tensor_memory": 513}, "of tensor memory"),
        ({"load": 8}, "loads 8 bytes at most"),
        ({"product": True}, "no matrix instructions"),
    ],
)
def test_the_page_shows_what_is_broken(broken, reason):
    text = page([Row(JOB, replace(GOOD, **broken))])
    assert f"- {Row(JOB, GOOD).job}: " in text and reason in text and "They hold." not in text
    assert text.count("**") == 4  # in the summary and in the table


def test_the_page_shows_every_compilation():
    rows = [Row(JOB, GOOD), Row(replace(JOB, target="gfx942"), GOOD)]
    text = page(rows)
    assert "2 compilations" in text and "They hold." in text and "| 64, 1 KB, 16 B | 64, 1 KB, 16 B |" in text


def test_the_page_lists_every_kernel():
    if not PAGE.parent.exists():
        pytest.skip("docs/ is not part of the wheel")
    text = PAGE.read_text(encoding="utf-8")
    assert not [f"{name} {d}" for name in every_kernel() for d in DTYPES if f"| {name} | {d} |" not in text], COMMAND
    assert "They hold." in text
