"""Which kernels an operation launches, and whether each is right with each of its schedules."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from triton import Config

from .. import kernels
from ..impls import load
from ..kernels.launch import Scheduled, forced
from ..spec import OPERATIONS
from .cases import Case
from .judge import Judgement, judge_all, sensitivity
from .oracle import expect

RAGGED = {
    "dense": ("N=130 I=70 O=260 activation=tanh", "N=33 I=200 O=17 activation=relu"),
    "mse": ("N=67 O=131",),
    "softmax": ("N=35 M=130", "N=35 M=51"),
    "conv2d": (
        "N=2 H=11 W=13 C=19 kH=3 kW=2 O=70 stride=2x1 padding=1x2 dilation=1x2",
        "N=3 H=9 W=9 C=3 kH=3 kW=3 O=9 stride=2x1 dilation=2x1",
    ),
    "maxpool2d": ("N=2 H=17 W=15 C=19 window=3x2 stride=2x1", "N=1 H=15 W=14 C=70 window=12x11 stride=3x3"),
    "rnn": (
        "T=2 N=35 I=21 H=70 O=19 activation=tanh",
        "T=3 N=5 I=9 H=17 O=17 activation=relu",
        "T=4 N=5 I=9 H=15 O=3 activation=sigmoid",
    ),
    "lstm": ("T=3 N=18 I=21 H=37", "T=3 N=5 I=9 H=17", "T=4 N=5 I=9 H=15"),
    "attention": (
        "B=1 H=2 M=150 S=150 D=40 E=24 causal=True",
        "B=2 H=2 M=70 S=133 D=17 E=33 mask=empty_rows:1:H",
    ),
    "multihead_attention": ("B=2 M=37 S=70 F=34 h=2 d_k=17 d_v=9",),
}
"""Sizes that no tile divides, mostly of more than one tile; a long row where one tile or loop would otherwise do."""


@dataclass(frozen=True)
class Launch:
    """A kernel as one case of an operation launches it, with one schedule."""

    op: str
    property: str
    case: str
    kernel: str
    schedule: int

    def __str__(self) -> str:
        return f"{self.op}-{self.property}-{RAGGED[self.op].index(self.case)}-{self.kernel}-{self.schedule}"


def every_kernel() -> dict[str, Scheduled]:
    """All scheduled kernels of the package, as module.kernel."""
    found = {}
    for module in pkgutil.iter_modules(kernels.__path__, kernels.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Scheduled):
                found[f"{value.fn.fn.__module__.rpartition('.')[2]}.{value.name}"] = value
    return found


def launches(dtype: str) -> Iterator[Launch]:
    """Every kernel that the ragged cases launch, in both directions, with every schedule it has."""
    for op in load("triton").operations:
        for case in RAGGED[op]:
            for property_ in ("forward", "gradient"):
                for kernel, schedules in _launched(op, property_, case, dtype).items():
                    for schedule in sorted(schedules):
                        yield Launch(op, property_, case, kernel, schedule)


def judge(launch: Launch, dtype: str) -> Judgement:
    """The case's outputs, with this kernel on this schedule."""
    with forced(every_kernel()[launch.kernel], config_of(launch)):
        return judge_call(launch.op, launch.property, launch.case, dtype)


def judge_call(op: str, property_: str, case: str, dtype: str) -> Judgement:
    """The case's outputs, called for twice, bit for bit alike."""
    first, second = (_call(op, property_, case, dtype) for _ in range(2))
    if any(a.tobytes() != b.tobytes() for a, b in zip(first, second, strict=True)):
        return Judgement("fail", np.inf, "two runs with the same inputs differ")
    expectations = _expectations(op, property_, case, dtype)
    zeros = {"zeros": [np.zeros(e.truth.shape) for e in expectations]}
    return judge_all(expectations, first, sensitivity(expectations, zeros))


def config_of(launch: Launch) -> Config:
    return every_kernel()[launch.kernel].configs[launch.schedule]


def _call(op: str, property_: str, case: str, dtype: str) -> tuple[np.ndarray, ...]:
    backend, drawn = load("triton"), Case.parse(OPERATIONS[op], case).draw(dtype)
    if property_ == "forward":
        return backend.forward(op, drawn.arrays, drawn.parameters)
    return backend.backward(op, drawn.arrays, drawn.cotangents, drawn.parameters)


def recorded(op: str, property_: str, case: str, dtype: str) -> list[tuple[str, dict[str, Any]]]:
    """The kernels that a case launches, and their arguments; none runs."""
    seen: list[tuple[str, dict[str, Any]]] = []
    names = {id(kernel): name for name, kernel in every_kernel().items()}
    Scheduled.recorder = lambda kernel, given, grid: seen.append((names[id(kernel)], given))
    try:
        _call(op, property_, case, dtype)
    finally:
        Scheduled.recorder = None
    return seen


@cache
def _launched(op: str, property_: str, case: str, dtype: str) -> dict[str, set[int]]:
    """The kernels, and the numbers of the schedules that are for all these launches of theirs."""
    found: dict[str, set[int]] = {}
    for name, given in recorded(op, property_, case, dtype):
        kernel = every_kernel()[name]
        suited = {kernel.configs.index(config) for config in kernel.suited(given)}
        found[name] = found.get(name, suited) & suited
    return found


@cache
def _expectations(op: str, property_: str, case: str, dtype: str):
    operation, drawn = OPERATIONS[op], Case.parse(OPERATIONS[op], case).draw(dtype)
    arithmetic = load("triton").arithmetic(op, dtype)
    if property_ == "forward":
        return expect(operation.function, drawn.arrays, drawn.parameters, arithmetic, operation.outputs)
    names = ["d" + name for name in operation.arrays]
    return expect(operation.vjp, drawn.arrays + drawn.cotangents, drawn.parameters, arithmetic, names)
