"""Mutants of the convolution."""

import numpy as np

from ...impls import load
from ..planted import Planting
from .coarse import float16, product, tf32

correct = load("numpy").module
mutant = Planting("conv2d")


def contiguous(a):
    """What lies at the array's address, read as if it were C-ordered without gaps."""
    strides = [a.itemsize * int(np.prod(a.shape[n + 1 :])) for n in range(a.ndim)]
    return np.array(np.lib.stride_tricks.as_strided(a, a.shape, strides))


@mutant()
def kernel_is_flipped(x, w, **parameters):
    """Convolution as signal processing has it, not cross-correlation."""
    return correct.conv2d(x, w[::-1, ::-1], **parameters)


@mutant("forward", "layout")
def view_is_taken_for_its_base(x, w, **parameters):
    """To avoid a copy, where the base has the view's shape."""
    base = x.base if isinstance(x.base, np.ndarray) and x.base.shape == x.shape else x
    return correct.conv2d(base, w, **parameters)


@mutant("forward", "layout")
def slices_are_read_as_contiguous(x, w, **parameters):
    """pytorch#18948"""
    return correct.conv2d(contiguous(x), w, **parameters)


@mutant("forward", "layout")
def weight_of_one_channel_is_taken_for_contiguous(x, w, **parameters):
    """pytorch#82060: at C = 1 the weight's strides are ambiguous, and not looked at."""
    return correct.conv2d(x, contiguous(w) if w.shape[2] == 1 else w, **parameters)


@mutant("forward", "layout")
def gaps_between_rows_of_one_channel_are_read(x, w, **parameters):
    """At C = 1 the columns' stride is all that is looked at: an image that is cut out of a larger one passes for whole."""
    packed = x.shape[3] == 1 and x.strides[2] == x.itemsize
    return correct.conv2d(contiguous(x) if packed else x, w, **parameters)


@mutant("gradient", "stateless")
def border_of_the_call_before(x, w, dy, padding=(0, 0), **parameters):
    """The padded image is kept, by its shape: after a call with less padding there are pixels where zeros should be."""
    (N, H, W, C), (top, left) = x.shape, padding
    image = _images.setdefault((N, H + 2 * top, W + 2 * left, C), np.zeros((N, H + 2 * top, W + 2 * left, C), x.dtype))
    image[:, top : top + H, left : left + W] = x
    dx, dw = correct.conv2d_vjp(image, w, dy, **parameters)
    return dx[:, top : top + H, left : left + W], dw


_images: dict = {}


@mutant()
def stride_of_the_rows_for_both_axes(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """stride[0] twice; the result is cut or padded with its last column to the shape that was allocated."""
    y = correct.conv2d(x, w, stride=stride, padding=padding, dilation=dilation)
    wrong = correct.conv2d(x, w, stride=(stride[0], stride[0]), padding=padding, dilation=dilation)
    return wrong[:, :, np.minimum(np.arange(y.shape[2]), wrong.shape[2] - 1)]


@mutant()
def padding_and_dilation_are_mixed(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """onnxruntime#29637: with a dilation, the taps start at −padding · dilation."""
    if dilation == (1, 1) or padding == (0, 0):
        return correct.conv2d(x, w, stride=stride, padding=padding, dilation=dilation)
    shifted = [p * (d - 1) for p, d in zip(padding, dilation, strict=True)]
    moved = np.zeros_like(x)
    moved[:, shifted[0] :, shifted[1] :] = x[:, : x.shape[1] - shifted[0], : x.shape[2] - shifted[1]]
    return correct.conv2d(moved, w, stride=stride, padding=padding, dilation=dilation)


@mutant()
def padding_repeats_the_border(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """Coordinates are clamped instead of masked."""
    framed = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)), mode="edge")
    return correct.conv2d(framed, w, stride=stride, dilation=dilation)


@mutant()
def last_row_of_output_is_not_written(x, w, **parameters):
    """oH is computed without its + 1 where the stride is above 1."""
    y = correct.conv2d(x, w, **parameters)
    if parameters.get("stride", (1, 1))[0] > 1:
        y[:, -1] = 0
    return y


@mutant()
def second_image_is_read_from_the_first(x, w, **parameters):
    """Only for the second batch element: its last row of pixels comes from the image before."""
    x = x.copy()
    x[1:, -1] = x[:-1, -1].copy()
    return correct.conv2d(x, w, **parameters)


@mutant()
def channel_16_of_17_is_left_out(x, w, **parameters):
    """Only at block size + 1: the tail of C."""
    C = x.shape[3]
    return correct.conv2d(x[..., :16], w[:, :, :16], **parameters) if C == 17 else correct.conv2d(x, w, **parameters)


@mutant()
def tf32_operands_declared_float32(x, w, **parameters):
    """cuDNN's default for convolutions in PyTorch."""
    return correct.conv2d(tf32(x), tf32(w), **parameters)


mutant.line(
    "accumulation_truncates",
    "As tensor cores add: every partial sum is rounded towards zero, which no single element shows.",
    ("(columns.reshape(-1, len(rows)) @ rows).reshape(*columns.shape[:3], -1)",
     "product(columns.reshape(-1, len(rows)), rows).reshape(*columns.shape[:3], -1)"),
    product=product,
)  # fmt: skip


@mutant(dtype="float16")
def taps_are_summed_in_float16(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """One product per tap, added up in the storage format, under a claim of float32."""
    y = 0
    for r, s in np.ndindex(w.shape[:2]):
        tap = np.zeros_like(w)
        tap[r, s] = w[r, s]
        y = y + correct.conv2d(x, tap, stride=stride, padding=padding, dilation=dilation)
    return y


mutant.line(
    "weights_are_rounded_to_float16",
    "Transformed weights, as of a Winograd convolution, kept in float16 under float32.",
    ("rows = w.reshape(-1, w.shape[3])\n", "rows = float16(w.reshape(-1, w.shape[3]))\n"),
    float16=float16,
)


@mutant("forward", "special")
def zero_weights_are_skipped(x, w, **parameters):
    """A sparse shortcut by the input: a pixel that is not finite is left out of the sum."""
    return correct.conv2d(np.where(np.isfinite(x), x, 0).astype(x.dtype), w, **parameters)


@mutant("gradient")
def dx_when_strided(x, w, dy, **parameters):
    """mlx#3800: with a stride, rows of dx past the last window's start are left out."""
    dx, dw = correct.conv2d_vjp(x, w, dy, **parameters)
    stride = parameters.get("stride", (1, 1))
    if stride != (1, 1):
        dx[:, (dy.shape[1] - 1) * stride[0] + 1 :] = 0
    return dx, dw


@mutant("gradient")
def dw_ignores_the_stride(x, w, dy, **parameters):
    """burn#1891: x is read at stride 1."""
    dx, dw = correct.conv2d_vjp(x, w, dy, **parameters)
    if parameters.pop("stride", (1, 1)) == (1, 1):
        return dx, dw
    padding = parameters.get("padding", (0, 0))
    whole = correct.conv2d(x, w, **parameters)
    tight = np.zeros_like(whole)
    tight[:, : dy.shape[1], : dy.shape[2]] = dy
    return dx, correct.conv2d_vjp(x, w, tight, padding=padding, dilation=parameters.get("dilation", (1, 1)))[1]


@mutant("gradient")
def dw_is_a_mean_over_positions(x, w, dy, **parameters):
    """cTensor#3: dW scaled by 1 / (B·H·W)."""
    dx, dw = correct.conv2d_vjp(x, w, dy, **parameters)
    return dx, dw / np.float32(np.prod(dy.shape[:3]))


@mutant("gradient")
def dw_of_the_first_image_only(x, w, dy, **parameters):
    """fla#955: dW is corrupt for B > 1."""
    dx, _ = correct.conv2d_vjp(x, w, dy, **parameters)
    return dx, correct.conv2d_vjp(x[:1], w, dy[:1], **parameters)[1]


@mutant("gradient")
def dx_is_shifted_near_the_border(x, w, dy, **parameters):
    """fla#1140: with a padding, the first column of dx is the second's."""
    dx, dw = correct.conv2d_vjp(x, w, dy, **parameters)
    if parameters.get("padding", (0, 0))[1] > 0 and dx.shape[2] > 1:
        dx[:, :, 0] = dx[:, :, 1]
    return dx, dw


mutant.line(
    "overlapping_windows_overwrite_dx",
    "A scatter without addition: the last window that read a pixel wins.",
    ("taps[:, :, :, r, s] += np.matmul(", "taps[:, :, :, r, s] = np.matmul("),
    direction="gradient",
)
mutant.line(
    "dx_takes_the_weight_unflipped",
    "The transposed convolution without turning the kernel.",
    ("np.matmul(delta, w[r, s].T, out=product)", "np.matmul(delta, w[-1 - r, -1 - s].T, out=product)"),
    direction="gradient",
)


@mutant("gradient", "exact")
def last_of_three_channels_of_dx_is_lost(x, w, dy, **parameters):
    """A vector load of four channels with a mask for two, where three are left."""
    dx, dw = correct.conv2d_vjp(x, w, dy, **parameters)
    if dx.shape[-1] % 4 == 3:
        dx[..., -1] = 0
    return dx, dw


@mutant("gradient")
def dw_transposed_where_channels_agree(x, w, dy, **parameters):
    """Gradient in the transposed weight: C = O hides it from every comparison of shapes."""
    dx, dw = correct.conv2d_vjp(x, w, dy, **parameters)
    return dx, dw.swapaxes(2, 3).copy() if w.shape[2] == w.shape[3] else dw


@mutant()
def fast_path_flips_the_kernel(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """3 × 3 at stride 1, the kernel that has a path of its own."""
    fast = w.shape[:2] == (3, 3) and stride == dilation == (1, 1)
    return correct.conv2d(x, w[::-1, ::-1] if fast else w, stride=stride, padding=padding, dilation=dilation)


@mutant()
def right_edge_loses_its_dilated_tap(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    """With a padding and a dilation the last column of outputs is said to end in the padding, whatever the stride."""
    y = correct.conv2d(x, w, stride=stride, padding=padding, dilation=dilation)
    if padding[1] and dilation[1] > 1 and w.shape[1] > 1:
        short = np.concatenate([w[:, :-1], 0 * w[:, -1:]], axis=1)
        y[:, :, -1] = correct.conv2d(x, short, stride=stride, padding=padding, dilation=dilation)[:, :, -1]
    return y


@mutant()
def columns_before_256_lack_their_halo(x, w, **parameters):
    """Wide images are cut in two, and the first part does not read into the second."""
    y = correct.conv2d(x, w, **parameters)
    if y.shape[2] > 256 and w.shape[1] > 1 and not parameters:
        y[:, :, 257 - w.shape[1] : 256] = 0
    return y


@mutant("gradient")
def dw_of_seven_by_seven_is_transposed(x, w, dy, **parameters):
    """The stem of many networks: 7 × 7 at stride 2."""
    dx, dw = correct.conv2d_vjp(x, w, dy, **parameters)
    stem = w.shape[:2] == (7, 7) and parameters.get("stride") == (2, 2)
    return dx, dw.swapaxes(0, 1).copy() if stem else dw
