"""Simulated numbers: K replicates of a declared arithmetic; their spread is what correct implementations may differ by.

Replicate 0 is unperturbed (float64). After each operation every other replicate is perturbed as the arithmetic would:

- a rounded result: relative noise, uniform in ±u of the intermediates' format; in every other replicate the same for all
  that have one mantissa, as where equal numbers are computed alike and not, say, in blocks with a maximum of their own;
- exp, log, tanh: uniform in ± function_ulps·u, twice: once for every element and once for the whole replicate, because a
  library's error is a deterministic function of its input; for eᶻ also u·|z|, as 2^(z·log₂e) has it, twice;
- a sum of n terms pᵢ, in any order that does not sort them: normal noise of variance
  u²/3 · (n − 1)(½ Σpᵢ² + ⅓ (Σpᵢ)²), the partial sums' rounding errors for terms of random sign (first part) and of one
  sign (second); a product adds u²/3 · Σpᵢ². A sum stays open while it is added to: x W + b is one sum, whose
  accumulator may have started at b; unless sums are stored in a coarser format, which x W is, too, before b is added;
- one stored number that is added to many sums, a bias, loses the same bits in all whose totals have one exponent;
- where terms are equal, so are their rounding errors, as far as the partial sums keep their exponent: for groups
  of m equal terms the variance is Σm² / Σm times as large, and what goes beyond the above is common to the replicate,
  also of what is added to them, a bias perhaps, from which the sum may have started;
- truncating accumulation: besides, a loss of up to n·u of the sum, common to the replicate, and n·u of how far the
  partial sums wander, n being the additions, and one more where the products do not fit the accumulator;
- operands of products: rounded first, where the declared operand format is coarser than theirs;
- below the smallest normal number: half the subnormal spacing, absolute; or 0, where the arithmetic flushes;
- beyond the largest number: infinity.

The last rounding of a result is its storage's, which the judge knows to be half an ulp: it is no noise (`before`).

A comparison at a kink that the noise could decide either way is decided either way, by a coin, so that the population
holds both branches. Perturbations of float64 would vanish in float64: they are magnified, and the deviations divided
by the same factor, which is right to the first order; where they leave it, the noise is kept as it is, coarse but honest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple
from zlib import crc32

import numpy as np

from .arithmetic import Arithmetic, Format
from .numbers import NumberArray, align
from .numbers import system_of as _system

REPLICATES = 32
MAGNIFICATION = 2.0**12  # of float64's u, which leaves 12 bits below it to resolve the noise
COARSE = 2.0  # of float64's u, so that at least half of the perturbations move a number, by one ulp
HEADROOM = 2.0**-16  # by which deviations are kept smaller: in units of u they would overflow before their sums do
LINEAR_WITHIN = 2.0**-3  # of an array's size: up to this a function is linear over the noise, which stays normal
UNDECIDED_WITHIN = 12.0  # standard deviations from a kink within which both branches are possible


@dataclass
class Simulation:
    """One evaluation in a declared arithmetic: the number of its replicates and the source of its noise.

    The noise is `magnification` times the arithmetic's, and deviations are divided by `reduction`. first_order becomes
    False where the noise passes a function that is not linear over it: the spread then bounds nothing, the tails being
    no longer normal. Systematic errors are those of a `path` through the implementation, which may have several.
    """

    arithmetic: Arithmetic
    replicates: int = REPLICATES
    seed: int = 0
    magnification: float = field(default=1.0, init=False)
    reduction: float = field(default=1.0, init=False)
    first_order: bool = field(default=True, init=False)
    path: str = field(default="", init=False)
    rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        if self.arithmetic.intermediates.p > 40:
            self.magnification = self.reduction = MAGNIFICATION

    def u(self, fmt: Format) -> float:
        return fmt.u * self.magnification

    def exactly(self, array: Any) -> "Simulated":
        """An array as stored: without noise, the same in every replicate."""
        return Simulated(np.asarray(array).astype(np.float64)[None], self, self.arithmetic.storage)

    def evaluate(
        self, function: Callable[..., Any], arrays: Sequence[Any], parameters: dict[str, Any]
    ) -> tuple["Simulated", ...]:
        """The outputs of a spec, as a tuple, in this arithmetic."""
        with np.errstate(all="ignore"):
            y = function(*(self.exactly(a) for a in arrays), **parameters)
            outputs = y if isinstance(y, tuple) else (y,)
            if self.reduction > 1 and not (self.first_order and all(y.small() for y in outputs)):
                self.magnification, self.reduction, self.first_order = COARSE, 1.0, True
                return self.evaluate(function, arrays, parameters)
        return outputs

    def uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._draw(_uniform_pool(), shape)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._draw(_normal_pool(), shape)

    def common(self, name: str, ndim: int) -> np.ndarray:
        """Uniform in ±1, one number for each perturbed replicate: fixed by name and path, the same in every evaluation."""
        return _common(name + self.path, self.replicates - 1).reshape((-1,) + (1,) * ndim)

    def _draw(self, pool: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A random stretch of a fixed pool: drawing every number anew would take most of an evaluation's time."""
        size = int(np.prod(shape))
        if size <= pool.size // 4:
            start = int(self.rng.integers(pool.size - size))
            return pool[start : start + size].reshape(shape)
        starts = self.rng.integers(pool.size, size=-(-size // 1024))
        stretches = (starts[:, None] + np.arange(1024)) % pool.size
        return pool[stretches].reshape(-1)[:size].reshape(shape)


class Simulated(NumberArray):
    """values [K or 1, *shape]: 1 where all replicates agree because nothing has been rounded yet."""

    lead: ClassVar[int] = 1

    def __init__(
        self,
        values: np.ndarray,
        simulation: Simulation,
        fmt: Format,
        before: np.ndarray | None = None,
        terms: "Terms | None" = None,
    ):
        self.values = values
        self.simulation = simulation
        self.format = fmt
        self.before = before  # the last rounding, where there was one
        self.terms = terms  # of the sum that this is, while it is open

    @property
    def exact(self) -> bool:
        """Whether every correct implementation gets these very numbers."""
        return self.values.shape[0] == 1 and self.format.p <= self.simulation.arithmetic.storage.p

    def deviations(self) -> np.ndarray:
        """Each perturbed replicate less the unperturbed one, before it is stored: [K − 1, *shape]."""
        values = self.values
        if self.before is not None and self.format.p == self.simulation.arithmetic.storage.p:
            values = self.before
        if values.shape[0] == 1:
            return np.zeros((self.simulation.replicates - 1, *values.shape[1:]))
        with np.errstate(invalid="ignore"):
            return (values[1:] - values[:1]) / self.simulation.reduction

    def spread(self) -> np.ndarray:
        """Root mean square of the deviations."""
        return _root_mean_square(self.deviations())

    def small(self) -> bool:
        """Whether the deviations, before they are divided, are small against the array."""
        return bool(np.all(_is_small(self.deviations() * self.simulation.reduction, self.values[0])))

    def stored(self) -> "Simulated":
        """As one call returns it and another takes it: rounded to the storage format."""
        storage = self.simulation.arithmetic.storage
        return self if self.format.p <= storage.p else self._rounded(self.values, fmt=storage)

    def relaid(self, function, *others):
        arrays = (self, *others)
        before = None
        if any(a.before is not None for a in arrays if isinstance(a, Simulated)):
            before = function(*(self.raise_to(a) if getattr(a, "before", None) is None else a.before for a in arrays))
        laid = self.wrap(function(*(self.raise_to(a) for a in arrays)), *arrays)
        laid.before = before
        return laid

    def wrap(self, values, *sources):
        formats = [s.format for s in sources if isinstance(s, Simulated)] or [self.format]
        return Simulated(values, self.simulation, max(formats, key=lambda f: f.p))

    def constant(self, number):
        return Simulated(np.full((1,), float(number)), self.simulation, self.simulation.arithmetic.storage)

    def raise_to(self, x):
        return x.values if isinstance(x, Simulated) else np.asarray(x)[None]

    def select(self, where, a, b):
        where_, a_, b_ = align(*(self.raise_to(x) for x in (where, a, b)), lead=1)
        values = np.where(where_, a_, b_)
        if isinstance(where, Simulated) and self.simulation.reduction > 1 and values.shape[0] > 1:
            # the other branch is a whole difference away, not a magnified one
            flipped = where_ != where_[:1]
            values = np.where(flipped, values[:1] + self.simulation.reduction * (values - values[:1]), values)
        return self.wrap(values, a, b)

    def max(self, axis, keepdims):
        return self.wrap(np.max(self.values, axis=self.axis(axis), keepdims=keepdims), self)

    def sum(self, axis, keepdims):
        axis, first = self.axis(axis), self.values[:1]
        total = np.sum(self.values, axis=axis, keepdims=keepdims)
        count = np.count_nonzero(first, axis=axis, keepdims=keepdims)
        unit = _unit(first)
        exactly = self._sums_exactly(_bits(first), np.max(count, initial=1), self.values)
        more = 0.0 if exactly else _repetition(first, axis, keepdims) - 1
        root = unit * np.sqrt(np.sum(np.square(first / unit), axis=axis, keepdims=keepdims))
        terms = Terms(count, root, np.broadcast_to(more, count.shape))
        result = self._summed(total, terms, terms.deviation(total[:1]))
        if self._may_overflow(unit * np.max(count, initial=0)):
            result._overflow_underway(np.sum(np.abs(first), axis=axis, keepdims=keepdims))
        return result

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__" or kwargs:
            return NotImplemented
        if ufunc is np.matmul:
            return self._matmul(*inputs)
        if ufunc in (np.add, np.subtract) and any(isinstance(i, Simulated) and i.terms for i in inputs):
            return self._added(ufunc, *inputs)
        values = align(*(self.raise_to(i) for i in inputs), lead=1)
        if ufunc in _COMPARISONS:
            return self._compare(ufunc, *values)
        if ufunc in (np.multiply, np.divide) and any(_scales_exactly(i) for i in inputs[ufunc is np.divide :]):
            array = _system(inputs)
            return array._scaled(array.relaid(lambda v: ufunc(*(v if i is array else i for i in inputs))))
        if ufunc is np.negative:
            return self.relaid(np.negative)
        if ufunc is np.maximum:
            return self.wrap(self._maximum(*values), *inputs)
        result = ufunc(*values)
        if ufunc in _FUNCTIONS:
            u = self.simulation.u(self.simulation.arithmetic.intermediates)
            self.simulation.first_order &= _is_linear(ufunc, result, u) and self._stays_saturated(ufunc, values[0], u)
            return self._evaluated(ufunc, values[0], result)
        if ufunc not in _ROUNDED:
            return NotImplemented
        # the nearest number to a + b is no farther than a is, or b
        smaller = np.minimum(*map(np.abs, values)) if ufunc in (np.add, np.subtract) else None
        return self._rounded(result, most=smaller)

    def _scaled(self, scaled: "Simulated") -> "Simulated":
        """By a power of two, which costs nothing but the bits that pass below the smallest number."""
        fmt, size = self.simulation.arithmetic.intermediates, np.abs(scaled.values[0])
        if not np.any((size < fmt.smallest_normal) & (size < np.abs(self.values[0]))):
            return scaled
        stored = self._stored(scaled.values, np.zeros(()), fmt)
        stored.before = scaled.before
        return stored

    def _stays_saturated(self, function: np.ufunc, z: np.ndarray, u: float) -> bool:
        """Whether e^z that is lost beside 1, and tanh z that is ± 1, are so whatever the noise in z: replicates that show
        none of it are no sign that there is none, as of two scores 10¹¹ apart, each of which 10¹⁰ may be lost of.
        """
        if len(z) == 1 or function is np.log:
            return True
        logistic = function is np.exp  # as which eᶻ counts: 0 where it is lost beside 1, 1 where 1 is lost beside it
        saturated = np.abs(z[0]) > -np.log(u) * (1.0 if logistic else 0.5)
        if not np.any(saturated):
            return True
        reach = UNDECIDED_WITHIN * _root_mean_square(z[1:] - z[:1]) / self.simulation.reduction
        nearest = np.maximum(np.abs(z[0]) - reach, 0.0)
        left = 1 / (1 + np.exp(nearest)) if logistic else 1 - np.tanh(nearest)
        return not np.any(saturated & (left > LINEAR_WITHIN))

    def _evaluated(self, function: np.ufunc, argument: np.ndarray, result: np.ndarray) -> "Simulated":
        """A library function's error, in part its own for every element, in part common to the replicate."""
        simulation, arithmetic = self.simulation, self.simulation.arithmetic
        shape = (simulation.replicates - 1, *result.shape[1:])
        noise = _alike(simulation.uniform(shape), argument[0], arithmetic.intermediates, scaled=False)
        noise = noise + simulation.common(function.__name__, result.ndim - 1)
        noise = noise * (arithmetic.function_ulps * simulation.u(arithmetic.intermediates))
        if function is np.exp:  # as 2^(z·log₂e), whose constant and product are rounded
            through_exp2 = simulation.uniform(shape) + simulation.common("log2 e", result.ndim - 1)
            noise = noise + through_exp2 * (simulation.u(arithmetic.accumulator) * np.abs(argument[-shape[0] :]))
        return self._stored(result, noise * result[-shape[0] :], arithmetic.intermediates)

    def _rounded(self, result: np.ndarray, fmt: Format | None = None, most: np.ndarray | None = None) -> "Simulated":
        """One rounding to the intermediates' (or a given) format, by `most` at most."""
        simulation = self.simulation
        fmt = fmt or simulation.arithmetic.intermediates
        shape = (simulation.replicates - 1, *result.shape[1:])
        size = simulation.u(fmt) * np.abs(result[-shape[0] :])
        if most is not None:
            size = np.minimum(size, simulation.magnification * most[-shape[0] :])
        noise = _alike(simulation.uniform(shape), result[0], fmt) * np.sign(result[0])  # as −x is rounded to −x'
        rounded = self._stored(result, noise * size, fmt)
        rounded.before = result
        return rounded

    def _matmul(self, a, b) -> "Simulated":
        if len(a.shape) < 2 or len(b.shape) < 2:
            raise ValueError(f"matmul: specs multiply matrices, got shapes {a.shape} and {b.shape}")
        a_, b_ = align(self._operand(a), self._operand(b), lead=1)
        a0, b0 = a_[:1], b_[:1]
        unit_a, unit_b = _unit(a0), _unit(b0)
        count = (a0 != 0).astype(np.float64) @ (b0 != 0).astype(np.float64)
        bits, more = _bits(a0) + _bits(b0), np.zeros(())
        if not self._sums_exactly(bits, max(a0.shape[-1], 1), a_, b_):
            more = (_repetition(a0, -1) - 1) * (_repetition(b0, -2) - 1) / np.maximum(count - 1, 1)
        root = unit_a * unit_b * np.sqrt(np.square(a0 / unit_a) @ np.square(b0 / unit_b))
        terms = Terms(count, root, np.broadcast_to(more, count.shape))
        total = a_ @ b_
        deviation = np.hypot(HEADROOM * terms.root, terms.deviation(total[:1]))
        fmt = self.simulation.arithmetic.accumulator
        # in units of u, as half of float64's least number is none
        lost = fmt.smallest_normal / fmt.u if self.simulation.arithmetic.flush else fmt.tiny / fmt.u / 2
        if np.any(np.abs(total[0]) < count[0] * lost):  # terms may underflow, each losing this much
            deviation = np.hypot(deviation, HEADROOM * np.sqrt(3) * lost * count)
        cuts = count if bits > fmt.p else terms.additions  # the first product is cut off, too, where it does not fit
        result = self._summed(total, terms, deviation, cuts=cuts)
        if self._may_overflow(unit_a * unit_b * np.max(count, initial=0)):
            result._overflow_underway(np.abs(a0) @ np.abs(b0))
        return result

    def _operand(self, x) -> np.ndarray:
        operands = self.simulation.arithmetic.operands
        values = self.raise_to(x)
        if not isinstance(x, Simulated) or x.format.p <= operands.p:
            return values
        return self._rounded(values, fmt=operands).values

    def _added(self, ufunc, a, b) -> "Simulated":
        """An open sum that goes on: its order is as free as if all terms had been there from the start."""
        arithmetic = self.simulation.arithmetic
        summands = []
        # each summand by a kernel of its own; where one kernel does all it rounds less often
        stored = arithmetic.sums.p < arithmetic.accumulator.p
        for x in (a, b):
            if isinstance(x, Simulated) and x.terms and not stored:
                summands += [x.values if x.before is None else x.before, *x.terms]
            else:
                values = self.raise_to(x)
                first = values[:1]
                summands += [values, *Terms((first != 0).astype(np.float64), np.abs(first), np.zeros_like(first))]
        aligned = align(*summands, lead=1)
        (va, vb), (of_a, of_b) = aligned[::4], (Terms(*aligned[1:4]), Terms(*aligned[5:]))
        total = ufunc(va, vb)
        terms, first = of_a.joined(of_b), total[:1]
        known = np.hypot(of_a.deviation(va[:1]), of_b.deviation(vb[:1]))
        least = HEADROOM * first
        with_all = np.maximum(terms.deviation(first), np.abs(least))
        unit = _unit(with_all)
        more = unit * np.sqrt(np.maximum(np.square(with_all / unit) - np.square(known / unit), np.square(least / unit)))
        counted = of_a.additions * va[:1] + of_b.additions * vb[:1]
        shared = 0.0 if stored else sum(self._shared(total, values) for values in (va, vb))
        return self._summed(total, terms, more, counted=counted, shared=shared)

    def _shared(self, total: np.ndarray, values: np.ndarray) -> Any:
        """What is lost of one stored number that is added to many sums, in units of the accumulator's u.

        A sum that has been rounded has no bits below its last place, so that those which the number has there are rounded
        away alike wherever the totals have one exponent: in every other replicate, as some begin with that number.
        """
        if len(values) > 1 or values.size == total[0].size:  # computed, or not added to many
            return 0.0
        fmt, exponent = self.simulation.arithmetic.accumulator, np.frexp(total[0])[1]
        noise = self.simulation.uniform((self.simulation.replicates - 1, *total.shape[1:]))
        shared = _alike(noise, values[0] * (1 + exponent / 1024), fmt, scaled=False)
        if shared is noise:
            return 0.0
        shared[1::2] = 0
        return shared * np.ldexp(0.5 * (values[0] != 0), exponent)

    def _summed(
        self,
        total: np.ndarray,
        terms: "Terms",
        deviation: np.ndarray,
        cuts: np.ndarray | None = None,
        counted: np.ndarray | None = None,
        shared: Any = 0.0,
    ) -> "Simulated":
        """An open sum: noise of this standard deviation, HEADROOM · √3/u of the accumulator; then the rounding of sums.

        `cuts` is how often truncation cuts off, where that is not once for each addition; `counted` the part of what it
        loses that the summands, being sums themselves, have lost already; `shared` is noise that elements have in common.
        """
        simulation, arithmetic = self.simulation, self.simulation.arithmetic
        fmt = arithmetic.accumulator
        u = simulation.u(fmt) / HEADROOM
        noise = simulation.normal((simulation.replicates - 1, *total.shape[1:])) * (u / np.sqrt(3) * deviation)
        noise = noise + simulation.u(fmt) * shared
        if np.any(terms.repetition):
            common = simulation.common("equal terms", total.ndim - 1) * u
            noise = noise + common * deviation * np.sqrt(terms.repetition)
        if arithmetic.rounding == "truncate":
            cuts = terms.additions if cuts is None else cuts
            size = np.sign(total[:1]) * np.maximum(np.abs(total[:1]), fmt.smallest_normal)  # below it ulps are as large
            loss = cuts * size * (1 + simulation.common("truncate", total.ndim - 1)) / 2
            if counted is None:  # partial sums wander while the total may cancel: a bridge of variance n²·Σpᵢ²/12
                loss = loss + simulation.normal(noise.shape) * cuts * terms.root / np.sqrt(12)
            else:
                loss = loss - counted / 2
            noise = noise - simulation.u(fmt) * loss
        result = self._stored(total, noise, fmt)
        if arithmetic.sums.p < fmt.p:
            result = self._rounded(result.values, fmt=arithmetic.sums)
        result.terms = terms
        return result

    def _sums_exactly(self, bits: int, count: int, *terms: np.ndarray) -> bool:
        """Whether each partial sum is what its terms, of so many bits, add up to: then equal terms have no error to repeat."""
        return all(len(t) == 1 for t in terms) and bits + np.log2(count) <= self.simulation.arithmetic.accumulator.p

    def _may_overflow(self, bound: float) -> bool:
        return not bound < self._largest / 2

    @property
    def _largest(self) -> float:
        """What a sum may reach on its way, parts of it being stored perhaps as finished sums are."""
        return min(self.simulation.arithmetic.accumulator.largest, self.simulation.arithmetic.sums.largest)

    def _overflow_underway(self, magnitude: np.ndarray) -> None:
        """Where terms of both signs could overflow before they cancel, an order of summation decides: not a number."""
        total = np.abs(self.values[:1])
        undefined = (magnitude > self._largest / 2) & (total < magnitude * (1 - 2.0**-20))
        for values in (self.values, self.before):
            if values is not None and values.shape[0] > 1:
                values[1:] = np.where(undefined, np.nan, values[1:])

    def _stored(self, result: np.ndarray, noise: np.ndarray, fmt: Format) -> "Simulated":
        """Noise added to every replicate but the first, and the ends of the format's range."""
        values = np.empty((self.simulation.replicates,) + result.shape[1:])
        values[0] = result[0]
        perturbed = values[1:]
        if not np.isfinite(np.sum(noise)):
            noise = np.where(np.isfinite(noise), noise, 0.0)  # an infinity is not perturbed
        np.add(result[-perturbed.shape[0] :], noise, out=perturbed)
        size = np.abs(result[0])
        flush = self.simulation.arithmetic.flush
        low = (size < fmt.smallest_normal * (2 if flush else 1)) & (size > 0)
        if np.any(low):
            if flush:  # and what a clamped exp leaves within a binade of it
                perturbed[np.abs(perturbed) < 2 * fmt.smallest_normal] = 0
            else:
                half = fmt.tiny * (self.simulation.magnification / 2)  # in this order, or float64's is 0
                perturbed += low * half * _alike(self.simulation.uniform(perturbed.shape), result[0], fmt, scaled=False)
        if not self.simulation.first_order or np.any(size >= fmt.largest * (1 - 2.0**-6)):
            beyond = np.abs(perturbed) > fmt.largest
            perturbed[beyond] = np.copysign(np.inf, perturbed[beyond])
        return Simulated(values, self.simulation, fmt)

    def _maximum(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Near the kink replicates go on as the larger argument does: few of them would show what lies beyond it."""
        larger = np.maximum(a, b)
        if larger.shape[0] > 1:
            d = a - b
            larger[1:] = np.where(self._undecided(d), larger[:1] + np.abs(d[1:] - d[:1]), larger[1:])
        return larger

    def _undecided(self, d: np.ndarray) -> np.ndarray:
        """Where the noise could give a difference either sign, or what overflows on the way, as it does not in float64."""
        spread = _root_mean_square(d[1:] - d[:1]) / self.simulation.reduction
        near = (np.abs(d[0]) <= UNDECIDED_WITHIN * spread) & (spread > 0)
        return near | (np.isfinite(d[0]) & ~np.isfinite(spread))

    def _compare(self, ufunc, a: np.ndarray, b: np.ndarray):
        truth = ufunc(a, b)
        if truth.shape[0] == 1:
            return truth[0]
        coins = self.simulation.uniform(truth.shape) > 0
        coins[0] = truth[0]
        return self.wrap(np.where(self._undecided(a - b), coins, truth[:1]))


class Terms(NamedTuple):
    """The terms of a sum: how many are not zero, the root of their sum of squares, and how many times the variance of
    the rounding errors comes again, in common, because terms are equal; arrays [1, *shape]."""

    number: np.ndarray
    root: np.ndarray
    repetition: np.ndarray

    def deviation(self, total: np.ndarray) -> np.ndarray:
        """Standard deviation of the partial sums' rounding errors, times HEADROOM · √3/u."""
        root, total = HEADROOM * self.root, HEADROOM * total
        return np.hypot(root * np.sqrt(self.additions / 2), total * np.sqrt(self.additions / 3))

    @property
    def additions(self) -> np.ndarray:
        return np.maximum(self.number - 1, 0)

    def joined(self, other: "Terms") -> "Terms":
        """The terms of both sums, none of the one equal to one of the other."""
        number = self.number + other.number
        squares = self.number * (1 + self.repetition) + other.number * (1 + other.repetition)
        repetition = np.maximum(squares / np.maximum(number, 1) - 1, 0)
        return Terms(number, np.hypot(self.root, other.root), repetition)


def _repetition(a: np.ndarray, axis: int | tuple[int, ...], keepdims: bool = True) -> Any:
    """Σm² / Σm over the groups of m equal numbers along an axis, or several; zeros are no terms, and 1 is the least."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    last = np.moveaxis(a, axes, range(-len(axes), 0))
    s = np.sort(last.reshape(*last.shape[: -len(axes)], -1), axis=-1)
    equal = s[..., 1:] == s[..., :-1]
    if not equal.any():
        return 1.0
    begins = np.concatenate([np.ones_like(s[..., :1], bool), ~equal], axis=-1)
    index = np.arange(s.shape[-1])
    before = index - np.maximum.accumulate(np.where(begins, index, 0), axis=-1)  # equal ones: 1 + 3 + 5 + … = m²
    squares = np.sum((2 * before + 1) * (s != 0), axis=-1)
    repetition = np.maximum(squares / np.maximum(np.count_nonzero(s, axis=-1), 1), 1.0)
    return np.expand_dims(repetition, axes) if keepdims else repetition


def _alike(noise: np.ndarray, values: np.ndarray, fmt: Format, scaled: bool = True) -> np.ndarray:
    """The noise [K, *shape], in every other replicate the same where values [*shape] are: what is computed from equal
    numbers in one way has equal errors, which add up; in several ways, errors of its own, which do not cancel.

    Compared as the format, float32 at least, tells numbers apart; and but for sign and exponent, if `scaled`.
    """
    if values.size == 1:
        return noise
    stored = values.astype(np.float64 if fmt.p > 24 else np.float32).reshape(-1)
    mantissa = stored.view(f"u{stored.itemsize}")
    if scaled:
        mantissa = mantissa & (2**52 - 1 if fmt.p > 24 else 2**23 - 1)
    order = np.argsort(mantissa)
    ordered = mantissa[order]
    begins = np.concatenate([np.ones_like(ordered[:1], bool), ordered[1:] != ordered[:-1]])
    if np.all(begins):
        return noise
    of_group = np.empty_like(order)
    of_group[order] = order[begins][np.cumsum(begins) - 1]
    noise = noise.copy()
    noise[::2] = noise[::2].reshape(len(noise[::2]), -1)[:, of_group].reshape(noise[::2].shape)
    return noise


def _bits(a: np.ndarray) -> int:
    """The most significant bits that one of the numbers has; infinities and NaN have none."""
    mantissa = (np.frexp(np.where(np.isfinite(a), a, 0.0))[0] * 2.0**53).astype(np.int64)
    lowest = np.where(mantissa == 0, 2**53, mantissa & -mantissa)
    return 54 - int(np.min(np.frexp(lowest)[1], initial=54))


def _scales_exactly(factor: Any) -> bool:
    """Whether it is the number 0 or a power of two, by which products and quotients are exact."""
    return isinstance(factor, int | float) and (factor == 0 or abs(np.frexp(float(factor))[0]) == 0.5)


def _root_mean_square(d: np.ndarray) -> np.ndarray:
    """Over the first axis, without the squares' overflow and underflow."""
    largest = np.max(np.abs(d), axis=0)
    unit = np.where(largest > 0, largest, 1.0)
    return unit * np.sqrt(np.mean(np.square(d / unit), axis=0))


def _is_small(d: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Per element: whether deviations are small against the array, as those that stay proportional to the noise are."""
    return ~(_root_mean_square(d) > LINEAR_WITHIN * np.max(np.abs(values), initial=0.0))


def _is_linear(function: np.ufunc, result: np.ndarray, u: float) -> bool:
    """Whether the function is linear over its argument's noise, wherever its value is not lost beside 1 (e⁻ᶻ in 1 + e⁻ᶻ)."""
    if len(result) == 1:
        return True
    seen = np.clip(result, u, 1 / u) if function is np.exp else result
    size = seen[0] if function is np.exp else 1.0
    return not np.any(_root_mean_square(seen[1:] - seen[:1]) > LINEAR_WITHIN * size)


def _unit(a: np.ndarray) -> float:
    """What an array is divided by before it is squared, for the same reason; infinities aside."""
    size = np.abs(a)
    return float(np.max(size, where=np.isfinite(size), initial=0.0)) or 1.0


_ROUNDED = {np.add, np.subtract, np.multiply, np.divide, np.sqrt}
_FUNCTIONS = {np.exp, np.log, np.tanh}
_COMPARISONS = {np.greater, np.less, np.equal}


@lru_cache
def _uniform_pool() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, 1 << 20)


@lru_cache
def _normal_pool() -> np.ndarray:
    return np.random.default_rng(2).standard_normal(1 << 20)


@lru_cache
def _common(name: str, replicates: int) -> np.ndarray:
    return np.random.default_rng(crc32(name.encode())).uniform(-1, 1, replicates)
