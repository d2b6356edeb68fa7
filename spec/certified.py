"""Certified numbers: every entry a ball (midpoint ± proved radius) of Arb, through python-flint."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

from .numbers import NumberArray


class Undecided(ArithmeticError):
    """A comparison, at a kink, that balls of this precision cannot decide."""


@dataclass(frozen=True)
class Ball:
    """The true values lie within `radius` of high + low; float64 arrays, low being what high rounded away."""

    high: np.ndarray
    low: np.ndarray
    radius: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.high.shape


class Certified(NumberArray):
    """An object array of arb."""

    def __init__(self, values: np.ndarray):
        self.values = values

    @classmethod
    def exactly(cls, array: Any) -> "Certified":
        """The balls of radius 0 around finite numbers."""
        return cls(_balls(np.asarray(array)))

    def wrap(self, values, *sources):
        return Certified(np.asarray(values, dtype=object))

    def constant(self, number):
        return Certified.exactly(number)

    def raise_to(self, x):
        return x.values if isinstance(x, Certified) else _balls(np.asarray(x))

    def sum(self, axis, keepdims):
        return self.wrap(np.add.reduce(self.values, axis=axis, keepdims=keepdims))

    def max(self, axis, keepdims):
        return self.wrap(_maximum.reduce(self.values, axis=axis, keepdims=keepdims))

    def select(self, where, a, b):
        return self.wrap(np.where(where, self.raise_to(a), self.raise_to(b)))

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__" or kwargs:
            return NotImplemented
        values = [i.values if isinstance(i, Certified) else _balls(np.asarray(i)) for i in inputs]
        if ufunc in _COMPARISONS:
            certainly, certainly_not = _COMPARISONS[ufunc]
            true, false = np.asarray(certainly(*values), bool), np.asarray(certainly_not(*values), bool)
            if not np.all(true | false):
                raise Undecided
            return true
        if ufunc is np.matmul:
            return Certified(_matmul(*values))
        if ufunc is np.maximum:
            return self.wrap(_maximum(*values))
        if ufunc not in _ARITHMETIC:
            return NotImplemented
        return self.wrap(ufunc(*values))

    def ball(self, parts: int = 2) -> Ball:
        """Midpoints in one or two float64 parts, and radii that cover what the parts leave."""
        flat = self.values.reshape(-1)
        high = np.array([float(x) for x in flat])
        low = np.zeros(flat.size)
        if parts == 1:
            radius = np.array([float(x.rad()) for x in flat]) * (1 + 2.0**-20) + np.abs(high) * 2.0**-53 + 5e-324
        else:
            radius = np.zeros(flat.size)
            for n, x in enumerate(flat):
                if np.isfinite(high[n]):
                    rest = x - high[n]
                    low[n] = float(rest)
                    radius[n] = 0.0 if rest == low[n] else np.nextafter(float((rest - low[n]).abs_upper()), np.inf)
        for n in np.flatnonzero(~np.isfinite(high)).tolist():  # beyond float64, or a ball that spans everything
            radius[n] = 0.0 if flat[n].is_finite() else np.inf
        return Ball(*(part.reshape(self.values.shape) for part in (high, low, radius)))


def certify(
    function: Callable[..., Any],
    arrays: Sequence[Any],
    parameters: dict[str, Any],
    enough: Callable[[int, Ball], bool] | None = None,
    bits: int = 128,
    most: int = 1 << 14,
) -> tuple[Ball, ...]:
    """The balls of every output of `function` at exactly these finite arrays.

    The precision starts at `bits` and doubles until every comparison is decided and enough(n, ball), where it is given,
    holds for every output n; a midpoint has one float64 part where that is enough, else two. Raises Undecided where
    `most` bits do not suffice.
    """
    while True:
        try:
            outputs = evaluate(function, arrays, parameters, bits)
            with precision(2 * bits):  # so that splitting a midpoint does not widen it
                for parts in (1, 2) if enough else (2,):
                    balls = tuple(y.ball(parts) for y in outputs)
                    if enough is None or all(enough(n, ball) for n, ball in enumerate(balls)):
                        return balls
        except Undecided:
            pass
        bits *= 2
        if bits > most:
            raise Undecided(f"{most} bits do not decide this case")


def evaluate(function, arrays, parameters, bits: int) -> tuple[Certified, ...]:
    """The outputs of a spec, as a tuple, in balls of this precision; arrays may be Certified already."""
    with precision(bits):
        y = function(*(a if isinstance(a, Certified) else Certified.exactly(a) for a in arrays), **parameters)
    return y if isinstance(y, tuple) else (y,)


@contextmanager
def precision(bits: int) -> Iterator[None]:
    before = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = before


_ball = np.frompyfunc(arb, 1, 1)
_maximum = np.frompyfunc(lambda a, b: a.max(b), 2, 1)
_ARITHMETIC = {np.add, np.subtract, np.multiply, np.divide, np.negative, np.exp, np.log, np.tanh, np.sqrt}
_COMPARISONS = {
    np.greater: (lambda a, b: a > b, lambda a, b: a <= b),
    np.less: (lambda a, b: a < b, lambda a, b: a >= b),
    np.equal: (lambda a, b: (a <= b) & (a >= b), lambda a, b: (a < b) | (a > b)),
}


def _balls(array: np.ndarray) -> np.ndarray:
    if array.dtype == object:
        return array
    if array.dtype.kind not in "iu":
        array = array.astype(np.float64)  # exact for every format
    return np.asarray(_ball(array.astype(object)), dtype=object)


def _matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if b.ndim == 2 and a.ndim > 2:
        return _matmul(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, batch + a.shape[-2:]), np.broadcast_to(b, batch + b.shape[-2:])
    product = np.empty((*batch, a.shape[-2], b.shape[-1]), dtype=object)
    for i in np.ndindex(*batch):
        product[i] = np.array((arb_mat(a[i].tolist()) * arb_mat(b[i].tolist())).tolist(), dtype=object)
    return product
