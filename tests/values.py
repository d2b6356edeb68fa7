"""Values: the distributions that a case's arrays are drawn from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec import Format, Operation, format_of

UNDERFLOWS = {
    "dense": ("x", "b"),
    "mse": ("y_hat", "y"),
    "conv2d": ("x",),
    "maxpool2d": ("x",),
    "rnn": ("x", "h0", "b_h", "b_y"),
    "lstm": ("x", "h0", "c0", "b_c"),
    "attention": ("v",),
    "multihead_attention": ("v",),
}
"""The arrays which, tiny together, make the outputs tiny."""


@dataclass(frozen=True)
class Slot:
    """What an array's values are drawn for; `special`: it is the one that huge or tiny values go to."""

    operation: Operation
    name: str
    shape: tuple[int, ...]
    fmt: Format
    special: bool = False


def _normal(rng, slot):
    return rng.standard_normal(slot.shape)


def _integers(rng, slot):
    return rng.integers(-2, 3, slot.shape).astype(float)


def _zeros(rng, slot):
    """Half of the numbers are 0; of one array sometimes all, as states are before the first step."""
    x = rng.standard_normal(slot.shape) * (rng.random(slot.shape) < 0.5)
    return 0 * x if slot.special and rng.random() < 0.5 else x


def _offset(rng, slot):
    """One array near ± 1.5 · 2^(p−1), where neighbours are 1 apart (10⁷ in float32): what is not subtracted first is lost.

    Not near a power of two, where the numbers above are twice as far apart as those below and rounding does lean.
    """
    if not slot.special:
        return rng.standard_normal(slot.shape)
    return rng.choice([-1.5, 1.5]) * 2.0 ** (slot.fmt.p - 1) + np.round(3 * rng.standard_normal(slot.shape))


def _scaled(exponent: float) -> Callable[..., np.ndarray]:
    """One array of the call is scaled, by a power of the format's range."""

    def values(rng, slot):
        return rng.standard_normal(slot.shape) * (2.0 ** np.round(exponent * slot.fmt.e_max) if slot.special else 1.0)

    return values


def _small(rng, slot):
    """All arrays small, so that sums are: where a function is its argument, and what is added to 1 is lost."""
    return rng.standard_normal(slot.shape) * 2.0 ** -(slot.fmt.p // 3)


def _close(rng, slot):
    """Arrays of one shape that nearly agree."""
    return np.random.default_rng(0).standard_normal(slot.shape) + 2.0 ** -(slot.fmt.p // 3) * rng.standard_normal(
        slot.shape
    )


def _brim(rng, slot):
    """One array whose sum of squares overflows, while half of it does not, if sums have a wider range; else neither."""
    x, brim = rng.standard_normal(slot.shape), 1.5 if slot.fmt.e_max < format_of("float32").e_max else 0.125
    return x * np.sqrt(brim * slot.fmt.largest / np.sum(x * x)) if slot.special else x


def _far(rng, slot):
    """Arrays so far apart that their difference overflows, if what is between has a wider range; else as far as twice it
    does not."""
    far = slot.fmt.largest * (0.7 if slot.fmt.e_max < format_of("float32").e_max else 0.2)
    side = np.random.default_rng(0).choice([-far, far], slot.shape) * (-1 if slot.special else 1)
    return side * (1 + 0.2 * rng.random(slot.shape))


def _mixed(rng, slot):
    """Magnitudes over a factor of 10⁶, of 64 in 16 bits."""
    exponent = 10 if slot.fmt.p >= 24 else 3
    return rng.standard_normal(slot.shape) * 2.0 ** rng.integers(-exponent, exponent + 1, slot.shape)


def _cancelling(rng, slot):
    """± 1 but for a small part: sums cancel to what the small parts leave.

    The product of two small parts is many units in the last place: at less than one, the rounding errors of all products
    with one weight would lean one way.
    """
    return np.sign(rng.standard_normal(slot.shape)) * (1 + 2.0 ** -(slot.fmt.p // 3) * rng.standard_normal(slot.shape))


def _faint(rng, slot):
    """What comes out lies about the smallest normal number, down to half of the digits that are left below it."""
    x, fmt = rng.standard_normal(slot.shape), slot.fmt
    if slot.operation.name == "softmax":  # e^x does
        return x - rng.random(slot.shape) * -np.log(fmt.smallest_normal * 2.0 ** -(fmt.p // 2))
    if slot.name not in UNDERFLOWS[slot.operation.name]:
        return x
    exponent = fmt.e_min - rng.integers(fmt.p // 2)
    return x * 2.0 ** (exponent // 2 if slot.operation.name == "mse" else exponent)


def _lowest(rng, slot):
    """Rows, or scores, so negative that 0, -10⁴ or -10³⁰ is no bound from below; they differ by a few, where they can."""
    fmt, x = slot.fmt, rng.standard_normal(slot.shape)
    if slot.operation.name == "softmax":
        low = rng.uniform(4.3, np.log10(fmt.largest / 2))
        return -(10.0**low) * (1 + 2.0 ** (1 - fmt.p) * np.rint(3 * x * max(1.0, 10.0**-low * 2.0 ** (fmt.p - 1))))
    if slot.name == "v":
        return x
    scores = 2e4 / np.sqrt(np.sqrt(slot.shape[-1]))
    return np.sqrt(scores) * (1 + 2.0 ** -min(fmt.p - 3, 12) * x) * (1 if slot.name == "q" else -1)


VALUES: dict[str, Callable[..., np.ndarray]] = {
    "normal": _normal,
    "integers": _integers,
    "negative": lambda rng, slot: -np.abs(rng.standard_normal(slot.shape)) - 0.5,
    "ties": lambda rng, slot: rng.choice([-1.5, -0.5, 0.5], slot.shape),
    "large": lambda rng, slot: rng.standard_normal(slot.shape) * (30.0 if slot.special else 1.0),
    "saturating": lambda rng, slot: 2 * rng.standard_normal(slot.shape),
    "zeros": _zeros,
    "cancelling": _cancelling,
    "mixed": _mixed,
    "offset": _offset,
    "tiny": _scaled(-0.4),
    "huge": _scaled(0.3),
    "small": _small,
    "close": _close,
    "brim": _brim,
    "far": _far,
    "faint": _faint,
    "lowest": _lowest,
    "loud": _normal,
    "quiet": _normal,
}
"""Distributions of values; the first is what a failing case shrinks to."""


COTANGENTS: dict[str, Callable[..., np.ndarray]] = {
    "integers": _integers,
    "zeros": VALUES["zeros"],
    "loud": _scaled(0.5),
    "quiet": _scaled(-0.7),
    "far": _scaled(-0.2),
}
"""How cotangents are drawn, where not as normal numbers: beside a loss that is scaled, say."""


FLAT = ("huge", "offset", "large")
"""Where sigmoid, tanh and softmax are constant."""

STEEP_SCORES = (*FLAT, "mixed", "saturating")
"""What projections would turn into logits so large that the rounding of the projections decides between them."""

OF_DIFFERENCES = ("close", "brim", "far")
"""Of differences, and the sum of their squares."""

OF_SCORES = ("lowest",)
"""Of what is exponentiated."""

OF_COTANGENTS = ("loud", "quiet")
"""Of what is no function's value."""

OF_TANH = ("small",)
"""Of what has a function that is its argument near 0."""

DISCRETE = ("offset",)
"""Where a difference takes a dozen values, whose squares' rounding errors are copies of one another."""

EXPLOSIVE = ("saturating", "large", "huge", "mixed")
"""What an unbounded recurrence would carry out of every format."""


def telling(operation: Operation, parameters: Mapping[str, Any], steep: bool) -> list[str]:
    """The distributions that say something of the operation, given its activation."""
    activation = parameters.get("activation")
    without: tuple[str, ...] = DISCRETE if operation.name == "mse" else OF_DIFFERENCES
    if operation.name not in ("softmax", "attention"):
        without += OF_SCORES
    if not steep:
        without += OF_COTANGENTS
    if activation == "sigmoid":
        without += ("faint",)
    if activation != "tanh" and operation.name != "lstm":
        without += OF_TANH
    if operation.name == "multihead_attention":
        without += STEEP_SCORES
    elif operation.recurrent and activation in ("identity", "relu"):
        without += EXPLOSIVE
    elif steep and (operation.name in ("softmax", "lstm", "attention") or activation in ("sigmoid", "tanh")):
        without += FLAT
    return [v for v in (*VALUES, *(3 * OF_TANH if activation == "tanh" else ())) if v not in without]
