"""The properties of an implementation, each judged on one example. A property is a row of PROPERTIES.

A property takes a backend, a dtype and a case and returns a Judgement; its strategy says which cases it is tried on.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from ..impls import Backend
from ..spec import FORMATS, Operation, format_of
from ..spec.arithmetic import round_to
from ..spec.certified import Certified, Undecided, evaluate, precision
from ..spec.rational import rational
from ..spec.simulated import Simulated, Simulation
from .calls import Call, judge_call, stateless
from .cases import SIZES, Case, Drawn, cases
from .directed import directed, laid_out, small
from .judge import Judgement, judge_all, replicate_errors, sensitivity, tolerance_factor
from .laws import LAWS
from .laws import judge as judge_law
from .layouts import LAYOUTS
from .oracle import expect

SMOOTH = ("normal", "negative", "saturating")
LAWS_SHARE = 0.1  # of the profile's examples, for each
FINITE_DIFFERENCE_STEP = {"float16": 2.0**-3, "bfloat16": 2.0**-2, "float32": 2.0**-5, "float64": 2.0**-5}


@dataclass(frozen=True)
class Property:
    """judge(backend, dtype, case) → Judgement, the strategy that draws its cases, and those that it is tried on first."""

    name: str
    judge: Callable[[Backend, str, Case], Judgement]
    strategy: Callable[[Operation, tuple[str, ...]], st.SearchStrategy[Case]]
    needs_gradient: bool = False
    share: float = 1.0  # of the profile's examples
    applies: Callable[[Operation], bool] = lambda operation: True
    directed: Callable[[str, tuple[str, ...]], Sequence[Case]] = lambda operation, may: ()


def forward(backend: Backend, dtype: str, case: Case) -> Judgement:
    """The outputs are those of the spec, within the declared arithmetic's tolerance; the inputs are left as they were."""
    return judge_call(backend, dtype, case, of_gradient=False)


def gradient(backend: Backend, dtype: str, case: Case) -> Judgement:
    """Every array's gradient is that of the spec's vjp, for random cotangents of every output."""
    return judge_call(backend, dtype, case, of_gradient=True)


def layout(backend: Backend, dtype: str, case: Case) -> Judgement:
    """Both of the above for arrays that lie in memory in any way that strides allow, or are one and the same."""
    judgement = forward(backend, dtype, case)
    if judgement.verdict != "pass" or not backend.gradient(case.operation.name):
        return judgement
    backward = gradient(backend, dtype, case)
    return max((judgement, backward), key=lambda j: (j.failed, j.worst))


def exact(backend: Backend, dtype: str, case: Case) -> Judgement:
    """Small integers: every partial sum fits every declared format, so the result has no tolerance at all."""
    op, drawn, arithmetic = case.operation, case.draw(dtype), backend.arithmetic(case.operation.name, dtype)
    formats = (arithmetic.storage, arithmetic.intermediates, arithmetic.accumulator, arithmetic.operands)
    limit = 2.0 ** min(f.p for f in formats)
    judged = 0
    for call in Call.each(backend, dtype, op):
        arrays = call.arguments(drawn)
        if _largest_partial_sum(call.function, arrays, drawn.parameters) > limit:
            continue
        truths = call.function(*(rational(a) for a in arrays), **drawn.parameters)
        truths = truths if isinstance(truths, tuple) else (truths,)
        for name, truth, got in zip(call.names, truths, call(drawn), strict=True):
            judged += 1
            expected = round_to(np.asarray(truth).astype(np.float64), arithmetic.storage)
            if np.shape(got) != expected.shape or np.any(wrong := np.asarray(got).astype(np.float64) != expected):
                index = tuple(int(i) for i in np.argwhere(wrong)[0]) if np.shape(got) == expected.shape else ()
                value = float(got[index]) if np.shape(got) == expected.shape else None
                reason = "not exact, although all partial sums are integers that the formats hold"
                return Judgement(
                    "fail",
                    np.inf,
                    reason,
                    name,
                    index,
                    value,
                    float(expected[index]) if value is not None else None,
                    0.0,
                )
    return Judgement(
        "pass" if judged else "inconclusive", reason="" if judged else "partial sums may not fit the format"
    )


def finite_difference(backend: Backend, dtype: str, case: Case) -> Judgement:
    """⟨gradient, δ⟩ = the difference quotient of the backend's own forward along δ, whose truncation error is known.

    It is the law ⟨Jᵀ v, u⟩ = ⟨v, J u⟩, v being the cotangents and u = δ. The quotient's truncation error is the certified
    quotient less the certified derivative, both of the forward spec; its noise is the spread of the simulated quotient.
    The hand-derived vjp takes part only in how noisy gradients are.
    """
    op, drawn, arithmetic = case.operation, case.draw(dtype), backend.arithmetic(case.operation.name, dtype)
    rng = np.random.default_rng([case.seed, 1])
    gradients = backend.backward(op.name, drawn.arrays, drawn.cotangents, drawn.parameters)
    if problem := _malformed(gradients, drawn.arrays, op.arrays):
        return problem
    ahead, behind, delta = _displaced(drawn.arrays, gradients, dtype, rng)
    truth = _directional(op, drawn, delta)
    if truth is None:
        reject()
    slope = sum(_dot(g, d) for g, d in zip(gradients, delta, strict=True))
    quotient, true_quotient, terms = 0.0, 0.0, 0.0
    quotient_noise: Any = 0.0
    for arrays, sign in ((ahead, 0.5), (behind, -0.5)):
        outputs = backend.forward(op.name, arrays, drawn.parameters)
        if problem := _malformed(outputs, drawn.cotangents, op.outputs):
            return problem
        expected = expect(op.function, arrays, drawn.parameters, arithmetic, op.outputs, case.seed + (sign > 0))
        terms += sum(_dot(np.abs(c), np.abs(y)) * c.size for c, y in zip(drawn.cotangents, outputs, strict=True))
        quotient += sign * sum(_dot(c, y) for c, y in zip(drawn.cotangents, outputs, strict=True))
        true_quotient += sign * sum(
            _dot(c, e.truth.high) + _dot(c, e.truth.low) for c, e in zip(drawn.cotangents, expected, strict=True)
        )
        quotient_noise = quotient_noise + sign * _noise([e.population for e in expected], drawn.cotangents, rng)
    populations = Simulation(arithmetic, seed=case.seed + 2).evaluate(
        op.vjp, drawn.arrays + drawn.cotangents, drawn.parameters
    )
    noise = quotient_noise - _noise(populations, delta, rng)
    spread = float(np.sqrt(np.mean(np.square(noise))))
    own = FORMATS["float64"].u * terms  # rounding of these very sums
    allowed = tolerance_factor(1, len(noise) - 1) * spread + own
    error = (quotient - true_quotient) - (slope - truth)
    if not np.isfinite(allowed) or 0 < abs(truth) <= allowed:
        return Judgement("inconclusive", reason="a gradient of zeros would pass")
    if not abs(error) <= allowed:
        reason = "the gradient is not the derivative of the backend's own forward (⟨gradient, δ⟩, difference quotient)"
        expected_slope = quotient - true_quotient + truth
        return Judgement("fail", abs(error) / allowed, reason, got=slope, expected=expected_slope, tolerance=allowed)
    return Judgement("pass", abs(error) / allowed if error else 0.0)


def special(backend: Backend, dtype: str, case: Case) -> Judgement:
    """NaN and infinities come out where the equation brings them, and nowhere else; −0 is 0. Of gradients, too.

    The seed says which argument gets which: it counts through the tables, of outputs and of gradients in turn.
    """
    if case.seed % 2 and backend.gradient(case.operation.name):
        judgement = _special_call(backend, dtype, case, SPECIAL_IN_GRADIENTS, of_gradient=True)
        if judgement.verdict != "inconclusive":
            return judgement
    return _special_call(backend, dtype, case, SPECIAL, of_gradient=False)


SPECIAL: dict[str, list[tuple[str, float]]] = {
    "dense": [("x", np.nan), ("W", np.nan), ("b", np.nan), ("x", np.inf), ("b", -np.inf), ("x", -0.0)],
    "mse": [("y_hat", np.nan), ("y", np.nan), ("y_hat", np.inf), ("y", -np.inf), ("y", -0.0)],
    "softmax": [("x", np.nan), ("x", -np.inf), ("x", -0.0)],
    "conv2d": [("x", np.nan), ("w", np.nan), ("x", np.inf), ("x", -0.0)],
    "maxpool2d": [("x", np.nan), ("x", np.inf), ("x", -np.inf), ("x", -0.0)],
    "rnn": [("x", np.nan), ("h0", np.nan), ("W_hh", np.nan), ("b_y", np.nan), ("x", np.inf), ("x", -0.0)],
    "lstm": [("x", np.nan), ("h0", np.nan), ("c0", np.nan), ("W_c", np.nan), ("x", -np.inf), ("x", -0.0)],
    "attention": [("q", np.nan), ("k", np.nan), ("v", np.nan), ("v", np.inf), ("q", -0.0)],
    "multihead_attention": [("q", np.nan), ("k", np.nan), ("v", np.nan), ("q", -0.0)],
}
"""Where the equations define what NaN and infinities give; e.g. +inf in a softmax is ∞/∞, and left open."""


SPECIAL_IN_GRADIENTS: dict[str, list[tuple[str, float]]] = {
    "dense": [("dy", np.nan)],
    "mse": [("y_hat", np.nan), ("y", np.nan)],
    "softmax": [("x", np.nan), ("x", -np.inf), ("dp", np.nan)],
    "conv2d": [("dy", np.nan)],
    "maxpool2d": [("x", np.inf), ("x", -np.inf), ("dy", np.nan)],
    "rnn": [("dy", np.nan), ("dh", np.nan)],
    "lstm": [("dh", np.nan), ("dc_T", np.nan)],
    "attention": [("dy", np.nan)],
    "multihead_attention": [("dy", np.nan)],
}
"""The same of gradients. Whether 0 · NaN is NaN is left open here as there: BLAS may skip what it multiplies by 0."""


MASKED_BLOCKS = ("softmax", "maxpool2d")
"""Where −∞ is what a mask puts: every other time it fills the first half of a row or an image at least, never all of it."""


def _special_call(
    backend: Backend, dtype: str, case: Case, table: dict[str, list[tuple[str, float]]], of_gradient: bool
) -> Judgement:
    op, drawn = case.operation, case.draw(dtype)
    rng = np.random.default_rng([case.seed, 2])
    call = Call.of(backend, dtype, op, of_gradient)
    names = [*op.arrays, *(f"d{name}" for name in op.outputs)]
    defined = [(name, value) for name, value in table[op.name] if _is_defined(name, drawn.parameters)]
    if not defined:
        return Judgement("inconclusive", reason="what NaN gives here is left open")
    name, value = defined[case.seed // 2 % len(defined)]
    array = (drawn.arrays + drawn.cotangents)[names.index(name)]
    index: tuple[Any, ...] = tuple(int(rng.integers(n)) for n in array.shape)
    if value == -np.inf and op.name in MASKED_BLOCKS and case.seed // 2 // len(defined) % 2:
        ends = (int(rng.integers(max(1, n // 2), max(2, n))) for n in array.shape[1:])
        index = (index[0], *map(slice, ends))
    if value == 0.0:
        array[array == 0] = 0
        array[rng.random(array.shape) < 0.3] = -0.0
    else:
        array[index] = value
    expectations = call.expect(case, drawn, certified=False)
    zeros = sensitivity(expectations, {"zeros": [np.zeros(e.truth.shape) for e in expectations]})
    judgement = judge_all(expectations, call(drawn), zeros)
    if judgement.failed:
        where = ", ".join(f":{i.stop}" if isinstance(i, slice) else str(i) for i in index)
        return replace(judgement, reason=f"{name}[{where}] = {value}: {judgement.reason}")
    return Judgement("pass", judgement.worst)


def with_each_special(operation: str, may: tuple[str, ...]) -> tuple[Case, ...]:
    """Small cases for every row of the table, so that each is tried whatever the seed of a run."""
    return small(operation, 2 * len(SPECIAL[operation]) * (2 if operation in MASKED_BLOCKS else 1))


def _is_defined(name: str, parameters: dict[str, Any]) -> bool:
    """Whether a NaN in this argument has one meaning."""
    # What a key holds that a query may not attend to is not read; whether 0 · NaN is then 0 is left open.
    if name != "q" and parameters.keys() & {"mask", "causal"}:
        return False
    # Whether a weight is read that meets nothing but padding is left open, too, and so its gradient.
    if name in ("w", "dy") and parameters.get("padding", (0, 0)) != (0, 0):
        return False
    # 0 · dy, or no dy at all, where relu is constant
    return not (name.startswith("d") and parameters.get("activation") == "relu")


def _largest_partial_sum(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], parameters: dict[str, Any]
) -> float:
    """A bound: sums are largest where all terms have one sign, which one of the sign patterns brings about."""
    largest = 0.0
    full = [np.full(a.shape, float(np.max(np.abs(a.astype(np.float64)), initial=1.0))) for a in arrays]
    for signs in itertools.product((1, -1), repeat=len(arrays)):
        result = function(*(s * a for s, a in zip(signs, full, strict=True)), **parameters)
        largest = max(
            [largest, *(float(np.max(np.abs(y))) for y in (result if isinstance(result, tuple) else (result,)))]
        )
    return 2 * largest  # mse halves its sum at the end


def _displaced(arrays: Sequence[np.ndarray], gradients: Sequence[np.ndarray], dtype: str, rng: np.random.Generator):
    """x + h, x − h as stored, and half the difference of what was stored, in float64 (exact).

    The direction leans to the backend's own gradient, along which a right gradient has the most to show.
    """
    ahead, behind, delta = [], [], []
    for a, g in zip(arrays, gradients, strict=True):
        real = a.astype(np.float64)
        size = max(float(np.sqrt(np.mean(real * real))), 2.0**-10)
        lean = np.sign(np.nan_to_num(np.asarray(g).astype(np.float64)))
        step = FINITE_DIFFERENCE_STEP[dtype] * size * (lean + rng.standard_normal(a.shape) / 2)
        ahead.append((real + step).astype(a.dtype))
        behind.append((real - step).astype(a.dtype))
        delta.append((ahead[-1].astype(np.float64) - behind[-1].astype(np.float64)) / 2)
    return tuple(ahead), tuple(behind), delta


def _directional(op: Operation, drawn: Drawn, delta: Sequence[np.ndarray]) -> float | None:
    """The certified derivative of ⟨cotangents, f⟩ along δ, by one-sided differences; None at a kink, where they differ."""
    bits = 512
    with precision(bits):
        step = [Certified.exactly(d) * Certified.exactly(2.0**-100) for d in delta]
        at = [Certified.exactly(a) for a in drawn.arrays]
        c = [Certified.exactly(c) for c in drawn.cotangents]
        values = []
        for sign in (-1, 0, 1):
            try:
                y = evaluate(op.function, [a + sign * s for a, s in zip(at, step, strict=True)], drawn.parameters, bits)
            except Undecided:
                return None
            values.append(sum(np.sum((ci * yi).reshape((-1,)), axis=0) for ci, yi in zip(c, y, strict=True)))
        left, right = ((values[n + 1] - values[n]) * Certified.exactly(2.0**100) for n in (0, 1))
        left, right = float(left.values[()]), float(right.values[()])
    return (left + right) / 2 if abs(left - right) <= 2.0**-60 * (abs(left) + abs(right)) else None


def _dot(a: Any, b: Any) -> float:
    return float(np.sum(np.asarray(a).astype(np.float64) * np.asarray(b).astype(np.float64)))


def _noise(populations: Sequence[Simulated], weights: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Per replicate: the weighted sum of its errors."""
    total = 0.0
    for population, w in zip(populations, weights, strict=True):
        errors = replicate_errors(population, rng) * w.astype(np.float64)
        total = total + np.sum(errors.reshape(len(errors), -1), axis=1)
    return np.asarray(total)


def _malformed(answers: Sequence[Any], like: Sequence[np.ndarray], names) -> Judgement | None:
    for name, a, b in zip(names, answers, like, strict=True):
        if np.shape(a) != b.shape:
            return Judgement("fail", np.inf, f"shape {np.shape(a)}, expected {b.shape}", name)
    return None


def bad_calls(op: Operation, dtype: str) -> Iterator[tuple[str, tuple[np.ndarray, ...], dict[str, Any], str]]:
    """Calls that must be refused: what is wrong, the arrays, the parameters, and the argument that the error must name."""
    sizes = {letter: 3 + n % 3 for n, letter in enumerate(SIZES[op.name])}
    sizes |= {k: 2 for k in ("kH", "kW") if k in sizes}
    case = Case(op, sizes, parameters={"window": (2, 2)} if "window" in op.required else {})
    drawn = case.draw(dtype)
    bound: set[str] = set()
    for n, (name, letters) in enumerate(op.arrays.items()):
        array = drawn.arrays[n]
        replaced = lambda a, n=n: (*drawn.arrays[:n], a, *drawn.arrays[n + 1 :])  # noqa: E731
        yield f"{name} without its first axis", replaced(np.asarray(array[0])), drawn.parameters, name
        yield f"{name} with an axis more", replaced(array[None]), drawn.parameters, name
        for axis, letter in enumerate(letters.split()):
            if letter in bound or "+" in letter or "*" in letter:
                longer = np.concatenate([array, array.take([0], axis)], axis)
                yield f"{name} with {letter} one too large", replaced(longer), drawn.parameters, name
            bound.add(letter)
    for name, values in BAD_PARAMETERS.items():
        if name in op.parameters:
            for value in values:
                yield f"{name} = {value}", drawn.arrays, {**drawn.parameters, name: value}, name
    if "S" in sizes:
        B, M, S, heads = sizes["B"], sizes["M"], sizes["S"], sizes.get("h", sizes.get("H"))
        yield "causal with M ≠ S", drawn.arrays, {"causal": True}, "causal"
        yield "mask of three axes", drawn.arrays, {"mask": np.ones((heads, M, S), bool)}, "mask"
        yield "mask with a wrong M", drawn.arrays, {"mask": np.ones((B, heads, M + 1, S), bool)}, "mask"
        yield "mask of numbers", drawn.arrays, {"mask": np.ones((B, heads, M, S), drawn.arrays[0].dtype)}, "mask"
    if "H" in sizes and "W" in sizes:
        small = drawn.arrays[0][:, :1, :1]
        yield "window larger than the image", (small, *drawn.arrays[1:]), drawn.parameters, "window"


BAD_PARAMETERS: dict[str, list[Any]] = {
    "activation": ["no_such", None],
    "stride": [(0, 1), (1, -1), (1,), "ab", 1.5],
    "padding": [(-1, 0), (0, 0, 0)],
    "dilation": [(0, 1), (1, 0.5)],
    "window": [(0, 2), (2,), (99, 1)],
    "causal": ["yes"],
}


def bad_input(backend: Backend, dtype: str, operation: Operation) -> Iterator[tuple[str, Judgement]]:
    """Each bad call, of the function and of its gradient, is answered by a ValueError that names the argument."""
    for what, arrays, parameters, argument in bad_calls(operation, dtype):
        calls = {operation.name: partial(backend.forward, operation.name, arrays, parameters)}
        if backend.gradient(operation.name):
            cotangents = tuple(
                np.ones((1,) * len(s.replace("()", "").split()), format_of(dtype).dtype)
                for s in operation.outputs.values()
            )
            calls[operation.name + "_vjp"] = partial(backend.backward, operation.name, arrays, cotangents, parameters)
        for name, call in calls.items():
            yield f"{name}: {what}", _refusal(call, argument)


def _refusal(call: Callable[[], Any], argument: str) -> Judgement:
    try:
        call()
    except ValueError as error:
        if argument in str(error):
            return Judgement("pass")
        return Judgement("fail", np.inf, f"the ValueError does not name {argument}: {error}")
    except Exception as error:  # whatever else it raises is the finding
        return Judgement(
            "fail", np.inf, f"expected a ValueError that names {argument}, got {type(error).__name__}: {error}"
        )
    return Judgement("fail", np.inf, f"expected a ValueError that names {argument}, but the call returned")


def law(name: str) -> Property:
    """The laws of one name, one per operation, as a property."""
    rows = {row.operation.name: row for row in LAWS.values() if row.name == name}
    return Property(
        f"law:{name}",
        lambda backend, dtype, case: judge_law(rows[case.operation.name], backend, dtype, case),
        lambda op, may: rows[op.name].cases(may),
        needs_gradient=any(row.gradient for row in rows.values()),
        share=LAWS_SHARE,
        applies=lambda op: op.name in rows,
    )


PROPERTIES = {
    p.name: p
    for p in (
        Property("forward", forward, lambda op, may: cases(op.name, parameters=may), directed=directed),
        Property(
            "gradient",
            gradient,
            lambda op, may: cases(op.name, parameters=may, steep=True),
            needs_gradient=True,
            directed=directed,
        ),
        Property(
            "stateless",
            stateless,
            lambda op, may: cases(op.name, values=("normal",), parameters=may, most=512),
            share=0.05,
        ),
        Property(
            "finite_difference",
            finite_difference,
            lambda op, may: cases(op.name, values=SMOOTH, parameters=may, most=512),
            needs_gradient=True,
            share=0.32,
        ),
        Property(
            "exact",
            exact,
            lambda op, may: cases(op.name, values=("integers",), parameters=may, most=48).filter(
                lambda case: op.polynomial(**{k: v for k, v in case.parameters.items()})
            ),
            share=0.64,
            applies=lambda op: op.polynomial() and not op.recurrent,
        ),
        Property(
            "layout",
            layout,
            lambda op, may: cases(op.name, layouts=LAYOUTS[1:], parameters=may, most=512, steep=True),
            share=0.8,
            directed=laid_out,
        ),
        Property(
            "special",
            special,
            lambda op, may: cases(op.name, values=("normal",), parameters=may, most=512),
            share=0.64,
            directed=with_each_special,
        ),
        *map(law, dict.fromkeys(row.name for row in LAWS.values())),
    )
}
