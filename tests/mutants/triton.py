"""Mutants of the Triton kernels: one change to a kernel's source, for the interpreter."""

from ...impls import Backend
from ..planted import Planted

PLANTS: list[Planted] = []


def mutant(
    operation: str,
    name: str,
    says: str,
    *changes: tuple[str, str],
    direction: str = "forward",
    property_: str = "",
    dtype: str = "float32",
    file: str | None = None,
) -> None:
    """Plants the changes (old, new) to kernels/<operation>.py, or to a file that it imports its kernels from."""

    def make() -> Backend:
        from ..planted_kernels import planted_kernel  # where Triton is missing, the other mutants are still there

        return planted_kernel(operation, *changes, dtypes=(dtype,), file=file)

    PLANTS.append(
        Planted(f"kernel_{name}", operation, direction, property_ or direction, dtype, says, make, base="triton")
    )


mutant("dense", "tail_of_k_is_unmasked", "triton#630", ("+ k < K\n", "+ k < K + BLOCK_K\n"))
mutant(
    "dense", "stride_is_ignored", "pytorch#46764: the weight's columns are taken for neighbours.",
    ("+ n[None, :] * stride_bn", "+ n[None, :]"), property_="layout",
)  # fmt: skip
mutant(
    "dense", "last_row_is_not_written", "FA#1778: the store's mask ends one row early.",
    ("in_m, in_n = m < M, n < N", "in_m, in_n = m < M - 1, n < N"),
)  # fmt: skip
mutant(
    "dense", "accumulator_in_float16", "Sums are kept in float16, under a claim of float32.",
    ("PRECISION, out_dtype=ACC)", "PRECISION, out_dtype=ACC).to(tl.float16).to(ACC)"), dtype="float16",
)  # fmt: skip
mutant(
    "dense", "last_part_of_k_is_not_added", "Split K: the reduction leaves out a part.",
    ("for _ in range(SPLIT):", "for _ in range(SPLIT - 1):"),
)  # fmt: skip
mutant(
    "dense", "derivative_without_the_cotangent", "φ′ is not multiplied by dy.",
    ("y = tl.where(inside, d * derivative(y, ACTIVATION), 0.0)",
     "y = tl.where(inside, derivative(y, ACTIVATION), 0.0)"), direction="gradient",
)  # fmt: skip
mutant(
    "softmax", "no_maximum_is_subtracted", "pytorch#62897, in the kernel of whole rows.",
    ("tl.exp(z - tl.max(z, axis=1)[:, None])", "tl.exp(z)"),
)  # fmt: skip
mutant(
    "softmax", "padding_counts", "The lanes beyond a row's end are summed, too.",
    ("e = tl.where(inside, tl.exp(z - tl.max(z, axis=1)[:, None]), 0.0)",
     "e = tl.exp(tl.where(inside, z - tl.max(z, axis=1)[:, None], -9.0))"),
)  # fmt: skip
mutant(
    "softmax", "stride_of_the_cotangent", "pytorch#619: dp is read with x's strides.",
    ("d = tl.load(dp + n[:, None] * stride_dn + m[None, :] * stride_dm",
     "d = tl.load(dp + n[:, None] * stride_xn + m[None, :] * M // M"), direction="gradient", property_="layout",
)  # fmt: skip
mutant(
    "softmax", "exponentials_in_float16", "Rounded before they are summed, under a claim of float32.",
    ("p = e / tl.sum(e, axis=1)[:, None]", "e = e.to(tl.float16).to(ACC)\n    p = e / tl.sum(e, axis=1)[:, None]"),
)  # fmt: skip
mutant(
    "mse", "half_is_lost_in_the_second_launch", "Halved where the differences are squared, and where sums are added.",
    ("        total += d\n", "        total += d if b is not None else d * 0.5\n"),
)  # fmt: skip
mutant(
    "mse", "last_element_is_left_out", "The mask ends one element early.",
    ("step * BLOCK + tl.arange(0, BLOCK)\n        inside = index < size\n",
     "step * BLOCK + tl.arange(0, BLOCK)\n        inside = index < size - 1\n"),
)  # fmt: skip
mutant(
    "mse", "sign_of_dy", "Both gradients are dL (ŷ − y).",
    ("(-d).to(dy.dtype.element_ty)", "d.to(dy.dtype.element_ty)"), direction="gradient",
)  # fmt: skip
mutant(
    "mse", "row_stride_is_ignored", "Rows are taken to follow one another without a gap.",
    ("d = tl.load(y_hat + n * stride_hn + o * stride_ho", "d = tl.load(y_hat + n * width * stride_ho + o * stride_ho"),
    direction="gradient", property_="layout",
)  # fmt: skip
mutant(
    "conv2d", "dilation_of_the_other_axis", "Taps of a row lie as far apart as the rows do.",
    ("        down, right = r * dilation_h, s * dilation_w\n", "        down, right = r * dilation_h, s * dilation_h\n"),
)  # fmt: skip
mutant(
    "conv2d", "right_edge_is_one_pixel_further", "What is beyond it is the next row's first pixel.",
    ("(v >= 0) & (v < W)", "(v >= 0) & (v <= W)"),
)  # fmt: skip
mutant(
    "conv2d", "last_pixel_of_a_part", "∂L/∂w: the walk over the pixels of y ends one early.",
    ("in_p = p < end\n", "in_p = p < end - 1\n"), direction="gradient",
)  # fmt: skip
mutant(
    "conv2d", "first_tap_of_a_phase", "∂L/∂x: no inverse of the dilation, which shows only where it and the stride exceed 1.",
    ("first = residue // g * inverse % apart", "first = residue // g % apart"), direction="gradient",
)  # fmt: skip
mutant(
    "maxpool2d", "columns_are_taken_for_neighbours", "The image's rows are read as if no pixel were left out of them.",
    ("offset // kW * stride_xh + offset % kW * stride_xw", "offset // kW * stride_xh + offset % kW * C * stride_xc"),
    property_="layout",
)  # fmt: skip
mutant(
    "maxpool2d", "last_maximum_wins", "≥ for > in the forward pass that the gradient makes.",
    ("better = (value.to(ACC) > best.to(ACC))", "better = (value.to(ACC) >= best.to(ACC))"), direction="gradient",
)  # fmt: skip
mutant(
    "maxpool2d", "last_row_of_windows", "A pixel gathers from none of them: a bound that ends one early.",
    ("window = (i >= 0) & (i < oH)", "window = (i >= 0) & (i < oH - 1)"), direction="gradient",
)  # fmt: skip
mutant(
    "attention", "sum_is_not_rescaled", "The output is, where the maximum grows.",
    ("total = total * shrink + tl.sum(p, axis=1)", "total = total + tl.sum(p, axis=1)"),
)  # fmt: skip
mutant(
    "attention", "weights_in_float16", "For the product with v, under a claim of float32.",
    ("acc = tl.dot(p.to(v_tile.dtype), v_tile,", "acc = tl.dot(p.to(tl.float16).to(v_tile.dtype), v_tile,"),
)  # fmt: skip
mutant(
    "attention", "diagonal_is_left_out", "n < m: the first query may attend to nothing.",
    ("may = may & (n <= m)", "may = may & (n < m)"), file="scores",
)  # fmt: skip
mutant(
    "attention", "dk_without_the_row_sum", "Σ y dy is subtracted for dq alone.",
    ("ds = (p * (dp - inner[None, :]))", "ds = (p * dp)"), direction="gradient", file="attention_backward",
)  # fmt: skip
mutant(
    "attention", "dq_is_not_scaled", "dk is divided by √D, dq is not.",
    ("(dq_tile * SCALE)", "dq_tile"), direction="gradient", file="attention_backward",
)  # fmt: skip
mutant(
    "multihead_attention", "heads_are_interleaved", "Concat runs over the heads first.",
    ("return heads.transpose(1, 2).flatten(2)", "return heads.transpose(1, 2).transpose(2, 3).flatten(2)"),
)  # fmt: skip
mutant(
    "multihead_attention", "recomputed_without_the_mask", "L and Δ are of all keys, the weights of those allowed.",
    ("L, delta = attend(Q, K, V, mask, causal, y=A, dy=dA)", "L, delta = attend(Q, K, V, None, causal, y=A, dy=dA)"),
    direction="gradient",
)  # fmt: skip
mutant(
    "rnn", "state_before_is_stale", "Alone, a program multiplies the first state again and again.",
    ('before = rounded if MODE == "alone" else states', 'before = before if MODE == "alone" else states'),
)  # fmt: skip
mutant(
    "rnn", "last_step_has_a_later_one", "Back through time begins with 1 where nothing comes from later.",
    ("d += tl.where(step > 0, later, 0.0)", "d += tl.where(step > 0, later, 1.0)"), direction="gradient",
)  # fmt: skip
mutant(
    "lstm", "gates_are_swapped", "Forget for input.",
    ("f, i, g, o = sigmoid(f), sigmoid(i), tanh(g), sigmoid(o)", "f, i, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)"),
)  # fmt: skip
mutant(
    "lstm", "sum_of_i_and_g", "torchrecurrent#22: i + g instead of i·g.", ("c = f * c + i * g", "c = f * c + (i + g)"),
)  # fmt: skip
mutant(
    "lstm", "cell_before_is_the_cell", "The forget gate's gradient with c_t for c_{t−1}.",
    ("dC * C_before * (f * (1.0 - f))", "dC * C * (f * (1.0 - f))"), direction="gradient",
)  # fmt: skip
mutant(
    "lstm", "initial_cell_gradient_lacks_a_gate", "Only for the first step: dc0 is not multiplied by f.",
    ("        dC *= f\n", "        dC = tl.where(step < T - 1, dC * f, dC)\n"), direction="gradient",
)  # fmt: skip
