"""Launching: the schedule a kernel runs with, the memory it writes to, and the formats it computes in."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from . import LANE

if LANE == "interpreter":
    # As in compiled code, sums of integers are not checked for overflow, which would take more than half of the time.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)

AT_ONCE = LANE in ("gpu", "codegen")  # programs run; elsewhere limits are low, so that small cases reach every path
BAND = 2048  # elements before and after a guarded array, more than a tile's row reaches beyond it
FEW_PROGRAMS = 8  # that an interpreted launch should have, where a schedule allows it: each takes milliseconds
POISON = {  # bits: NaN with a payload that no arithmetic makes, or a number that no offset is
    8: (torch.int8, 0x5A),
    16: (torch.int16, 0x7FED),  # NaN in float16 and in bfloat16
    32: (torch.int32, 0x7FC5EEDA),
    64: (torch.int64, 0x7FF8_5EED_A5EE_DA5E),
}

Suits = Callable[[triton.Config, dict[str, Any]], bool]


class OutOfBounds(RuntimeError):
    """A kernel wrote beside an array that it was given to write."""


class Scheduled:
    """A jitted kernel with its schedules (triton.Config), of which `key`, the names of arguments, decides.

    On a GPU they are tried out once per key, by triton.autotune. While kernels are judged, and wherever there is no GPU,
    the key's values pick one: the same for equal calls, another for other sizes, so that every schedule gets judged.
    `suits` tells, of a schedule and a launch's arguments, whether it is for that launch on this chip: what would spill
    or not fit into memory is neither tried nor compiled.
    """

    recorder: Callable[["Scheduled", dict[str, Any], Any], None] | None = None  # takes launches in place of a machine

    def __init__(self, fn: Any, configs: Sequence[triton.Config], key: Sequence[str], suits: Suits | None = None):
        self.fn, self.configs, self.key, self.suits = fn, list(configs), list(key), suits
        self.forced: triton.Config | None = None
        prune = {"early_config_prune": lambda configs, args, **given: self.suited(args | given)}
        self._autotuned = triton.autotune(self.configs, self.key, prune_configs_by=prune)(fn) if LANE == "gpu" else None

    @property
    def name(self) -> str:
        return self.fn.__name__

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        """kernel[grid](*arguments, **arguments); a callable grid takes the schedule's constants."""

        def launch(*args: Any, **kwargs: Any) -> None:
            given = dict(zip(self.fn.arg_names, args, strict=False)) | kwargs
            if Scheduled.recorder is not None:
                Scheduled.recorder(self, given, grid)
                return
            if self._autotuned is not None and self.forced is None and not _guarded:
                self._autotuned[grid](**given)
                return
            config = self.forced or self._pick(given, grid)
            shape = grid(config.kwargs | given) if callable(grid) else grid
            options = {} if LANE == "interpreter" else dict(num_warps=config.num_warps, num_stages=config.num_stages)
            with np.errstate(all="ignore") if LANE == "interpreter" else nullcontext():
                self.fn[shape](**given, **config.kwargs, **options)

        return launch

    def suited(self, given: dict[str, Any]) -> list[triton.Config]:
        """The schedules for a launch with these arguments."""
        suited = [config for config in self.configs if self.suits is None or self.suits(config, given)]
        if not suited:
            raise ValueError(f"{self.name}: no schedule is for this launch on this chip: {chip()}")
        return suited

    def _pick(self, given: dict[str, Any], grid: Any) -> triton.Config:
        configs = self.suited(given)
        if LANE != "gpu" and callable(grid):
            programs = [math.prod(grid(c.kwargs | given)) for c in configs]
            configs = [c for c, n in zip(configs, programs, strict=True) if n <= max(FEW_PROGRAMS, min(programs))]
        values = [given[name] for name in self.key]
        return configs[crc32(f"{self.name} {values}".encode()) % len(configs)]


def scheduled(
    configs: Sequence[triton.Config], key: Sequence[str] = (), suits: Suits | None = None
) -> Callable[[Any], Scheduled]:
    """Decorates a triton.jit function with its schedules."""
    return lambda fn: Scheduled(fn, configs, key, suits)


def inlined(fn: Any) -> Any:
    """Decorates a function that kernels call: triton.jit. Triton's interpreter runs a plain function as well, and faster:
    at each call of a jitted one it patches the language anew, which takes about a millisecond."""
    return fn if LANE == "interpreter" else triton.jit(fn)


@contextmanager
def forced(kernel: Scheduled, config: triton.Config) -> Iterator[None]:
    """Within, the kernel runs with this schedule."""
    kernel.forced = config
    try:
        yield
    finally:
        kernel.forced = None


_guarded: list[list[tuple[torch.Tensor, int]]] = []  # per `guarded` scope: buffers and the number of elements inside


@contextmanager
def guarded() -> Iterator[None]:
    """Within, `empty` gives memory that is full of poison, between bands of it that must be whole at the end.

    Raises OutOfBounds where they are not. The sanitizer does both by itself, and finer.
    """
    _guarded.append([])
    try:
        yield
        for buffer, size in _guarded[-1] if LANE != "sanitizer" else ():
            bits = _as_bits(buffer)
            poison = POISON[8 * buffer.element_size()][1]
            before = int((bits[:BAND] != poison).sum())
            after = int((bits[BAND + size :] != poison).sum())
            if before or after:
                raise OutOfBounds(f"a kernel wrote {before} elements before and {after} after an array of {size}")
    finally:
        _guarded.pop()


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Memory for what a kernel writes whole, C-ordered and aligned."""
    if not _guarded or LANE == "sanitizer" or device.type == "meta":
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    size = math.prod(shape)
    buffer = torch.empty(size + 2 * BAND, dtype=dtype, device=device)
    _as_bits(buffer).fill_(POISON[8 * buffer.element_size()][1])
    _guarded[-1].append((buffer, size))
    return buffer[BAND : BAND + size].view(tuple(shape))


def copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy with the tensor's strides and distance from a 64-byte boundary, between bands of poison.

    Under the sanitizer without bands: there an access beside the array is to be one beside the memory.
    """
    band = 0 if LANE == "sanitizer" else BAND
    shift = tensor.data_ptr() % 64 // tensor.element_size()
    extent = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    memory = torch.empty(band + shift + extent + band, dtype=tensor.dtype, device=device)
    _as_bits(memory).fill_(POISON[8 * memory.element_size()][1])
    memory[band + shift : band + shift + extent] = tensor.as_strided((extent,), (1,))
    return memory.as_strided(tensor.shape, tensor.stride(), band + shift)


def _as_bits(buffer: torch.Tensor) -> torch.Tensor:
    return buffer.view(POISON[8 * buffer.element_size()][0])


def wide(*tensors: torch.Tensor | None) -> bool:
    """Whether offsets into one of the tensors can pass 2³¹ − 1 elements."""
    extents = (
        sum((n - 1) * abs(s) for n, s in zip(t.shape, t.stride(), strict=True)) for t in tensors if t is not None
    )
    return any(extent > 2**31 - 1 for extent in extents)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What sums and intermediates are kept in: float32, of float64 float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def as_triton(dtype: torch.dtype) -> tl.dtype:
    return getattr(tl, str(dtype).removeprefix("torch."))


def dot_precision() -> str:
    """How float32 operands are multiplied: "ieee", or "tf32" where torch.set_float32_matmul_precision asks for it."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def matrix_units(size: int) -> bool:
    """Whether products of numbers of so many bytes have any; without, their operands pass through registers."""
    return size < 4 or dot_precision() == "tf32"


class Chip(NamedTuple):
    """What decides how work is divided."""

    processors: int
    shared_memory: int  # bytes that a program may use
    cooperates: bool = True  # whether programs may wait for what others store: on AMD a barrier is none for stores
    lanes: int = 32  # threads of a warp

    @property
    def roomy(self) -> bool:
        """Whether products read their operands from shared memory, which leaves registers free for large tiles."""
        return self.shared_memory >= 200 * 1024


H100 = Chip(132, 227 * 1024)
compiled_for = H100  # where kernels are compiled without a GPU


def chip() -> Chip:
    """The GPU's; elsewhere a small one, so that small cases exercise what divides work."""
    if LANE == "codegen":
        return compiled_for
    return _found() if LANE == "gpu" else Chip(4, 4096)


@cache
def _found() -> Chip:
    gpu = torch.cuda.get_device_properties()
    memory = getattr(gpu, "shared_memory_per_block_optin", gpu.shared_memory_per_block)
    return Chip(gpu.multi_processor_count, memory, cooperates=torch.version.hip is None, lanes=gpu.warp_size)


def threads(config: triton.Config) -> int:
    """Of a program with this schedule."""
    return config.num_warps * chip().lanes


def processors() -> int:
    """How many programs that fill a processor run at once."""
    return chip().processors
