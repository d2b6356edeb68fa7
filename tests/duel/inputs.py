"""What is judged, and on which inputs: drawn as opspec draws them, plain normal numbers, or as KernelBench prescribes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from zlib import crc32

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed

from ...impls import Backend, load
from ...impls import torch as eager
from ...spec import OPERATIONS, Operation, format_of
from ..cases import SIZES, Case, Drawn, cases, shape_of
from ..planted import Planted
from ..properties import PROPERTIES

Arrays = tuple[np.ndarray, ...]
KERNELBENCH_SEEDS = 5
KINDS = ("drawn", "normal", "KernelBench's")


@dataclass
class Subject:
    """A mutant or a variant, whose answer to an example is asked for once and kept for all criteria."""

    planted: Planted
    backend: Backend = field(init=False)

    def __post_init__(self) -> None:
        self.backend = self.planted.make()
        self.asked: dict[int, tuple[Arrays | Exception, float]] = {}

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.planted.operation]

    @property
    def gradient(self) -> bool:
        return self.planted.direction == "gradient"

    def answer(self, example: "Example") -> tuple[Arrays | Exception, float]:
        """What it returned, or raised, and the seconds that took."""
        if id(example) not in self.asked:
            begin, given = time.perf_counter(), example.fresh()
            try:
                with np.errstate(all="ignore"):
                    returned = self.call(given)
                answer: Arrays | Exception = tuple(np.array(a) for a in returned)
            except Exception as error:  # a criterion's verdict on it
                answer = error
            self.asked[id(example)] = answer, time.perf_counter() - begin
        return self.asked[id(example)]

    def call(self, drawn: Drawn) -> Arrays:
        name = self.operation.name
        if self.gradient:
            return self.backend.backward(name, drawn.arrays, drawn.cotangents, drawn.parameters)
        return self.backend.forward(name, drawn.arrays, drawn.parameters)


@dataclass
class Example:
    """Inputs in one dtype, what they give in float64, and what PyTorch makes of them."""

    case: Case | None
    operation: Operation
    gradient: bool
    dtype: str
    drawn: Drawn

    def fresh(self) -> Drawn:
        """A copy that the implementation may do with as it likes; of a case, in the memory that the case prescribes."""
        if self.case is not None:
            return self.case.draw(self.dtype)
        d = self.drawn
        return replace(d, arrays=tuple(map(np.copy, d.arrays)), cotangents=tuple(map(np.copy, d.cotangents)))

    @cached_property
    def reference(self) -> Arrays:
        """The spec in float64."""
        return self.evaluate(np.asarray)

    @cached_property
    def bound(self) -> Arrays:
        """The spec of the inputs' magnitudes, in float64."""
        return self.evaluate(np.abs)

    def evaluate(self, of: Callable[[np.ndarray], np.ndarray]) -> Arrays:
        op, d = self.operation, self.drawn
        function = op.vjp if self.gradient else op.function
        arrays = d.arrays + d.cotangents if self.gradient else d.arrays
        with np.errstate(all="ignore"):
            result = function(*(of(a.astype(np.float64)) for a in arrays), **d.parameters)
        return tuple(np.asarray(a) for a in (result if isinstance(result, tuple) else (result,)))

    @cached_property
    def expected(self) -> Arrays:
        """The reference as stored."""
        with np.errstate(all="ignore"):
            return tuple(a.astype(format_of(self.dtype).dtype) for a in self.reference)

    @cached_property
    def by_torch(self) -> Arrays | None:
        """PyTorch's own answer in the dtype; None where it has none."""
        return self._by_torch(load("torch"))

    @cached_property
    def by_eager_torch(self) -> Arrays | None:
        """The same, but attention as three kernels which round what they return, as FlashAttention's tests have it."""
        return self._by_torch(_Eager.backend())

    def _by_torch(self, backend: Backend) -> Arrays | None:
        d = self.fresh()
        try:
            if self.gradient:
                return backend.backward(self.operation.name, d.arrays, d.cotangents, d.parameters)
            return backend.forward(self.operation.name, d.arrays, d.parameters)
        except NotImplementedError:
            return None


class _Eager:
    """PyTorch's backend with attention written out."""

    def __getattr__(self, name):
        return getattr(eager, name)

    @staticmethod
    def backend() -> Backend:
        return Backend(_Eager(), "eager")  # type: ignore[arg-type]

    @staticmethod
    def attention(q, k, v, *, mask=None, causal=False):
        allowed = q.new_ones((1, 1, q.shape[2], k.shape[2]), dtype=torch.bool) if mask is None else mask
        allowed = allowed.tril() if causal else allowed
        scores = (q @ k.mT / q.shape[3] ** 0.5).masked_fill(~allowed, float("-inf"))
        weights = torch.softmax(scores, dim=-1).masked_fill(~allowed.any(-1, keepdim=True), 0.0)
        return weights @ v


def examples(subject: Subject, kind: str, number: int, seed: int) -> list[Example]:
    """The same for every subject of one operation, direction, dtype and set of parameters."""
    plant, op = subject.planted, subject.operation
    if kind == "KernelBench's":
        found = [] if subject.gradient else [as_in_kernelbench(op, plant.dtype, n) for n in range(KERNELBENCH_SEEDS)]
        return [Example(None, op, subject.gradient, plant.dtype, drawn) for drawn in found]
    return list(_drawn(op.name, plant.direction, plant.dtype, subject.backend.parameters(op), kind, number, seed))


@lru_cache(maxsize=16)
def _drawn(
    name: str, direction: str, dtype: str, may: tuple[str, ...], kind: str, number: int, seed: int
) -> tuple[Example, ...]:
    op, found = OPERATIONS[name], list[Case]()
    strategy = PROPERTIES[direction].strategy(op, may)
    if kind == "normal":
        strategy = cases(name, values=("normal",), parameters=may)

    @hypothesis_seed(crc32(f"{seed} {name} {direction} {kind}".encode()))
    @settings(
        max_examples=number,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return tuple(Example(case, op, direction == "gradient", dtype, case.draw(dtype)) for case in found[:number])


def as_in_kernelbench(op: Operation, dtype: str, seed: int) -> Drawn:
    """One shape, round numbers; inputs uniform in 0 … 1, as torch.rand gives them; weights as PyTorch's layers start."""
    sizes = {letter: 1 << (limit.bit_length() - 1) for letter, limit in SIZES[op.name].items()}
    parameters = {"window": (2, 2), "stride": (2, 2)} if "window" in op.required else {}
    rng = np.random.default_rng([seed, 1])
    arrays = []
    for name, letters in op.arrays.items():
        shape = shape_of(letters, sizes)
        if name[0] in "wWb":
            reach = 1 / np.sqrt(sizes.get("H", 0) or (np.prod(shape[:-1]) if len(shape) > 1 else shape[-1]))
            values = rng.uniform(-reach, reach, shape)
        else:
            values = rng.random(shape)
        arrays.append(values.astype(format_of(dtype).dtype))
    return Drawn(tuple(arrays), (), parameters)
