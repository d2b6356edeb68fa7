"""What the laws say: each an identity between calls of an operation, written once for every number system.

A law is given run(*arrays, **parameters), which returns the outputs as a tuple (run(…, of="name") those of another
operation), and yields per output its name and two sides: a result, or a list of (integer factor, result) to be added up.
What it does to inputs, and to results between calls, rounds nothing: it permutes, cuts, joins, and adds numbers on a
grid that their sums are on, too. Its docstring is what a failure prints.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..spec import OPERATIONS, Format, Operation, format_of
from ..spec.arithmetic import round_to
from .cases import Case

Run = Callable[..., tuple[Any, ...]]
Side = Any  # an array of the number system, or [(factor, array), …]
Sides = Iterator[tuple[str, Side, Side]]


@dataclass(frozen=True)
class Given:
    """A case's arrays, as float64, and whatever else a law may draw; the same in each evaluation of the case."""

    operation: Operation
    arrays: tuple[np.ndarray, ...]
    cotangents: tuple[np.ndarray, ...]
    parameters: dict[str, Any]
    fmt: Format
    rng: np.random.Generator

    @classmethod
    def of(cls, case: Case, dtype: str) -> "Given":
        drawn = case.draw(dtype)
        arrays, cotangents = (tuple(a.astype(np.float64) for a in some) for some in (drawn.arrays, drawn.cotangents))
        rng = np.random.default_rng([case.seed, 3])
        return cls(case.operation, arrays, cotangents, drawn.parameters, format_of(dtype), rng)


def rows_sum_to_one(run: Run, given: Given) -> Sides:
    """Σⱼ softmax(x)ⱼ = 1"""
    (p,) = run(*given.arrays)
    yield "Σ p", [(1, p[:, j]) for j in range(p.shape[1])], np.ones(p.shape[0])


def ignores_shifts(run: Run, given: Given) -> Sides:
    """softmax(x + c) = softmax(x), for one c per row"""
    bits = given.fmt.p // 2
    (x,), step = _on_a_grid(bits, *given.arrays)
    room = 2**given.fmt.p - 2**bits
    c = step * given.rng.integers(-room, room + 1, (len(x), 1))
    yield "p", run(x + c)[0], run(x)[0]


def linear_in_x(run: Run, given: Given) -> Sides:
    """conv(x + z, w) = conv(x, w) + conv(z, w)"""
    x, w = given.arrays
    x, z = _addends(given, x)
    parts = run(x, w, **given.parameters)[0], run(z, w, **given.parameters)[0]
    yield "y", run(x + z, w, **given.parameters)[0], [(1, part) for part in parts]


def linear_in_w(run: Run, given: Given) -> Sides:
    """conv(x, w + z) = conv(x, w) + conv(x, z)"""
    x, w = given.arrays
    w, z = _addends(given, w)
    parts = run(x, w, **given.parameters)[0], run(x, z, **given.parameters)[0]
    yield "y", run(x, w + z, **given.parameters)[0], [(1, part) for part in parts]


def moves_with_x(run: Run, given: Given) -> Sides:
    """x less its first `stride` pixels gives y less its first, wherever no window reaches into the padding before them"""
    x, w = given.arrays
    moved, before, after = [slice(None)], [slice(None)], [slice(None)]
    for size, kernel, stride, padding, dilation in axes_of(x.shape, w.shape, given.parameters):
        first = -(-padding // stride)
        can = moves(size, kernel, stride, padding, dilation)
        moved.append(slice(stride if can else 0, None))
        before.append(slice(first + 1 if can else 0, None))
        after.append(slice(first if can else 0, None))
    y, of_moved = (run(image, w, **given.parameters)[0] for image in (x, x[tuple(moved)]))
    yield "y", of_moved[tuple(after)], y[tuple(before)]


def commutes_with_monotone_maps(run: Run, given: Given) -> Sides:
    """pool(φ(x)) = φ(pool(x)), φ being any that does not decrease, on stored values"""
    (x,) = given.arrays
    levels = np.unique(x)
    images = np.sort(round_to(3 * given.rng.standard_normal(levels.size), given.fmt))

    def phi(v):
        n = np.minimum(np.searchsorted(levels, v), levels.size - 1)
        return np.where(levels[n] == v, images[n], np.nan)

    yield "y", run(phi(x), **given.parameters)[0], phi(run(x, **given.parameters)[0])


def commutes_with_nan(run: Run, given: Given) -> Sides:
    """pool(x with NaN) is NaN where pool finds one, and pool(x) elsewhere"""
    (x,) = given.arrays
    is_nan = given.rng.random(x.shape) < 0.1
    found = run(is_nan.astype(np.float64), **given.parameters)[0]
    y = run(x, **given.parameters)[0]
    yield "y", run(np.where(is_nan, np.nan, x), **given.parameters)[0], np.where(found > 0, np.nan, y)


def rnn_steps_chain(run: Run, given: Given) -> Sides:
    """T₁ + T₂ steps are T₁ steps, and T₂ from the state after them"""
    x, h0, *weights = given.arrays
    t = int(given.rng.integers(1, len(x)))
    y, h = run(x, h0, *weights, **given.parameters)
    y1, h1 = run(x[:t], h0, *weights, **given.parameters)
    y2, h2 = run(x[t:], h1[-1], *weights, **given.parameters)
    yield "y", y, np.concatenate([y1, y2])
    yield "h", h, np.concatenate([h1, h2])


def lstm_steps_chain(run: Run, given: Given) -> Sides:
    """T₁ + T₂ steps are T₁ steps, and T₂ from the two states after them"""
    x, h0, c0, *weights = given.arrays
    t = int(given.rng.integers(1, len(x)))
    h, c_T = run(*given.arrays)
    h1, c1 = run(x[:t], h0, c0, *weights)
    h2, c2 = run(x[t:], h1[-1], c1, *weights)
    yield "h", h, np.concatenate([h1, h2])
    yield "c_T", c_T, c2


def permutes_with_queries(run: Run, given: Given) -> Sides:
    """queries in another order, and the mask's rows with them, give the same rows in that order"""
    q, k, v = given.arrays
    order = given.rng.permutation(q.shape[2])
    permuted = run(q[:, :, order], k, v, **_masked(given.parameters, lambda mask: mask[:, :, order]))[0]
    yield "y", permuted, run(q, k, v, **given.parameters)[0][:, :, order]


def ignores_the_order_of_keys(run: Run, given: Given) -> Sides:
    """pairs of key and value in another order, and the mask's columns with them, give the same"""
    q, k, v = given.arrays
    order = given.rng.permutation(k.shape[2])
    permuted = _masked(given.parameters, lambda mask: mask[..., order])
    yield "y", run(q, k[:, :, order], v[:, :, order], **permuted)[0], run(q, k, v, **given.parameters)[0]


def one_key_returns_its_value(run: Run, given: Given) -> Sides:
    """a query with one key, be it the only one or the only one that its mask leaves, returns the key's value"""
    q, k, v = given.arrays
    yield "y", run(q, k[:, :, :1], v[:, :, :1])[0], np.repeat(v[:, :, :1], q.shape[2], axis=2)
    if "mask" in given.parameters:
        chosen = given.rng.integers(k.shape[2], size=(q.shape[2], 1))
        mask = np.arange(k.shape[2]) == chosen
        yield "y", run(q, k, v, mask=mask[None, None])[0], v[:, :, chosen[:, 0]]


def causal_is_a_mask(run: Run, given: Given) -> Sides:
    """causal=True is the mask of all keys that are not ahead, beside the mask that is given"""
    triangle = np.tri(given.arrays[0].shape[2], dtype=bool)[None, None]
    mask = given.parameters.get("mask", np.ones_like(triangle))
    yield (
        "y",
        run(*given.arrays, **{**given.parameters, "causal": True})[0],
        run(*given.arrays, mask=mask & triangle)[0],
    )


def one_head_is_attention(run: Run, given: Given) -> Sides:
    """one head with identities for its four projections is attention"""
    q, k, v = given.arrays[:3]
    one = np.eye(q.shape[2])
    parameters = _masked(given.parameters, lambda mask: mask[:, :1])
    heads = run(q[:, None], k[:, None], v[:, None], of="attention", **parameters)[0]
    yield "y", run(q, k, v, one[None], one[None], one[None], one, **parameters)[0], heads[:, 0]


def batch_is_independent(run: Run, given: Given) -> Sides:
    """a batch in two parts gives the parts of the result, or adds up to it where the result has no batch"""
    op, letter = given.operation, batch_letter(given.operation)
    cut = int(given.rng.integers(1, batch_size(op, given.arrays)))
    parts = []
    for part in (slice(0, cut), slice(cut, None)):
        arrays, parameters = part_of(op, given.arrays, given.parameters, part)
        parts.append(run(*arrays, **parameters))
    whole = run(*given.arrays, **given.parameters)
    for name, y, first, second in zip(op.outputs, whole, *parts, strict=True):
        if letter in op.outputs[name].split():
            yield name, y, np.concatenate([first, second], axis=op.outputs[name].split().index(letter))
        else:
            yield name, y, [(1, first), (1, second)]


def vjp_is_linear(run: Run, given: Given) -> Sides:
    """vjp(c₁ + c₂) = vjp(c₁) + vjp(c₂), c being the cotangents of all outputs"""
    pairs = [_addends(given, c) for c in given.cotangents]
    first, second = zip(*pairs, strict=True)
    sides = [run(*given.arrays, *c, **given.parameters) for c in ([a + b for a, b in pairs], first, second)]
    for name, of_both, *parts in zip(given.operation.arrays, *sides, strict=True):
        yield "d" + name, of_both, [(1, part) for part in parts]


def _addends(given: Given, array: np.ndarray) -> list[np.ndarray]:
    """The array and another, both rounded so that their sum is of the format, too."""
    return _on_a_grid(given.fmt.p - 1, array, given.rng.standard_normal(array.shape))[0]


def _on_a_grid(bits: int, *arrays: np.ndarray) -> tuple[list[np.ndarray], float]:
    """The arrays in multiples, 2^bits of them at most, of a power of two; and that."""
    largest = max(float(np.max(np.abs(a), initial=0.0)) for a in arrays) or 1.0
    step = 2.0 ** (np.ceil(np.log2(largest)) - bits)
    return [np.rint(a / step) * step for a in arrays], step


def _masked(parameters: dict[str, Any], change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    return {k: change(v) if k == "mask" else v for k, v in parameters.items()}


def axes_of(image, kernel, parameters) -> Iterator[tuple[int, int, int, int, int]]:
    """Per axis: size, kernel, stride, padding, dilation."""
    defaults = OPERATIONS["conv2d"].defaults
    keywords = [parameters.get(name, defaults[name]) for name in ("stride", "padding", "dilation")]
    return zip(image[1:3], kernel[:2], *keywords, strict=True)


def moves(size: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    """Whether something is left, of the image and of what it gives clear of the padding."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return size > stride and outputs > -(-padding // stride) + 1


def can_move(case: Case) -> bool:
    sizes = case.sizes
    image, kernel = (0, sizes["H"], sizes["W"]), (sizes["kH"], sizes["kW"])
    return any(moves(*axis) for axis in axes_of(image, kernel, case.parameters))


def batch_letter(operation: Operation) -> str:
    """The letter of the batch."""
    return "B" if "B" in next(iter(operation.arrays.values())) else "N"


def batch_size(operation: Operation, arrays) -> int:
    letter = batch_letter(operation)
    return next(
        a.shape[s.split().index(letter)]
        for a, s in zip(arrays, operation.arrays.values(), strict=True)
        if letter in s.split()
    )


def part_of(operation: Operation, arrays, parameters: dict[str, Any], part: slice) -> tuple[list, dict[str, Any]]:
    """The arrays and the parameters of a part of the batch."""
    letter, size = batch_letter(operation), batch_size(operation, arrays)
    parts = [
        a[(slice(None),) * s.split().index(letter) + (part,)] if letter in s.split() else a
        for a, s in zip(arrays, operation.arrays.values(), strict=True)
    ]
    return parts, _masked(parameters, lambda mask: mask[part] if len(mask) == size else mask)
