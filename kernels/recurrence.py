"""What the recurrent networks share: dividing a step among programs, and the product with the state before it.

One kernel per direction walks over time; a program keeps a tile of BLOCK_N rows of the batch × BLOCK_U hidden units.
A step reads all units of the step before it, and where it gets them from is the MODE:

alone      A program has all units of its rows: they stay in its registers, the weights in its shared memory.
resident   Programs exchange units through memory, and each keeps its slice of the weights in shared memory. The walk
           is one cooperative launch of no more programs than run at once, which wait for each other at a barrier.
           Not on AMD, where Triton's barrier of a program does not wait for its threads' stores (seen in its assembly).
           Where programs run one after another (in the interpreter, in the sanitizer), it is one launch per step.
streamed   What is too large for that is one launch per step, and reads its slice of the weights again, in a pipeline.
           Such launches are many and short: record them in a CUDA graph.

The barrier, `arrive` and `wait`, is all that only a GPU can execute: without `arrived` the same code runs step by step.
Kernels that walk have one schedule: to try out others they would have to walk again, over what they have changed.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .launch import AT_ONCE, Scheduled, accumulator, as_triton, chip, dot_precision, inlined, matrix_units, processors

MOST_UNITS = 128 if AT_ONCE else 16  # of a program that is alone
MOST_K = 1024 if AT_ONCE else 32  # of the state, multiplied at once
MEMORY = 10240  # there, bytes that stand for a program's shared memory
LINE = tl.constexpr(32)  # counters apart, so that each has a cache line


class Division(NamedTuple):
    """How a direction is divided: tiles of units and of rows, whether one launch walks, and the kernel's constants."""

    grid: tuple[int, int]
    walks: bool
    memory: int  # shared, in bytes
    constants: dict[str, Any]

    @property
    def programs(self) -> int:
        return self.grid[0] * self.grid[1]


def divide(N: int, H: int, inputs: int, outputs: int, dtype: torch.dtype) -> Division:
    """For steps that multiply a state [N, inputs·H] by weights [inputs·H, outputs·H]."""
    K, size, gates = inputs * H, dtype.itemsize, inputs * outputs
    limit = chip().shared_memory if AT_ONCE else MEMORY

    def division(mode, rows, units, k, parts=1):
        width = parts * k
        chunks = triton.cdiv(K, width) if mode == "resident" else 1
        constants = dict(
            MODE=mode, BLOCK_N=rows, BLOCK_U=units, BLOCK_K=k, PARTS=parts, CHUNKS=chunks, WHOLE=K % width == 0
        )
        memory = chunks * outputs * units * width * size + max(rows * width * size, rows * gates * units * 4)
        walks = mode == "alone" or (mode == "resident" and AT_ONCE)
        return Division((triton.cdiv(H, units), triton.cdiv(N, rows)), walks, memory, constants)

    by_units = matrix_units(size) or not AT_ONCE  # else operands pass through registers, which hold little
    units = max(16, triton.next_power_of_2(H))
    alone = division("alone", 16, units, inputs * units)
    fits = (alone.memory <= limit and (chip().cooperates or K <= 128)) or not AT_ONCE  # on AMD a wider state spills
    if units <= MOST_UNITS and fits and (by_units or gates * units**2 <= 4096):
        return alone
    if chip().cooperates and by_units:
        width = max(16, min(MOST_K, triton.next_power_of_2(K)))
        parts = min(4 if gates > 1 else 1, width // 16)
        resident = [
            division("resident", rows, units, width // parts, parts)
            for rows in (16, 32)
            for units in (4, 8, 16, 32, 64)
            if outputs * units >= 16 and rows * gates * units <= (2048 if inputs == 1 else 1024)  # more would spill
        ]
        resident = [d for d in resident if d.memory <= limit and d.programs <= processors()]
        if resident:
            return max(resident, key=lambda d: (d.programs, d.constants["BLOCK_U"]))

    def depth(rows, columns):  # enough for loads of 16 bytes by 256 threads
        return 128 if by_units else max(32 if gates == 1 else 16, 1024 // max(rows, columns))

    streamed = [
        division("streamed", rows, columns // gates, min(k, depth(rows, columns)) if AT_ONCE else 32)
        for rows, columns, k in ((64, 128, 64), (32, 64, 64), (16, 64, 128), (16, 32, 128), (16, 16, 128))
        if rows <= max(16, triton.next_power_of_2(N)) and outputs * columns >= 16 * gates
        if (chip().roomy and by_units) or rows * columns <= 2048 or not AT_ONCE
    ]
    return next((d for d in streamed if 4 * d.programs >= 3 * processors()), streamed[-1])


def walk(kernel: Scheduled, division: Division, T: int, like: torch.Tensor, /, **arguments: Any) -> None:
    """Launches a direction's kernel for its steps 0 … T − 1, all at once or one by one."""
    arguments |= division.constants | dict(ACC=as_triton(accumulator(like.dtype)), PRECISION=dot_precision())
    launch = kernel[division.grid]
    if not division.walks:
        for step in range(T):
            launch(**arguments, arrived=None, first=step, steps=1)
    elif division.grid[0] == 1:
        launch(**arguments, arrived=None, first=0, steps=T)
    else:
        arrived = torch.zeros((division.grid[1], LINE.value), dtype=torch.int32, device=like.device)
        launch(**arguments, arrived=arrived, first=0, steps=T, launch_cooperative_grid=True)


@inlined
def arrive(arrived):
    """This program's stores of a step are done, and seen by whoever has waited for it.

    One thread adds, with release semantics, which cover the others' stores only if those come before a barrier.
    """
    tl.debug_barrier()
    tl.atomic_add(arrived, 1, sem="release")


@inlined
def wait(arrived, count):
    """Until so many programs have arrived, over all steps. One thread asks; the barrier holds back the others' loads."""
    while tl.atomic_add(arrived, 0, sem="acquire") < count:
        pass
    tl.debug_barrier()


@inlined
def resident(
    weights, columns, in_columns, k, K, stride_k,
    MODE: tl.constexpr, PARTS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The columns at these offsets of weights of K rows, in CHUNKS tiles [PARTS, BLOCK_K, columns]; streamed, none."""
    tiles = ()
    if MODE == "alone":
        tiles = (  # type: ignore[assignment]
            tl.load(
                weights + k[:, None] * stride_k + columns[None, :],
                mask=(k < K)[:, None] & in_columns[None, :],
                other=0.0,
            ),
        )
    elif MODE == "resident":
        row = tl.arange(0, PARTS)[:, None] * BLOCK_K + k[None, :]
        offsets = row[:, :, None] * stride_k + columns[None, None, :]
        for chunk in tl.static_range(CHUNKS):
            inside = (chunk * PARTS * BLOCK_K + row < K)[:, :, None] & in_columns[None, None, :]
            tiles = tiles + (tl.load(weights + offsets, mask=inside, other=0.0),)  # type: ignore[assignment]
            weights += PARTS * BLOCK_K * stride_k
    return tiles


@inlined
def product(
    before, rows, in_rows, tiles, weights, columns, in_columns, k, K, stride_k,
    ACC: tl.constexpr, PRECISION: tl.constexpr, MODE: tl.constexpr,
    PARTS: tl.constexpr, CHUNKS: tl.constexpr, WHOLE: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The rows of the state before, [BLOCK_N, K], times columns of weights. Alone, `before` is the state, not a pointer."""
    if MODE == "alone":
        return tl.dot(before, tiles[0], input_precision=PRECISION, out_dtype=ACC)
    elif MODE == "resident":
        z = tl.zeros((PARTS, rows.shape[0], columns.shape[0]), ACC)
        row = tl.arange(0, PARTS)[:, None] * BLOCK_K + k[None, :]
        offsets = rows[None, :, None] + row[:, None, :]
        for chunk in tl.static_range(CHUNKS):
            inside = in_rows[None, :, None]
            if not WHOLE:
                inside &= (chunk * PARTS * BLOCK_K + row < K)[:, None, :]
            # other processors have written it during this launch, so it is read from L2, past what L1 may still hold
            state = tl.load(before + offsets, mask=inside, other=0.0, cache_modifier=".cg")
            z = tl.dot(state, tiles[chunk], z, input_precision=PRECISION, out_dtype=ACC)
            before += PARTS * BLOCK_K
        return tl.sum(z, axis=0)
    else:
        z = tl.zeros((rows.shape[0], columns.shape[0]), ACC)
        state_tile = before + rows[:, None] + k[None, :]
        weight_tile = weights + k[:, None] * stride_k + columns[None, :]
        for start in range(0, K, BLOCK_K):
            inside, in_weights = in_rows[:, None], in_columns[None, :]
            if not WHOLE:
                in_k = start + k < K
                inside &= in_k[None, :]
                in_weights &= in_k[:, None]
            state = tl.load(state_tile, mask=inside, other=0.0)
            weight = tl.load(weight_tile, mask=in_weights, other=0.0)
            z = tl.dot(state, weight, z, input_precision=PRECISION, out_dtype=ACC)
            state_tile += BLOCK_K
            weight_tile += BLOCK_K * stride_k
        return z
