"""What every number system shares: arrays that NumPy's dispatch protocols hand to us, so that a spec's lines stay unchanged.

A NumberArray wraps a NumPy array `values`, whose first `lead` axes are the system's own and invisible to the spec.
Shape operations are written here, once; arithmetic belongs to the systems.
"""

from typing import Any, ClassVar

import numpy as np


class Dimension(int):
    """A size that remembers its number system, so that np.sqrt(K.shape[-1]) is evaluated there and not in float64."""

    array: "NumberArray"

    def __new__(cls, size: int, array: "NumberArray") -> "Dimension":
        dimension = super().__new__(cls, size)
        dimension.array = array
        return dimension

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        inputs = tuple(self.array.constant(int(i)) if isinstance(i, Dimension) else i for i in inputs)
        return getattr(ufunc, method)(*inputs, **kwargs)


class NumberArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array over a number system; subclasses give `wrap`, `constant`, `sum`, `max`, `select` and __array_ufunc__."""

    lead: ClassVar[int] = 0
    values: np.ndarray

    def wrap(self, values: np.ndarray, *sources: Any) -> "NumberArray":
        """The same system's array with these values, whose entries come from the sources."""
        raise NotImplementedError

    def relaid(self, function, *others: Any) -> "NumberArray":
        """The same entries, of this and other arrays, laid out anew by a function of their values."""
        return self.wrap(function(*(self.raise_to(a) for a in (self, *others))), self, *others)

    def constant(self, number: int) -> "NumberArray":
        """An exact scalar of the same system."""
        raise NotImplementedError

    def raise_to(self, x: Any) -> np.ndarray:
        """The values of x, a NumberArray or plain numbers, as this system stores them."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[Dimension, ...]:
        return tuple(Dimension(n, self) for n in self.values.shape[self.lead :])

    @property
    def ndim(self) -> int:
        return self.values.ndim - self.lead

    @property
    def mT(self):
        return self.relaid(lambda v: v.swapaxes(-1, -2))

    def __len__(self) -> int:
        return self.values.shape[self.lead]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        index = (slice(None),) * self.lead + (index if isinstance(index, tuple) else (index,))
        return self.relaid(lambda v: v[index])

    def reshape(self, shape):
        return self.relaid(lambda v: v.reshape(v.shape[: self.lead] + tuple(int(n) for n in shape)))

    def swapaxes(self, a: int, b: int):
        return self.relaid(lambda v: v.swapaxes(self.axis(a), self.axis(b)))

    def axis(self, axis):
        """Where an axis, or several, that the spec names lies in `values`."""
        if isinstance(axis, tuple):
            return tuple(self.axis(a) for a in axis)
        return axis if axis < 0 else axis + self.lead

    def __array_function__(self, function, types, args, kwargs):
        if function not in FUNCTIONS:
            return NotImplemented
        return FUNCTIONS[function](*args, **kwargs)


def align(*arrays: np.ndarray, lead: int) -> list[np.ndarray]:
    """Insert axes behind the leading ones until all have the same number, so that broadcasting sees the spec's shapes."""
    ndim = max(a.ndim for a in arrays)
    return [a.reshape(a.shape[:lead] + (1,) * (ndim - a.ndim) + a.shape[lead:]) for a in arrays]


def system_of(arrays) -> NumberArray:
    return next(a for a in arrays if isinstance(a, NumberArray))


def _join(function):
    def join(arrays, axis=0):
        arrays = list(arrays)
        system = system_of(arrays)
        lead = system.lead

        def joined(*values):
            leads = np.broadcast_shapes(*(v.shape[:lead] for v in values))
            return function([np.broadcast_to(v, leads + v.shape[lead:]) for v in values], axis=system.axis(axis))

        first = arrays[0] if isinstance(arrays[0], NumberArray) else system.wrap(system.raise_to(arrays[0]))
        return first.relaid(joined, *arrays[1:])

    return join


def _pad(array, widths):
    """Zeros around the array; np.pad would put plain numbers among the system's."""
    zero = array.raise_to(0).reshape(-1)[0]
    widths = [(0, 0)] * array.lead + [(int(a), int(b)) for a, b in widths]

    def padded(values):
        shape = tuple(n + a + b for n, (a, b) in zip(values.shape, widths, strict=True))
        result = np.empty(shape, values.dtype)
        result[...] = zero
        result[tuple(slice(a, n - b) for n, (a, b) in zip(shape, widths, strict=True))] = values
        return result

    return array.relaid(padded)


FUNCTIONS = {
    np.stack: _join(np.stack),
    np.concatenate: _join(np.concatenate),
    np.pad: _pad,
    np.sum: lambda a, axis, keepdims=False: a.sum(axis, keepdims),
    np.max: lambda a, axis, keepdims=False: a.max(axis, keepdims),
    np.where: lambda where, a, b: system_of((where, a, b)).select(where, a, b),  # type: ignore[attr-defined]
}
