"""Half the sum of squared differences, L = ½ Σ (ŷ − y)², and its gradient.

_partial   A program sums a run of elements of the matrices, taken row by row, BLOCK at a time, into a workspace; a
           second launch of it, on the workspace, adds the partial sums in a fixed order. Bytes: 2·N·O · size.
_gradient  A program writes BLOCK elements of dL (ŷ − y) and of its negative. Bytes: 4·N·O · size.
The mask guards the end of the matrices; a run is of whole blocks, so that it begins where 16 bytes begin. Accumulator:
float32 (float64 of float64), in which the sum is halved: float16 may hold the half and not the whole. Flops: 3·N·O.
Where both matrices are dense the two strides per element are one.
"""

import triton
import triton.language as tl
from triton import Config

from .launch import AT_ONCE, accumulator, as_triton, empty, processors, scheduled, wide

ALONE = 4096 if AT_ONCE else 64  # elements that one program sums while others would only be launched
BLOCKS = (*(() if AT_ONCE else ((32, 1),)), (2048, 4), (4096, 8))  # and their warps


def mse(y_hat, y):
    """L = ½ Σ (ŷ − y)²: y_hat, y [N,O] → []."""
    return _sum(y_hat, y, accumulator(y.dtype), y.dtype)


def mse_vjp(y_hat, y, dL):
    """dL (ŷ − y) and its negative."""
    (N, O), out = y.shape, [empty(y.shape, y.dtype, y.device) for _ in range(2)]
    width = O if not _flat(y_hat, y) else N * O
    _gradient[lambda meta: (triton.cdiv(N * O, meta["BLOCK"]),)](
        y_hat, y, dL, *out, N * O, width, *_strides(y_hat, width), *_strides(y, width),
        ACC=as_triton(accumulator(y.dtype)), WIDE=wide(y_hat, y, out[0]),
    )  # fmt: skip
    return tuple(out)


def _sum(a, b, acc, dtype):
    """Σ (a − b)² / 2 of matrices, or Σ a of a vector if b is None → [] of `dtype`."""
    size = a.numel()
    programs = 1 if size <= ALONE else min(4 * processors(), triton.cdiv(size, ALONE))
    out = empty((programs,), acc if programs > 1 else dtype, a.device)
    width = size if b is None or _flat(a, b) else a.shape[1]
    _partial[(programs,)](
        a, b, out, size, width, *_strides(a, width), *(_strides(b, width) if b is not None else (0, 0)),
        triton.cdiv(size, programs), ACC=as_triton(acc), WIDE=wide(a, b),
    )  # fmt: skip
    return _sum(out, None, acc, dtype) if programs > 1 else out[0]


def _flat(*matrices):
    """Whether rows follow one another without a gap, so that elements are a run."""
    return all(m.stride(1) == 1 and m.stride(0) == m.shape[1] for m in matrices)


def _strides(a, width):
    return (0, a.stride(-1)) if width == a.numel() else a.stride()


@scheduled([Config({"BLOCK": block}, num_warps=warps) for block, warps in BLOCKS], key=("size",))
@triton.jit
def _partial(
    a, b, out, size, width, stride_an, stride_ao, stride_bn, stride_bo, run,
    ACC: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    steps = tl.cdiv(run, BLOCK)
    first = (program.to(tl.int64) if WIDE else program) * steps * BLOCK
    total = tl.zeros((BLOCK,), ACC)
    for step in range(steps):
        index = first + step * BLOCK + tl.arange(0, BLOCK)
        inside = index < size
        n, o = index // width, index % width
        d = tl.load(a + n * stride_an + o * stride_ao, mask=inside, other=0.0).to(ACC)
        if b is not None:
            d -= tl.load(b + n * stride_bn + o * stride_bo, mask=inside, other=0.0).to(ACC)
            d = d * d * 0.5
        total += d
    tl.store(out + program, tl.sum(total, axis=0).to(out.dtype.element_ty))


@scheduled([Config({"BLOCK": block}, num_warps=warps) for block, warps in BLOCKS], key=("size",))
@triton.jit
def _gradient(
    y_hat, y, dL, dy_hat, dy, size, width, stride_hn, stride_ho, stride_yn, stride_yo,
    ACC: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    index = (program.to(tl.int64) if WIDE else program) * BLOCK + tl.arange(0, BLOCK)
    inside = index < size
    n, o = index // width, index % width
    d = tl.load(y_hat + n * stride_hn + o * stride_ho, mask=inside, other=0.0).to(ACC)
    d -= tl.load(y + n * stride_yn + o * stride_yo, mask=inside, other=0.0).to(ACC)
    d *= tl.load(dL).to(ACC)
    tl.store(dy_hat + index, d.to(dy_hat.dtype.element_ty), mask=inside)
    tl.store(dy + index, (-d).to(dy.dtype.element_ty), mask=inside)
