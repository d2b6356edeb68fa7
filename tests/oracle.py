"""The oracle: what a case's outputs, and its gradients, may be. Spec evaluated twice, certified and simulated."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..spec import Arithmetic, Operation
from ..spec.certified import Ball, certify
from ..spec.simulated import Simulation
from .judge import Expectation, tolerance
from .latest import Latest

UNSEEN = 2.0**-1073  # no format tells numbers this near apart
NEGLIGIBLE = 2.0**-10  # of the tolerance: how small a certified radius must be


def expect(
    function: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    parameters: Mapping[str, Any],
    arithmetic: Arithmetic,
    names: Iterable[str],
    seed: int = 0,
    certified: bool = True,
) -> list[Expectation]:
    """The expectations of a spec function's outputs at these arrays, in the declared arithmetic.

    certified=False takes the unperturbed float64 replicate for the truth: for inputs that are not finite, whose NaN and
    infinities are IEEE 754's and no real number's. Raises Undecided where no precision decides a comparison.
    """
    simulation = Simulation(arithmetic, seed=seed)
    populations = simulation.evaluate(function, arrays, dict(parameters))
    comparisons = 4 * sum(max(1, p.values[0].size) for p in populations)  # elements; a share each for bias and RMS
    with np.errstate(all="ignore"):
        wanted = [NEGLIGIBLE * tolerance(p, p.values[0], comparisons) for p in populations]

    def enough(n: int, ball: Ball) -> bool:
        return not np.any(ball.radius > np.maximum(wanted[n], UNSEEN))

    if certified:
        balls = _certified(function, arrays, parameters, enough)
    else:
        balls = tuple(Ball(p.values[0], *np.zeros((2, *p.values[0].shape))) for p in populations)
    return [
        Expectation(name, ball, population, comparisons, np.random.default_rng([seed, n]))
        for n, (name, ball, population) in enumerate(zip(names, balls, populations, strict=True))
    ]


_truths: Latest[tuple[Ball, ...]] = Latest(1 << 27)
"""The latest ones, which are the same whatever the arithmetic: only how near the truth must be known differs."""


def _certified(
    function: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    parameters: Mapping[str, Any],
    enough: Callable[[int, Ball], bool],
) -> tuple[Ball, ...]:
    values = [np.asarray(a) for a in (*arrays, *parameters.values())]
    key = function, tuple(parameters), *((a.dtype.str, a.shape, a.tobytes()) for a in values)
    balls = _truths.get(key)
    if balls is None or not all(enough(n, ball) for n, ball in enumerate(balls)):
        balls = certify(function, arrays, dict(parameters), enough)
        _truths.keep(key, balls, sum(3 * ball.high.nbytes for ball in balls) + sum(a.nbytes for a in values))
    return balls


def trivial_answers(
    operation: Operation,
    function: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    parameters: Mapping[str, Any],
    truths: Sequence[np.ndarray],
    blur: float,
    ignore: Collection[int],
) -> dict[str, list[np.ndarray]]:
    """Answers that nobody should accept: zeros, a constant, a scale that is wrong by `blur` (1 %), each of the inputs
    with the numbers `ignore` taken for 0, and for recurrences the last step computed as if it were the first."""
    answers = {
        "zeros": [np.zeros_like(m) for m in truths],
        "a constant": [np.full_like(m, np.mean(m) if np.ptp(m) else m.flat[0] + 1) for m in truths],
        f"a {100 * blur:.0f} % scale": [(1 + blur) * m for m in truths],
    }
    exact = [a.astype(np.float64) for a in arrays]
    with np.errstate(all="ignore"):
        names = [*operation.arrays, *(f"cotangent of {name}" for name in operation.outputs)]
        for ignored in ignore:
            without = _tuple(function(*(a * 0 if n == ignored else a for n, a in enumerate(exact)), **parameters))
            answers[f"ignoring {names[ignored]}"] = [np.asarray(a) for a in without]
        if operation.recurrent and function is operation.function:
            alone = _tuple(function(exact[0][-1:], *exact[1:], **parameters))
            answers["the last step alone"] = [
                np.concatenate([m[:-1], a]) if a.ndim == m.ndim == 3 else a for m, a in zip(truths, alone, strict=True)
            ]
    return answers


def _tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)
