"""Kernel bugs, each one change to a correct kernel, and the lane that must catch it.

In the interpreter programs run one after another and stray loads pass silently: races and accesses out of bounds are
for the sanitizer, and are shown to pass unnoticed here. What needs products in bfloat16 is the sanitizer's, too.
"""

from dataclasses import dataclass

import pytest

from opspec import OPERATIONS
from opspec.kernels import LANE
from opspec.tests.conformance import Cell, Runner
from opspec.tests.planted_kernels import planted_kernel

pytestmark = pytest.mark.skipif(LANE not in ("interpreter", "sanitizer"), reason="for the lanes that need no GPU")
RAGGED = {  # what the sanitizer is given: each new shape would cost it a compilation
    "dense": "N=130 I=33 O=70",
    "conv2d": "N=1 H=7 W=8 C=19 kH=3 kW=2 O=17 stride=2x1 padding=1x2 dilation=1x2",
    "maxpool2d": "N=1 H=7 W=6 C=19 window=3x2 stride=2x1 seed=8",
    "rnn": "T=3 N=5 I=3 H=17 O=3",
    "lstm": "T=2 N=18 I=3 H=17",
    "attention": "B=1 H=2 M=150 S=150 D=17 E=16 causal=True mask=empty_rows:1:1",
}


@dataclass(frozen=True)
class Bug:
    name: str
    operation: str
    property: str
    changes: tuple[tuple[str, str], ...]
    reason: str = ""  # what the verdict says
    lane: str = "interpreter"  # the first that sees it
    dtype: str = "float32"
    file: str | None = None  # where it is planted, if not in the operation's own
    case: str | None = None  # the one to judge, where few would show it

    def __str__(self) -> str:
        return self.name


BUGS = [
    Bug("tail_of_k_unmasked", "dense", "forward", (("+ k < K", "+ k < K + BLOCK_K"),)),
    Bug("stride_ignored", "dense", "layout", (("+ n[None, :] * stride_bn", "+ n[None, :]"),)),
    Bug("output_row_unwritten", "dense", "forward", (("in_m, in_n = m < M, n < N", "in_m, in_n = m < M - 1, n < N"),)),
    Bug(
        "accumulator_in_bfloat16",
        "dense",
        "forward",
        (("PRECISION, out_dtype=ACC)", "PRECISION, out_dtype=ACC).to(tl.bfloat16).to(ACC)"),),
        lane="sanitizer",
        dtype="bfloat16",
    ),
    Bug(
        "out_of_bounds_load",
        "dense",
        "forward",
        (("tl.load(bias + n * stride_bias, mask=n < N, other=0.0)", "tl.load(bias + n * stride_bias)"),),
        reason="past the end of the tensor passed as `bias`",
        lane="sanitizer",
    ),
    Bug(
        "race_on_a_gradient",
        "dense",
        "gradient",
        (
            (
                "out = empty((strips, N), accumulator(a.dtype) if strips > 1 else (dtype or a.dtype), a.device)",
                "out = torch.zeros((1, N), dtype=accumulator(a.dtype) if strips > 1 else (dtype or a.dtype), device=a.device)",
            ),
            ("tl.store(out + strip * N + n, tl.sum(", "tl.store(out + n, tl.load(out + n, mask=in_n) + tl.sum("),
        ),
        reason="program instances",
        lane="sanitizer",
    ),
    Bug(
        "last_channels_unmasked",
        "conv2d",
        "forward",
        (("inside = c < C", "inside = c < blocks * BLOCK_K"), ("k < taps * C", "k < taps * C + BLOCK_K")),
    ),
    Bug("stride_ignored_by_convolution", "conv2d", "layout", (("(n * stride_wo)[None, :]", "n[None, :]"),)),
    Bug(
        "padding_mixed_with_dilation",
        "conv2d",
        "forward",
        (("- padding_w\n    x_rows", "- padding_w * dilation_w\n    x_rows"),),
    ),
    Bug("output_pixel_unwritten", "conv2d", "forward", (("in_m, in_n = image < N", "in_m, in_n = (image < N) & (m > 0)"),)),
    Bug("strided_gradient_ignores_padding", "conv2d", "gradient", (("(a + padding) % stride", "a % stride"),)),
    Bug(
        "out_of_bounds_load_of_weights",
        "conv2d",
        "forward",
        (("inside = in_k[:, None] & in_n[None, :]\n        w_tile", "inside = in_k[:, None]\n        w_tile"),),
        reason="past the end of the tensor passed as `w`",
        lane="sanitizer",
    ),
    Bug("off_by_one_in_the_gather", "maxpool2d", "gradient", (("tl.cdiv(kH, stride_h)", "(kH // stride_h)"),)),
    Bug(
        "last_window_wins",
        "maxpool2d",
        "gradient",
        (("total += tl.where(kept == (r * kW + s)[:, None], d.to(ACC), 0.0)",
          "total = tl.where(kept == (r * kW + s)[:, None], d.to(ACC), total)"),),
    ),
    Bug(
        "maximum_from_lowest_number_drops_nan",
        "maxpool2d",
        "special",
        (
            ("best = tl.load(tile, mask=inside, other=0.0)", "best = tl.full((BLOCK_M, BLOCK_C), -3.4e38, ACC)"),
            ("tl.range(1, kH * kW", "tl.range(0, kH * kW"),
            ("> best.to(ACC)) | is_nan", "> best.to(ACC))"),
        ),
    ),
    Bug(
        "out_of_bounds_load_of_taps",
        "maxpool2d",
        "gradient",
        (("mask=contains, other=-1", "mask=inside, other=-1"),),
        reason="of the tensor passed as `taps`",
        lane="sanitizer",
    ),
    Bug("mask_broadcast_ignored", "attention", "forward", ((".expand(B, H, M, S)", ""),), file="scores"),
    Bug(
        "tail_of_keys_unmasked",
        "attention",
        "forward",
        (("may = n < S", "may = n >= 0"),),
        file="scores",
        case="B=1 H=1 M=5 S=37 D=17 E=16",  # not causal, which hides what lies behind the last key
    ),
    Bug("masked_row_gives_mean_of_v", "attention", "forward", (('where(may, s, -float("inf"))', "where(may, s, -1e30)"),)),
    Bug(
        "rescale_dropped_for_the_last_blocks",
        "attention",
        "forward",
        (("acc = acc * shrink[:, None]", "acc = acc if CHECKED else acc * shrink[:, None]"),),
    ),
    Bug(
        "maximum_starts_at_0",
        "attention",
        "forward",
        (("largest = tl.full((BLOCK_M,), -float(\"inf\"), ACC)", "largest = tl.full((BLOCK_M,), 0.0, ACC)"),),
        case="B=1 H=2 M=5 S=3 D=17 E=16 values=huge",
    ),
    Bug(
        "backward_ignores_causal",
        "attention",
        "gradient",
        (("n[:, None], M, S, stride_mask_m, stride_mask_s, CAUSAL", "n[:, None], M, S, stride_mask_m, stride_mask_s, False"),),
        file="attention_backward",
    ),
    Bug(
        "gradient_accumulated_in_bfloat16",
        "attention",
        "gradient",
        (("dv_tile, input_precision=PRECISION, out_dtype=ACC)", "dv_tile, out_dtype=ACC).to(tl.bfloat16).to(ACC)"),),
        lane="sanitizer",
        dtype="bfloat16",
        file="attention_backward",
        case="B=1 H=1 M=3000 S=5 D=8 E=16",
    ),
    Bug(
        "mask_read_out_of_bounds",
        "attention",
        "forward",
        (("n * stride_s, mask=(m < M) & (n < S), other=0)", "n * stride_s)"),),
        reason="past the end of the tensor passed as `mask`",
        lane="sanitizer",
        file="scores",
    ),
    Bug("initial_state_ignored", "rnn", "forward", (("    states[0] = h0\n", "    states[0] = 0\n"),)),
    Bug("gradient_from_the_last_step_dropped", "rnn", "gradient", (("where(step > 0, later", "where(step > 1, later"),)),
    Bug(
        "bias_gradient_of_the_last_step_alone",
        "rnn",
        "gradient",
        (("        total += delta\n", "        total = delta\n"),),
        case="T=3 N=5 I=3 H=15 O=3",  # one launch for all steps
    ),
    Bug("cell_gradient_without_forget_gate", "lstm", "gradient", (("        dC *= f\n", ""),)),
    Bug("gates_swapped", "lstm", "forward", (("    f, g = tl.split(fg)\n", "    g, f = tl.split(fg)\n"),)),
    Bug(
        "weights_loaded_beyond_the_units",
        "rnn",
        "forward",
        (("resident(W, columns, in_u, k, H, stride_wk,", "resident(W, columns, u >= 0, k, H, stride_wk,"),),
        reason="past the end of the tensor passed as `W`",
        lane="sanitizer",
    ),
    Bug(
        "race_on_a_bias_gradient",
        "lstm",
        "gradient",
        (("    sums += tl.program_id(1) * (4 * H) + m\n", "    sums += m\n"),),
        reason="program instances",
        lane="sanitizer",
    ),
]  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_bug(bug: Bug, suite):
    if LANE == "interpreter" and bug.dtype == "bfloat16":
        pytest.skip("products in bfloat16 need the sanitizer: triton#11584")
    backend = planted_kernel(bug.operation, *bug.changes, dtypes=(bug.dtype,), file=bug.file)
    alone = bug.case or (RAGGED[bug.operation] if LANE == "sanitizer" or bug.lane == "sanitizer" else None)
    result = Runner(suite.seed, alone).run(Cell(backend, OPERATIONS[bug.operation], bug.dtype, bug.property))
    if LANE == "interpreter" and bug.lane == "sanitizer":
        assert result.verdict == "pass", f"the interpreter sees it, too: {result.reason}"
    else:
        assert result.verdict in ("fail", "error") and bug.reason in result.reason
