"""Laws: properties that need no oracle. A law is a row of LAWS; what it says is a function in identities.py.

The function is evaluated three ways. Called on the implementation, its residual, left side less right side, is exact
over the rationals. Called on the spec in the declared arithmetic, every call with noise of its own, the residual has a
spread: the tolerance is λ·spread and, for each result that the implementation returned, its factor times half an ulp of
the storage format. Called on the spec in balls, the residual contains 0: so each is proved (tests/test_laws.py).

⟨v, J u⟩ = ⟨Jᵀ v, u⟩ is no row of this table: it is the property finite_difference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from ..impls import Backend
from ..spec import OPERATIONS, Arithmetic, Operation, format_of
from ..spec.certified import Certified, precision
from ..spec.rational import rational
from ..spec.simulated import REPLICATES, Simulated, Simulation
from . import identities as say
from .cases import Case, cases, shape_of
from .identities import Given, Run, Side, Sides
from .judge import Judgement, rounding, tolerance_factor
from .layouts import plain

SMOOTH = ("normal", "negative", "saturating")
CALM = (*SMOOTH, "zeros", "ties", "cancelling", "integers")  # sums stay of order one
STEADY = ("normal", "negative")  # a recurrence that saturates amplifies 16 bits' rounding to all that its gradient is
MOST_ELEMENTS = 512


@dataclass(frozen=True)
class Law:
    """Its label, what makes the two sides, and which cases it is tried on.

    without         parameters that are left at their defaults
    gradient        whether it is a law of the vjp: run(*arrays, *cotangents, **parameters)
    exact           whether the sides are the very same numbers, NaN being NaN
    says_something  whether a case leaves anything to compare
    """

    label: str
    sides: Callable[[Run, Given], Sides]
    values: tuple[str, ...] = CALM
    without: tuple[str, ...] = ()
    gradient: bool = False
    exact: bool = False
    says_something: Callable[[Case], bool] = lambda case: True

    def __str__(self) -> str:
        return f"{self.label}: {self.sides.__doc__}"

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.label.partition(".")[0]]

    @property
    def name(self) -> str:
        return self.label.partition(".")[2]

    def cases(self, may: Sequence[str]) -> st.SearchStrategy[Case]:
        """Small ones, of the parameters that an implementation takes."""
        parameters = tuple(p for p in may if p not in self.without)
        drawn = cases(self.operation.name, self.values, parameters=parameters, most=MOST_ELEMENTS, steep=self.gradient)
        return drawn.filter(self.says_something)

    def spec(self, of: str | None) -> Callable[..., tuple[Any, ...]]:
        """What `run` calls in the spec, its result always a tuple."""
        op = OPERATIONS[of] if of else self.operation
        function = op.vjp if self.gradient else op.function

        def call(*arrays, **parameters):
            result = function(*arrays, **parameters)
            return result if isinstance(result, tuple) else (result,)

        return call


_LIMITS = (*CALM, "large", "mixed", "offset", "huge", "tiny")
_with_a_batch = partial(Law, says_something=lambda case: case.sizes[say.batch_letter(case.operation)] > 1)
_with_steps = partial(Law, says_something=lambda case: case.sizes["T"] > 1)
_with_a_square = partial(Law, says_something=lambda case: case.sizes["M"] == case.sizes["S"])
LAWS = {
    law.label: law
    for law in (
        Law("softmax.rows_sum_to_one", say.rows_sum_to_one, values=_LIMITS),
        Law("softmax.ignores_shifts", say.ignores_shifts),
        Law("conv2d.linear_in_x", say.linear_in_x),
        Law("conv2d.linear_in_w", say.linear_in_w),
        Law("conv2d.moves_with_x", say.moves_with_x, says_something=say.can_move),
        Law("maxpool2d.commutes_with_monotone_maps", say.commutes_with_monotone_maps, values=_LIMITS, exact=True),
        Law("maxpool2d.commutes_with_nan", say.commutes_with_nan, values=_LIMITS, exact=True),
        _with_steps("rnn.steps_chain", say.rnn_steps_chain, values=SMOOTH),
        _with_steps("lstm.steps_chain", say.lstm_steps_chain),
        Law("attention.permutes_with_queries", say.permutes_with_queries, without=("causal",)),
        Law("attention.ignores_the_order_of_keys", say.ignores_the_order_of_keys, without=("causal",)),
        Law("attention.one_key_returns_its_value", say.one_key_returns_its_value, without=("causal",)),
        _with_a_square("attention.causal_is_a_mask", say.causal_is_a_mask),
        Law("multihead_attention.one_head_is_attention", say.one_head_is_attention),
        *(_with_a_batch(f"{name}.batch_is_independent", say.batch_is_independent) for name in OPERATIONS),
        *(
            Law(f"{op.name}.vjp_is_linear", say.vjp_is_linear, values=STEADY if op.recurrent else SMOOTH, gradient=True)
            for op in OPERATIONS.values()
        ),
    )
}


class _Malformed(Exception):
    """The implementation returned what is no result of the operation: a Judgement."""


def judge(law: Law, backend: Backend, dtype: str, case: Case) -> Judgement:
    """Whether the implementation obeys the law, within the tolerance that its declared arithmetic leaves."""
    try:
        results = list(law.sides(implementation(law, backend, dtype), Given.of(case, dtype)))
    except _Malformed as malformed:
        return malformed.args[0]
    if law.exact:
        return _worst([_same(law, *sides) for sides in results])
    simulations, simulated = populations(
        law, case, dtype, partial(backend.arithmetic, dtype=dtype, gradient=law.gradient)
    )
    if not all(s.first_order for s in simulations):
        return Judgement("inconclusive", reason="the declared arithmetic's noise is not small in a function's argument")
    if not any(np.any(_unperturbed(terms(left))) for _, left, _ in simulated):
        reject()  # zeros, as of a filter that meets nothing but padding
    blur = max(max(s.arithmetic.blur, 32 * s.arithmetic.storage.u) for s in simulations)  # each result was stored
    factor = tolerance_factor(sum(np.size(terms(right)[0][1]) for _, _, right in results), REPLICATES - 1)
    both = zip(results, simulated, strict=True)
    return _worst([_equal(law, *sides, _residual(*of_spec[1:]), factor, blur) for sides, of_spec in both])


def implementation(law: Law, backend: Backend, dtype: str) -> Run:
    """Takes float64 arrays, whose numbers are all of the format, and returns what the backend does, as float64."""
    stored = format_of(dtype).dtype

    def run(*arrays, of=None, **parameters):
        op = OPERATIONS[of] if of else law.operation
        if dtype not in backend.dtypes(op.name):
            raise NotImplementedError(f"{backend.name} has no {op.name} in {dtype}")
        if missing := [p for p in parameters if p not in backend.parameters(op)]:
            raise NotImplementedError(f"{backend.name}'s {op.name} takes no {missing[0]}")
        given = tuple(plain(np.asarray(a, np.float64).astype(stored)) for a in arrays)
        assert all(np.array_equal(a, b.astype(float), equal_nan=True) for a, b in zip(arrays, given, strict=True))
        if law.gradient:
            n = len(op.arrays)
            names, shapes = ["d" + name for name in op.arrays], [a.shape for a in given[:n]]
            answers = backend.backward(op.name, given[:n], given[n:], parameters)
        else:
            sizes = op.check(given, **parameters)
            names, shapes = list(op.outputs), [shape_of(letters, sizes) for letters in op.outputs.values()]
            answers = backend.forward(op.name, given, parameters)
        if len(answers) != len(names):
            raise _Malformed(Judgement("fail", np.inf, f"returned {len(answers)} arrays, expected {len(names)}"))
        for name, answer, shape in zip(names, answers, shapes, strict=True):
            came = getattr(answer, "dtype", type(answer).__name__)
            if np.shape(answer) != shape or came != stored:
                reason = f"{came} of shape {np.shape(answer)}, expected {stored} of {shape}"
                raise _Malformed(Judgement("fail", np.inf, reason, name))
        return tuple(np.asarray(a).astype(np.float64) for a in answers)

    return run


def populations(
    law: Law, case: Case, dtype: str, arithmetic: Callable[[str], Arithmetic]
) -> tuple[list[Simulation], list[tuple[str, Side, Side]]]:
    """The sides, of the spec in the declared arithmetic; and the simulations, of this and of another operation."""
    simulations = [Simulation(arithmetic(law.operation.name), seed=case.seed + 3)]
    sides: list[tuple[str, Side, Side]] = []

    def run(*arrays, of=None, **parameters):
        if of is None:
            simulation = simulations[0]
            simulation.path += "′"  # for arrays of another shape the implementation may go another way
            return law.spec(of)(
                *(a.stored() if isinstance(a, Simulated) else simulation.exactly(a) for a in arrays), **parameters
            )
        simulations[1:] = [Simulation(arithmetic(of), seed=case.seed + 4)]
        simulations[1].path = of
        return simulations[1].evaluate(law.spec(of), arrays, parameters)

    def evaluate():
        simulations[0].path = ""
        sides[:] = law.sides(run, Given.of(case, dtype))
        return tuple(a for _, *both in sides for side in both for _, a in terms(side) if isinstance(a, Simulated))

    simulations[0].evaluate(evaluate, (), {})
    return simulations, sides


def residuals(law: Law, given: Given, bits: int) -> list[tuple[str, Certified]]:
    """Each output's residual, of the spec over the reals, in balls."""

    def ball(a):
        return a if isinstance(a, Certified) else Certified.exactly(a)

    def total(side):
        return sum(ball(factor) * ball(a) for factor, a in terms(side))

    def run(*arrays, of=None, **parameters):
        return law.spec(of)(*map(ball, arrays), **parameters)

    with precision(bits):
        return [(name, total(left) - total(right)) for name, left, right in law.sides(run, given)]


def terms(side: Side) -> list[tuple[int, Any]]:
    return side if isinstance(side, list) else [(1, side)]


def _residual(left: Side, right: Side) -> list[tuple[int, Any]]:
    return terms(left) + [(-factor, a) for factor, a in terms(right)]


def _unperturbed(side: list[tuple[int, Any]]) -> np.ndarray:
    return sum(n * (a.values[0] if isinstance(a, Simulated) else a) for n, a in side)


def _equal(law: Law, name: str, left: Side, right: Side, population, factor: float, blur: float) -> Judgement:
    """Of one output; `population` is its residual in the spec. Inconclusive where results wrong by `blur` would pass."""
    if not all(np.all(np.isfinite(a)) for _, a in _residual(left, right)):
        return Judgement("fail", np.inf, f"not finite: {law}", name)
    exactly = [sum(n * rational(a) for n, a in terms(side)) for side in (left, right)]
    error, got, expected = (np.asarray(a, object).astype(float) for a in (exactly[0] - exactly[1], *exactly))
    stored: Any = 0.0
    wrong: Any = 0.0
    own = _unperturbed(population)  # a sample of float64's own errors
    deviations: Any = np.zeros((1, *error.shape))
    for (n, a), (_, p) in zip(_residual(left, right), population, strict=True):
        if isinstance(p, Simulated):
            wrong = wrong + blur * np.abs(n * a)
        if isinstance(p, Simulated) and not p.exact:
            arithmetic = p.simulation.arithmetic
            stored = stored + abs(n) * (rounding(np.abs(a), arithmetic) + arithmetic.accumulator.u * np.abs(a))
            deviations = deviations + n * p.deviations()
    spread = np.sqrt(np.mean(np.square(deviations), axis=0))
    T = np.broadcast_to(stored + factor * np.hypot(spread, own), error.shape)
    if not np.any(wrong > T):
        return Judgement("inconclusive", reason=f"results that are wrong by {100 * blur:.2g} % would pass", output=name)
    ratio = np.where(error == 0, 0.0, np.abs(error) / np.where(T > 0, T, np.finfo(float).tiny))
    return _judged(law, name, ratio, got, expected, T)


def _same(law: Law, name: str, left: np.ndarray, right: np.ndarray) -> Judgement:
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    return _judged(law, name, np.where(same, 0.0, np.inf), left, right, np.zeros(left.shape))


def _judged(law: Law, name: str, ratio, got, expected, T) -> Judgement:
    worst = float(np.max(ratio))
    if worst <= 1:
        return Judgement("pass", worst, output=name)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    return Judgement("fail", worst, str(law), name, index, float(got[index]), float(expected[index]), float(T[index]))


def _worst(judgements: list[Judgement]) -> Judgement:
    """A failure speaks first, and an output that proves nothing last."""
    return max(judgements, key=lambda j: (j.failed, j.verdict == "pass", j.worst))
