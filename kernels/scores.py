"""What attention's kernels share: their arguments, their schedules, and which keys a query may attend to."""

from math import e as EULER
from math import log2, sqrt

import torch
import triton
import triton.language as tl
from triton import Config

from .launch import AT_ONCE, accumulator, as_triton, chip, dot_precision, wide


def arguments(q, k, v, mask, causal, **others):
    """What the kernels take alike: arrays and their strides, those of `others` as (array or None, letters of its axes)."""
    (B, H, M, D), (S, E) = q.shape, v.shape[2:]
    if mask is not None:
        mask = mask.view(torch.uint8).expand(B, H, M, S)  # with stride 0 along what it is broadcast over
    arrays = dict(q=(q, "bhmd"), k=(k, "bhsd"), v=(v, "bhse"), mask=(mask, "bhms")) | others
    strides = {
        f"stride_{name}_{axis}": 0 if array is None else array.stride(n)
        for name, (array, axes) in arrays.items()
        for n, axis in enumerate(axes)
    }
    given = {name: array for name, (array, _) in arrays.items()}
    return given | strides | dict(
        B=B, H=H, M=M, S=S, D=D, E=E, BLOCK_D=padded(D), BLOCK_E=padded(E), SCALE=1 / sqrt(D), LOG2_E=log2(EULER),
        CAUSAL=causal, ACC=as_triton(accumulator(q.dtype)), PRECISION=dot_precision(),
        WIDE=wide(*(array[0, 0] for array in given.values() if array is not None)),
    )  # fmt: skip


def padded(width):
    """A width that tiles may have."""
    return max(16, triton.next_power_of_2(width))


def schedules(tiles):
    """All that the table has, once each."""
    return [
        Config({"BLOCK_M": m, "BLOCK_N": n}, num_warps=warps, num_stages=stages)
        for m, n, warps, stages in dict.fromkeys(tile for row in tiles.values() for part in row for tile in part)
    ]


def suits(tiles):
    """Whether a schedule is the table's for a launch, on this chip; where programs run one by one, every schedule is."""

    def suit(config, given):
        if not AT_ONCE:
            return True
        size, width = min(4, given["q"].element_size()), max(64, given["BLOCK_D"], given["BLOCK_E"])
        everywhere, large, *others = tiles.get((size, width), ([], []))  # wider heads have none
        tile = config.kwargs["BLOCK_M"], config.kwargs["BLOCK_N"], config.num_warps, config.num_stages
        return tile in everywhere or any(tile in part for part in ([large] if chip().roomy else others))

    return suit


KEY = ("M", "S", "D", "E", "H", "CAUSAL")


@triton.jit
def may_attend(mask, m, n, M, S, stride_m, stride_s, CAUSAL: tl.constexpr):
    """Whether queries m may attend to keys n, which broadcast against each other."""
    may = n < S
    if CAUSAL:
        may = may & (n <= m)
    if mask is not None:
        may = may & (tl.load(mask + m * stride_m + n * stride_s, mask=(m < M) & (n < S), other=0) != 0)
    return may
