"""The one judge: compares what an implementation returned with what a correct one may return.

Everything that prints or asserts reads its Judgement. The one free parameter is the suite's declared probability of a
false alarm; every tolerance factor follows from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from flint import arb

from ..spec.arithmetic import Arithmetic, Format, round_to
from ..spec.certified import Ball
from ..spec.simulated import Simulated

SUITE_FALSE_ALARM = 1e-3  # probability that a run of SUITE_EXAMPLES judged examples refuses one that is correct
SUITE_EXAMPLES = 10**6


def tolerance_factor(comparisons: int, freedom: int) -> float:
    """λ for so many comparisons, counted up to the next power of two."""
    return _student(1 << (comparisons - 1).bit_length(), freedom)


@lru_cache
def _student(comparisons: int, freedom: int) -> float:
    """A spread estimated from `freedom` replicates is exceeded λ-fold by chance with the probability that one of
    `comparisons` may have. Student's quantile, by bisection on the certified incomplete beta function.
    """
    p = SUITE_FALSE_ALARM / SUITE_EXAMPLES / comparisons
    low, high = 1.0, 1e6
    while high - low > 1e-3 * low:
        middle = (low * high) ** 0.5
        z = arb(freedom) / (freedom + arb(middle) ** 2)
        tail = z.beta_lower(arb(freedom) / 2, arb(1) / 2, regularized=True)
        low, high = (middle, high) if tail > p else (low, middle)
    return high


@dataclass(frozen=True)
class Judgement:
    """What the judge says of one answer.

    verdict is "pass", "fail" or "inconclusive"; worst the largest error over tolerance; for a failure, reason says
    why, and index, got, expected and tolerance belong to the worst element.
    """

    verdict: str
    worst: float = 0.0
    reason: str = ""
    output: str = ""
    index: tuple[int, ...] = ()
    got: float | None = None
    expected: float | None = None
    tolerance: float | None = None
    statistics: tuple["Statistics", ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.verdict == "fail"


@dataclass
class Statistics:
    """Sums over elements, of the implementation (entry 0) and of every replicate: they add up over a cell's examples.

    lean   Σ sign(m)·z, the direction in which errors lean          (z: error over its expected standard deviation)
    energy Σ z², the mean square error times n
    """

    lean: np.ndarray
    energy: np.ndarray
    n: int

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(self.lean + other.lean, self.energy + other.energy, self.n + other.n)

    def verdict(self, comparisons: int) -> str:
        """Empty, or the reason for which the implementation lies outside the replicates' population."""
        if not self.n or len(self.lean) < 3:
            return ""
        factor = tolerance_factor(comparisons, len(self.lean) - 2)
        # At least one element's deviation: where all that leans cancels in every replicate, a trace of it is no bias.
        typical = max(float(np.sqrt(np.mean(self.lean[1:] ** 2))), 1.0)
        if abs(self.lean[0]) > factor * typical:
            way = "away from" if self.lean[0] > 0 else "towards"
            times = abs(self.lean[0]) / typical
            return f"bias: the errors lean {way} zero, {times:.3g} times as far as replicates do (allowed {factor:.3g})"
        rms = np.sqrt(self.energy / self.n)
        # Of few elements one alone may be as far out as elements may be; a root mean square of one is allowed in any case.
        # Where the storage's rounding is all there is, replicates are equal, and the deviation is that of uniform errors.
        deviation = max(float(np.std(rms[1:], ddof=1)), np.sqrt(1 / 5 / self.n))
        allowed = max(float(np.mean(rms[1:])) + factor * deviation, factor / np.sqrt(self.n), 1.0)
        if rms[0] > allowed:
            return f"RMS: the errors' root mean square is {rms[0]:.3g} times the expected one (allowed {allowed:.3g})"
        return ""


@dataclass(frozen=True)
class Expectation:
    """One output as correct implementations may return it: the certified truth, the population, the storage format."""

    name: str
    truth: Ball
    population: Simulated
    comparisons: int
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0), repr=False)

    def __post_init__(self):
        arithmetic = self.population.simulation.arithmetic
        with np.errstate(all="ignore"):
            object.__setattr__(self, "tolerance", tolerance(self.population, self.truth.high, self.comparisons))
            spread = spread_about(self.population, self.truth.high)
            scale = np.hypot(spread, rounding(self.truth.high, arithmetic) / np.sqrt(3))
            object.__setattr__(self, "scale", scale)

    tolerance: np.ndarray = field(init=False, repr=False)
    scale: np.ndarray = field(init=False, repr=False)
    _replicates: np.ndarray = field(init=False, repr=False)

    @property
    def storage(self) -> Format:
        return self.population.simulation.arithmetic.storage

    @property
    def size(self) -> float:
        """The largest finite magnitude of the output; 1 where all of it is 0."""
        finite = np.abs(self.truth.high[np.isfinite(self.truth.high)])
        return float(finite.max(initial=0.0)) or 1.0

    @property
    def nbytes(self) -> int:
        """Of all arrays, the replicates' errors included, which come with the first judgement."""
        return 2 * self.population.values.nbytes + 5 * self.tolerance.nbytes

    def judge(self, got: Any) -> Judgement:
        """Shape and dtype first, then NaN and infinity as classes, then every element, then bias and RMS."""
        if not isinstance(got, np.ndarray | np.generic):
            return self._fail(f"returned {type(got).__name__}, expected an array")
        if got.shape != self.truth.shape:
            return self._fail(f"shape {tuple(got.shape)}, expected {self.truth.shape}")
        if got.dtype != self.storage.dtype:
            return self._fail(f"dtype {got.dtype}, expected {self.storage.dtype}")
        with np.errstate(all="ignore"):
            return self._judge_values(np.asarray(got).astype(np.float64))

    def is_wrong(self, answer: np.ndarray) -> bool:
        """Whether real numbers differ from the truth by what nobody would call rounding."""
        with np.errstate(all="ignore"):
            blur = self.population.simulation.arithmetic.blur
            differs = np.abs(answer - self.truth.high) > 0.9 * blur * self.size
            both_overflow = np.minimum(np.abs(answer), np.abs(self.truth.high)) > self.storage.largest
            return bool(np.any(differs & ~both_overflow))

    def judge_real(self, answer: np.ndarray) -> Judgement:
        """Judge real numbers, float64, as if an implementation had returned them rounded to its format."""
        with np.errstate(all="ignore"):
            return self._judge_values(round_to(answer, self.storage))

    def _judge_values(self, got: np.ndarray) -> Judgement:
        if not self.population.simulation.first_order:
            reason = "the declared arithmetic's noise is not small in a function's argument"
            return Judgement("inconclusive", reason=reason, output=self.name)
        m, T = self.truth.high, self.tolerance
        known = ~np.isnan(T) | ~np.isfinite(m)  # else the replicates overflow on the way, and anything may come out
        infinite = np.isinf(m) | (np.abs(m) - T > self.storage.largest)
        may_overflow = np.abs(m) + T > self.storage.largest
        same_class = np.where(
            np.isnan(m),
            np.isnan(got),
            np.where(
                infinite,
                got == np.copysign(np.inf, m),
                np.isfinite(got) | (may_overflow & (got == np.copysign(np.inf, m))),
            ),
        )
        wrong = known & ~same_class
        if np.any(wrong):
            index = _first(wrong)
            return self._fail(f"{_kind(got[index])}, expected {_kind(m[index])}", index, got, np.inf)
        finite = known & np.isfinite(got) & ~infinite & ~np.isnan(m) & np.isfinite(T)
        error = np.where(finite, (got - m) - self.truth.low, 0.0)
        excess = np.maximum(np.abs(error) - self.truth.radius, 0.0)
        ratio = np.where(excess > 0, excess / np.where(T > 0, T, np.finfo(float).tiny), 0.0)
        worst = float(np.max(ratio, initial=0.0))
        if worst > 1:
            return self._fail("value", _first(ratio == worst), got, worst)
        judged = int(np.count_nonzero(known & (np.isfinite(T) | ~np.isfinite(m))))
        if 2 * judged < m.size:
            return Judgement("inconclusive", worst, "most elements may overflow in the declared arithmetic", self.name)
        statistics = self._statistics(error, finite)
        if reason := statistics.verdict(self.comparisons):
            return replace(self._fail(reason, _first(ratio == worst), got, worst), statistics=(statistics,))
        return Judgement("pass", worst, output=self.name, statistics=(statistics,))

    def _statistics(self, error: np.ndarray, finite: np.ndarray) -> Statistics:
        """Elements with one mantissa, in the coarsest format on the way, may share their rounding errors, as equal rows
        do: only the first of them counts.
        """
        arithmetic = self.population.simulation.arithmetic
        coarsest = min(arithmetic.storage, arithmetic.intermediates, arithmetic.sums, key=lambda f: f.p)
        use = np.zeros(error.size, bool)
        mantissa = np.frexp(np.abs(round_to(self.truth.high, coarsest)))[0]
        use[np.unique(mantissa, return_index=True)[1]] = True
        use = use.reshape(error.shape) & finite & (self.scale > 0) & np.isfinite(self.scale)
        if not hasattr(self, "_replicates"):
            object.__setattr__(self, "_replicates", replicate_errors(self.population, self.rng, self.truth))
        z = np.where(use, np.concatenate([error[None], self._replicates]) / np.where(use, self.scale, 1.0), 0.0)
        z = np.clip(np.where(np.isfinite(z), z, 0.0), -1e30, 1e30).reshape(len(z), -1)  # squares stay finite
        return Statistics(z @ np.sign(self.truth.high).reshape(-1), np.sum(z * z, axis=1), int(np.count_nonzero(use)))

    def _fail(self, reason: str, index: tuple[int, ...] = (), got: Any = None, worst: float = np.inf) -> Judgement:
        if got is None:
            return Judgement("fail", np.inf, reason, self.name)
        values = float(got[index]), float(self.truth.high[index]), float(self.tolerance[index])
        return Judgement("fail", worst, reason, self.name, tuple(int(i) for i in index), *values)


def tolerance(population: Simulated, m: np.ndarray, comparisons: int) -> np.ndarray:
    """T = half an ulp of the storage format at m + λ·spread; 0 where every correct implementation gets these very numbers."""
    arithmetic = population.simulation.arithmetic
    if population.exact:
        return np.zeros(m.shape)
    noise = tolerance_factor(comparisons, population.simulation.replicates - 1) * spread_about(population, m)
    # Rounded to the accumulator first, a result may pass the middle; below its normal numbers that costs half a spacing,
    # as in p dp − p Σ, each product of which loses as much as the result of p (dp − Σ) does alone.
    twice = np.maximum(arithmetic.accumulator.u * np.abs(m), arithmetic.accumulator.tiny / 2)
    return rounding(np.abs(m) + np.where(np.isfinite(noise), noise, 0.0), arithmetic) + noise + twice


def spread_about(population: Simulated, m: np.ndarray) -> np.ndarray:
    """The replicates' spread, and the unperturbed one's distance from the truth: float64's own error is a sample, too.

    It shows only where float64 ends: an exp that overflows, a product below the smallest number.
    """
    error = population.values[0] - m
    return np.hypot(population.spread(), np.where(np.isfinite(error), error, 0.0))


def rounding(m: np.ndarray, arithmetic: Arithmetic) -> np.ndarray:
    """Half an ulp of the storage format at m; all of it where that may be flushed."""
    fmt = arithmetic.storage
    _, exponent = np.frexp(np.where(np.isfinite(m) & (m != 0), m, fmt.tiny))
    half = np.ldexp(0.5, np.maximum(exponent - fmt.p, fmt.e_min - fmt.p + 1))
    return np.where(np.abs(m) < 2 * fmt.smallest_normal, 2 * fmt.smallest_normal, half) if arithmetic.flush else half


def replicate_errors(population: Simulated, rng: np.random.Generator, truth: Ball | None = None) -> np.ndarray:
    """Each perturbed replicate's error, the storage's rounding included: [K − 1, *shape].

    That is random; or, where the truth is given, the nearest number is known. It need not be as often above as below:
    all products with 1 + 2u are rounded down, whose other factor is below 1.5.
    """
    arithmetic, errors = population.simulation.arithmetic, population.deviations()
    if population.exact:
        return errors
    m = population.values[0] if truth is None else truth.high
    half = rounding(m, arithmetic)
    at_random = errors + half * rng.uniform(-1, 1, errors.shape)
    if truth is None:
        return at_random
    beyond = (m - round_to(m, arithmetic.storage)) + truth.low
    nearest = 2 * half * np.rint((beyond + errors) / (2 * half)) - beyond
    flushed = arithmetic.flush & (np.abs(m) < 2 * arithmetic.storage.smallest_normal)
    unknown = half < np.finfo(float).smallest_normal  # where float64 ends, how much lies beyond is lost
    return np.where(flushed | unknown, at_random, nearest)


def judge_all(expectations: Sequence[Expectation], got: Any, trivial: tuple[tuple[str, ...], str]) -> Judgement:
    """All outputs of one example; the worst output speaks. Inconclusive where a trivially wrong answer would pass, too:
    `trivial` is what `sensitivity` says of them."""
    answers = got if isinstance(got, tuple | list) else (got,)
    if len(answers) != len(expectations):
        return Judgement("fail", np.inf, f"returned {len(answers)} arrays, expected {len(expectations)}")
    judgements = [e.judge(a) for e, a in zip(expectations, answers, strict=True)]
    for verdict in ("fail", "inconclusive"):
        if found := [j for j in judgements if j.verdict == verdict]:
            return max(found, key=lambda j: j.worst)
    worst = max(judgements, key=lambda j: j.worst)
    refused, accepted = trivial
    reason = f"{accepted} would pass" if accepted else "" if refused else "no trivial answer is wrong here"
    statistics = tuple(s for j in judgements for s in j.statistics)
    return replace(
        worst, verdict="inconclusive" if reason else "pass", reason=reason, statistics=statistics, refused=refused
    )


def sensitivity(
    expectations: Sequence[Expectation], trivial: Mapping[str, Sequence[np.ndarray]]
) -> tuple[tuple[str, ...], str]:
    """The trivially wrong answers that are refused, and the first that is not."""
    refused: list[str] = []
    for name, answer in trivial.items():
        wrong = [(e, a) for e, a in zip(expectations, answer, strict=True) if e.is_wrong(a)]
        if any(e.judge_real(a).failed for e, a in wrong):
            refused.append(name)
        elif wrong:
            return tuple(refused), name
    return tuple(refused), ""


def _first(where: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(where)), where.shape))


def _kind(value: float) -> str:
    return "NaN" if np.isnan(value) else f"{value:+g}" if np.isinf(value) else "a finite number"
